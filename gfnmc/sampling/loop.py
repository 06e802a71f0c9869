"""The loop: many chains of one kernel, side by side."""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, NonFiniteEnergyError, ObjectError, OptionError
from gfnmc.core.threads import thread_limit
from gfnmc.kernels.base import Adaptation, Info, Kernel, State, check_irreducible
from gfnmc.sampling.chains import Chains, Record
from gfnmc.sampling.progress import progress
from gfnmc.sampling.watch import Watch


@dataclass(frozen=True)
class Budget:
    """A bound on the work of a run; the run ends with the last kept draw that fits.

    Attributes:
        target_calls: Evaluations of the target, start and warm-up included; None for no bound.
        seconds: Wall-clock seconds; None for no bound.
    """

    target_calls: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("target_calls", self.target_calls), ("seconds", self.seconds)):
            if value is not None and not value > 0:
                raise OptionError(f"a budget of {value} {name} allows no work; give a positive number, or None")


def sample(
    kernel: Kernel,
    *,
    num_chains: int = 16,
    num_samples: int = 1_000,
    num_warmup: int = 100,
    thinning: int = 1,
    seed: int = 0,
    init: Tensor | None = None,
    adapt: bool = False,
    budget: Budget | None = None,
    num_threads: int | None = 1,
    progress_bar: bool = True,
) -> Chains:
    """Run chains of a kernel.

    The same seed gives the same draws, bit for bit.

    Args:
        kernel: What moves the chains. It must be able to reach the whole space.
        num_chains: Chains side by side.
        num_samples: Kept draws a chain.
        num_warmup: Steps before the first kept draw.
        thinning: Steps from one kept draw to the next.
        seed: Any integer; names the run.
        init: Objects to start from, `(num_chains, *event_shape)`, or one object for all chains; by default the
            kernel draws them.
        adapt: Whether the warm-up tunes the kernel, all chains together; kept draws come from the tuned kernel, the
            result's `adapted_kernel`, which no longer changes.
        budget: Ends the run early; the draws kept by then are those that a longer run begins with.
        num_threads: Torch threads during the run; None leaves torch's setting alone.
        progress_bar: Whether to show progress.

    Returns:
        The chains.

    Raises:
        OptionError: If a count makes no sense, or the kernel is to adapt in no warm-up.
        IrreducibilityError: If the kernel cannot reach the whole space.
        CapabilityError: If the target is noisy and not declared unbiased, or the kernel has nothing to adapt.
        ObjectError: If `init` does not fit the target.
        NonFiniteEnergyError: If the target returns NaN or +inf; the message names chain and step. As with any other
            error on the way, the draws finished by then are in its attribute `chains`.
    """
    for name, value, least in (
        ("num_chains", num_chains, 1),
        ("num_samples", num_samples, 1),
        ("num_warmup", num_warmup, 0),
        ("thinning", thinning, 1),
    ):
        if value < least:
            raise OptionError(f"{name} is {value}; it must be at least {least}")
    check_irreducible(kernel)
    adaptation = _adaptation(kernel, num_warmup) if adapt else None
    with thread_limit(num_threads), torch.no_grad():
        run = _Run(kernel, num_chains, num_warmup, num_samples, thinning, seed, budget or Budget(), adaptation)
        try:
            run.start(init)
            run.go(progress_bar)
        except BaseException as error:
            run.attach(error)
            raise
        return run.chains()


def _adaptation(kernel: Kernel, num_warmup: int) -> Adaptation:
    if num_warmup == 0:
        raise OptionError("a kernel adapts in the warm-up, but num_warmup is 0; give it some steps, or adapt=False")
    adaptation = kernel.adaptation()
    if adaptation is None:
        raise CapabilityError(f"{kernel.name} has nothing to adapt; sample with adapt=False")
    return adaptation


