"""The loop: many chains of one kernel, side by side."""

import math
import time
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, EnergyError, NonFiniteEnergyError, ObjectError, OptionError, StorageError
from gfnmc.kernels.base import Adaptation, Info, Kernel, State, check_irreducible
from gfnmc.sampling.chains import Chains, Record
from gfnmc.sampling.fingerprint import describe
from gfnmc.sampling.layout import remarks
from gfnmc.sampling.plan import Budget, Plan, Store
from gfnmc.sampling.progress import logger, progress
from gfnmc.sampling.recorder import Mark, Recorder
from gfnmc.sampling.store import RunDirectory
from gfnmc.sampling.watch import Watch
from gfnmc.targets.nonfinite import NonFiniteTally, rejecting_nonfinite

Phase = Literal["warmup", "samples"]


class Run:
    """One run: where the chains are and what was kept.

    Args:
        kernel: What moves them.
        plan: What was asked for.
        budget: What it may cost.

    Raises:
        OptionError: If the kernel is to adapt in no warm-up.
        CapabilityError: If it has nothing to adapt.
    """

    def __init__(self, kernel: Kernel, plan: Plan, budget: Budget) -> None:
        # What makes the next step, and until the warm-up is over what tunes it.
        self.kernel = kernel
        self.adaptation = _adaptation(kernel, plan.num_warmup) if plan.adapt else None
        self.adapted_kernel: Kernel | None = None
        self.plan = plan
        self.budget = budget
        self.draws = PhiloxDraws(plan.seed, "chain", plan.num_chains)
        self.recorders: dict[Phase, Recorder] = {
            "warmup": Recorder(plan.num_chains),
            "samples": Recorder(plan.num_chains),
        }
        self.tally = NonFiniteTally(plan.num_chains) if plan.on_nonfinite == "reject" else None
        self.num_nonfinite = 0
        self.directory: RunDirectory | None = None
        self.cost = Cost()
        self.begun = time.perf_counter()
        self.state: State | None = None
        self.step = 0

    def start(self, init: Tensor | None) -> None:
        """Put the chains where they begin."""
        if init is None:
            init = self.kernel.start(self.draws.role("start"))
        event_shape = tuple(self.kernel.target.event_shape)
        if tuple(init.shape) == event_shape:
            init = init.expand(self.plan.num_chains, *event_shape)
        if init.dim() == 0 or init.shape[0] != self.plan.num_chains:
            given = "no batch of objects" if init.dim() == 0 else f"{init.shape[0]} objects"
            raise ObjectError(f"init has {given} for {self.plan.num_chains} chains; give one a chain, or one")
        # One evaluation an object; a kernel with replicas may start each of them at its own.
        self.cost += Cost(target_calls=init.numel() // math.prod(event_shape))
        self.state = self.kernel.init(init.clone(), self.draws)

    def store_in(self, store: Store) -> None:
        """Send the draws to a run directory from now on."""
        assert self.state is not None
        made_by = describe(self.kernel, self.state)
        self.directory = RunDirectory.create(store, self.plan, made_by, self.kernel, self.state, self.cost)

    def go(self, progress_bar: bool) -> None:
        """Make the steps that are missing."""
        total = self.plan.num_steps
        title = f"sampling, {self.kernel.name}"
        with progress(title, total, progress_bar=progress_bar, done=self.step) as shown:
            watch = Watch(self.kernel.target, self.plan.num_chains)
            while self.step < total and not self._is_spent():
                info = self._step()
                self.step += 1
                if shown.is_shown:
                    self._watch(watch, info)
                shown.update(self.step, watch.figures)
            if self.step < total:
                shown.update(total, watch.figures)

    def _watch(self, watch: Watch, info: Info) -> None:
        assert self.state is not None
        kept_steps = self.step - self.plan.num_warmup
        watch.see(info, self.state, is_kept=kept_steps > 0 and kept_steps % self.plan.thinning == 0)

    def store_rest(self) -> None:
        """Store the draws that do not fill a block, where draws are stored.

        Raises:
            StorageError: If that cannot be done.
        """
        if self.directory is not None:
            for phase, recorder in self.recorders.items():
                self.directory.save(phase, recorder, is_last=True)
            self.directory.finish()

    def chains(self) -> Chains:
        """Return what the run made.

        Raises:
            OptionError: If the budget allowed no kept draw.
        """
        if not self.recorders["samples"].num_draws:
            raise OptionError(
                f"the budget ended after {self.step} steps, before the first kept draw; allow more target calls or "
                "seconds, or shorten the warm-up"
            )
        if self.num_nonfinite:
            logger.warning(
                "%d log-densities of %s were NaN or +inf and counted as -inf; the chains sample %s restricted to where "
                "it is finite (Chains.nonfinite_count says which chains met them)",
                self.num_nonfinite,
                self.kernel.target.name,
                self.kernel.target.name,
            )
        return self._finished()

    def attach(self, error: BaseException) -> None:
        """Keep the finished draws with an error, and say where it struck."""
        for recorder in self.recorders.values():
            recorder.settle()
        if isinstance(error, NonFiniteEnergyError):
            error.step = self.step
            error.args = (f"chain {error.row}, step {self.step}: {error.args[0]}",)
        elif isinstance(error, Exception) and not isinstance(error, StorageError) and self.state is not None:
            error.add_note(f"in step {self.step} of chains 0 to {self.plan.num_chains - 1}, which move together")
        if self.directory is not None:
            self._store_in_spite_of(error)
        if any(recorder.num_draws for recorder in self.recorders.values()):
            error.chains = self._finished()  # type: ignore[attr-defined]
            kept = self.recorders["samples"].num_draws
            error.add_note(f"{kept} finished draws a chain are kept in this error's `chains`")

    def _store_in_spite_of(self, error: BaseException) -> None:
        """Store what is finished although something has gone wrong, which may be the store itself."""
        assert self.directory is not None
        try:
            self.directory.refresh()
            self.store_rest()
        except StorageError as another:
            error.add_note(f"what was finished since the last commit could not be stored: {another}")
        else:
            error.add_note(f"the run can be gone on with from {self.directory.path}")

    def make_warmup_again(self) -> None:
        """Make the steps of an adapting warm-up again, without keeping them, up to the kernel that they tune."""
        while self.step < self.plan.num_warmup:
            self._move()
            self._adapt(is_over=self.step + 1 == self.plan.num_warmup)
            self.step += 1

    def _finished(self) -> Chains:
        return Chains(
            self.kernel.target,
            self.kernel.name,
            self._record("warmup"),
            self._record("samples"),
            self.plan.thinning,
            self.plan.seed,
            self.kernel.training_cost,
            replace(self.cost, seconds=time.perf_counter() - self.begun),
            self.adapted_kernel,
            remarks(self.plan, None if self.directory is None else self.directory.manifest),
        )

    def _record(self, phase: Phase) -> Record:
        target, recorder = self.kernel.target, self.recorders[phase]
        empty = torch.empty((self.plan.num_chains, *target.event_shape), dtype=target.dtype)
        return recorder.record(empty) if self.directory is None else self.directory.record(phase, recorder, empty)

    def _step(self) -> Info:
        info, counted = self._move()
        self.cost += info.cost()
        kept_steps = self.step + 1 - self.plan.num_warmup
        phase: Phase = "warmup" if kept_steps <= 0 else "samples"
        recorder = self.recorders[phase]
        recorder.count(info, counted)
        is_kept = kept_steps <= 0 or kept_steps % self.plan.thinning == 0
        if is_kept:
            recorder.keep(info, self._mark())
        if self.adaptation is not None:
            self._adapt(is_over=kept_steps == 0)
        if is_kept and self.directory is not None:
            self.directory.save(phase, recorder, is_last=kept_steps == 0)
        return info

    def _move(self) -> tuple[Info, dict[str, Int64[Tensor, " chains"]]]:
        """Move every chain once; return what happened, and what else is to be counted."""
        assert self.state is not None
        stepping = self.kernel if self.adaptation is None else self.adaptation
        with rejecting_nonfinite(self.tally):
            self.state, info = stepping.step(self.draws.at(self.step), self.state)
        if self.tally is None:
            return info, {}
        self._check_possible(self.state)
        found = self.tally.take()
        self.num_nonfinite += int(found.sum())
        return info, {"nonfinite": found}

    def _check_possible(self, state: State) -> None:
        """Where energies that fail count as -inf, see that no chain has gone there."""
        is_impossible = state.log_prob == -torch.inf
        if is_impossible.any():
            chain = int(is_impossible.nonzero()[0, 0])
            raise EnergyError(
                f"chain {chain}, step {self.step}: {self.kernel.name} moved to {state.position[chain].tolist()}, where "
                f"the log-density of {self.kernel.target.name} is not finite, without asking for it; sample with "
                "on_nonfinite='raise', or another kernel"
            )

    def _mark(self) -> Mark:
        assert self.state is not None
        cost = replace(self.cost, seconds=time.perf_counter() - self.begun)
        return Mark(self.state, self.step + 1, cost, self.kernel if self.adaptation is None else None)

    def _adapt(self, *, is_over: bool) -> None:
        assert self.adaptation is not None
        if not is_over:
            self.kernel = self.adaptation.kernel
            return
        self.kernel = self.adapted_kernel = self.adaptation.frozen()
        self.adaptation = None
        check_irreducible(self.kernel)

    def _is_spent(self) -> bool:
        calls, seconds = self.budget.target_calls, self.budget.seconds
        most_of_a_step = self.kernel.calls_per_step * self.plan.num_chains
        over_calls = calls is not None and self.cost.target_calls + most_of_a_step > calls
        return over_calls or (seconds is not None and time.perf_counter() - self.begun >= seconds)


def _adaptation(kernel: Kernel, num_warmup: int) -> Adaptation:
    if num_warmup == 0:
        raise OptionError("a kernel adapts in the warm-up, but num_warmup is 0; give it some steps, or adapt=False")
    adaptation = kernel.adaptation()
    if adaptation is None:
        raise CapabilityError(f"{kernel.name} has nothing to adapt; sample with adapt=False")
    return adaptation