class _Run:
    """One call of `sample`: where the chains are and what was kept."""

    def __init__(
        self,
        kernel: Kernel,
        num_chains: int,
        num_warmup: int,
        num_samples: int,
        thinning: int,
        seed: int,
        budget: Budget,
        adaptation: Adaptation | None,
    ) -> None:
        # What makes the next step, and until the warm-up is over what tunes it.
        self.kernel = kernel
        self.adaptation = adaptation
        self.adapted_kernel: Kernel | None = None
        self.num_warmup = num_warmup
        self.num_samples = num_samples
        self.thinning = thinning
        self.budget = budget
        self.draws = PhiloxDraws(seed, "chain", num_chains)
        self.num_chains = num_chains
        self.warmup = _Recorder(num_chains)
        self.samples = _Recorder(num_chains)
        self.cost = Cost()
        self.begun = time.perf_counter()
        self.state: State | None = None
        self.step = 0

    def start(self, init: Tensor | None) -> None:
        if init is None:
            init = self.kernel.start(self.draws.role("start"))
        event_shape = tuple(self.kernel.target.event_shape)
        if tuple(init.shape) == event_shape:
            init = init.expand(self.num_chains, *event_shape)
        if init.dim() == 0 or init.shape[0] != self.num_chains:
            given = "no batch of objects" if init.dim() == 0 else f"{init.shape[0]} objects"
            raise ObjectError(f"init has {given} for {self.num_chains} chains; give one a chain, or one")
        # One evaluation an object; a kernel with replicas may start each of them at its own.
        self.cost += Cost(target_calls=init.numel() // math.prod(event_shape))
        self.state = self.kernel.init(init.clone(), self.draws)

    def go(self, progress_bar: bool) -> None:
        total = self.num_warmup + self.num_samples * self.thinning
        with progress(f"sampling, {self.kernel.name}", total, progress_bar=progress_bar) as shown:
            watch = Watch(self.kernel.target, self.num_chains)
            while self.step < total and not self._is_spent():
                info = self._step()
                self.step += 1
                if shown.is_shown:
                    self._watch(watch, info)
                shown.update(self.step, watch.figures)
            if self.step < total:
                shown.update(total, watch.figures)

    def chains(self) -> Chains:
        if not self.samples.seconds:
            raise OptionError(
                f"the budget ended after {self.step} steps, before the first kept draw; allow more target calls or "
                "seconds, or shorten the warm-up"
            )
        return self._finished()

    def attach(self, error: BaseException) -> None:
        """Keep the finished draws with an error, and say where it struck."""
        if self.samples.seconds or self.warmup.seconds:
            error.chains = self._finished()  # type: ignore[attr-defined]
            error.add_note(f"{len(self.samples.seconds)} finished draws a chain are kept in this error's `chains`")
        if isinstance(error, NonFiniteEnergyError):
            error.step = self.step
            error.args = (f"chain {error.row}, step {self.step}: {error.args[0]}",)

    def _finished(self) -> Chains:
        cost = replace(self.cost, seconds=time.perf_counter() - self.begun)
        kernel = self.kernel
        event = (self.num_chains, *kernel.target.event_shape)
        empty = torch.empty(event, dtype=kernel.target.dtype)
        return Chains(
            kernel.target,
            kernel.name,
            self.warmup.record(empty),
            self.samples.record(empty),
            self.thinning,
            self.draws.seed,
            kernel.training_cost,
            cost,
            self.adapted_kernel,
        )

    def _step(self) -> Info:
        assert self.state is not None
        stepping = self.kernel if self.adaptation is None else self.adaptation
        self.state, info = stepping.step(self.draws.at(self.step), self.state)
        self.cost += info.cost()
        kept_steps = self.step + 1 - self.num_warmup
        recorder = self.warmup if kept_steps <= 0 else self.samples
        recorder.count(info)
        if kept_steps <= 0 or kept_steps % self.thinning == 0:
            recorder.keep(self.state, info, time.perf_counter() - self.begun)
        if self.adaptation is not None:
            self._adapt(self.adaptation, is_over=kept_steps == 0)
        return info

    def _watch(self, watch: Watch, info: Info) -> None:
        assert self.state is not None
        kept_steps = self.step - self.num_warmup
        watch.see(info, self.state, is_kept=kept_steps > 0 and kept_steps % self.thinning == 0)

    def _adapt(self, adaptation: Adaptation, *, is_over: bool) -> None:
        if not is_over:
            self.kernel = adaptation.kernel
            return
        self.kernel = self.adapted_kernel = adaptation.frozen()
        self.adaptation = None
        check_irreducible(self.kernel)

    def _is_spent(self) -> bool:
        calls, seconds = self.budget.target_calls, self.budget.seconds
        most_of_a_step = self.kernel.calls_per_step * self.num_chains
        over_calls = calls is not None and self.cost.target_calls + most_of_a_step > calls
        return over_calls or (seconds is not None and time.perf_counter() - self.begun >= seconds)


class _Recorder:
    """Collects the draws of one phase."""

    def __init__(self, num_chains: int) -> None:
        self._num_chains = num_chains
        self._positions: list[Tensor] = []
        self._log_probs: list[Tensor] = []
        self._stats: dict[str, list[Tensor]] = {}
        self._calls = {name: torch.zeros(num_chains, dtype=torch.int64) for name in ("target_calls", "policy_calls")}
        self.seconds: list[float] = []

    def count(self, info: Info) -> None:
        for name, counted in self._calls.items():
            self._calls[name] = counted + getattr(info, name)

    def keep(self, state: State, info: Info, seconds: float) -> None:
        self._positions.append(state.position)
        self._log_probs.append(state.log_prob)
        for name, value in (_stats(info) | self._calls).items():
            self._stats.setdefault(name, []).append(value)
        self._calls = {name: torch.zeros_like(counted) for name, counted in self._calls.items()}
        self.seconds.append(seconds)

    def record(self, empty: Tensor) -> Record:
        """Return what was kept; `empty` gives the shape and dtype of a draw where nothing was."""
        if not self.seconds:
            nothing = torch.empty(self._num_chains, 0, dtype=torch.float64)
            return Record(empty[:, None][:, :0], nothing, {}, torch.empty(0, dtype=torch.float64))
        stats = {name: torch.stack(values, 1) for name, values in self._stats.items()}
        seconds = torch.tensor(self.seconds, dtype=torch.float64)
        return Record(torch.stack(self._positions, 1), torch.stack(self._log_probs, 1), stats, seconds)


def _stats(info: Info) -> dict[str, Any]:
    """Return what is kept of a step, under the names that ArviZ users expect."""
    stats = {
        "accepted": info.is_accepted,
        "acceptance_rate": info.acceptance_rate,
        "log_ratio": info.log_ratio,
        "num_back_steps": info.num_back_steps.to(torch.int32),
        "num_forward_steps": info.num_forward_steps.to(torch.int32),
        "reason": info.reason,
    }
    for name, part in info.parts.items():
        stats[f"acceptance_rate[{name}]"] = part.acceptance_rate
        stats[f"reason[{name}]"] = part.reason
    return stats | dict(info.extras)
