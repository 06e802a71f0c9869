"""One cell of a benchmark: one sampler on one target from one kind of start with one seed, run and judged.

The default cycle runs a given number of steps; what it spent, training included, the others may spend too, in priced
target calls, with a bound on seconds. Mode switches are counted twice where draws are thinned, on the kept draws and
on some steps of the chains' ends that are kept one by one; the larger rate counts, for thinning hides switches back
and forth.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import ObjectError
from gfnmc.diagnostics.evidence import importance_log_z
from gfnmc.diagnostics.modes import count_round_trips, count_switches
from gfnmc.environments import DiscreteEnvironment
from gfnmc.experiments.compare import find_pair
from gfnmc.experiments.document import sampler_figures
from gfnmc.experiments.pricing import Prices
from gfnmc.kernels import Kernel
from gfnmc.policies.uniform import uniformly_built
from gfnmc.sampling import Budget, Chains, sample
from gfnmc.targets import Target

ONE_MODE, DISPERSED = "one mode", "dispersed"

_MAX_KEPT = 1_000
_TRIAL_STEPS = 5
_AUDIT_STEPS = 400
_FEWEST_STEPS = 16
_START_ROUNDS = 1_000


@dataclass(frozen=True)
class Limits:
    """What a cell may spend.

    Attributes:
        num_samples: Most kept draws a chain.
        calls: Most priced target calls, training included; None for no bound.
        seconds: Most seconds of sampling.
    """

    num_samples: int
    calls: float | None
    seconds: float


def run_cell(
    name: str,
    kernel: Kernel,
    prices: Prices,
    limits: Limits,
    *,
    start: str,
    num_chains: int,
    num_warmup: int,
    seed: int,
    num_threads: int | None,
) -> dict[str, Any]:
    """Run a sampler within its limits and return its figures as plain data.

    Args:
        name: What to call the sampler.
        kernel: The sampler.
        prices: What kinds of target calls cost.
        limits: What it may spend.
        start: `ONE_MODE` or `DISPERSED`.
        num_chains: Chains side by side.
        num_warmup: Steps before the first kept draw.
        seed: Names the run.
        num_threads: Torch threads; None leaves torch's setting alone.

    Returns:
        Under "figures" what a comparison shows of a sampler, without its curves; beside it priced costs, rates of
        mode switches and round trips, and what ended the run.
    """
    target = kernel.target
    options: dict[str, Any] = {
        "num_chains": num_chains,
        # Chains of one seed that restart now and then forget their starts and become the same chain.
        "seed": 2 * seed + (start == DISPERSED),
        "num_threads": num_threads,
        "progress_bar": False,
        "init": starts(target, kernel.environment, start, num_chains, seed),
    }
    plan = _plan(kernel, prices, limits, num_warmup, options)
    chains = sample(kernel, num_warmup=plan.num_warmup, num_samples=plan.num_samples, thinning=plan.thinning,
                    budget=Budget(seconds=limits.seconds), **options)  # fmt: skip
    pair = find_pair(kernel)
    evidence = None if pair is None else importance_log_z(pair, target, seed=seed, num_threads=num_threads)
    figures = sampler_figures(name, chains, target.exact(), evidence)
    del figures["curves"]
    training, sampling = prices.priced(chains.training_cost), prices.priced(chains.sampling_cost)
    return {
        "figures": figures,
        "calls": {"training": training, "sampling": sampling},
        "seconds": {"training": chains.training_cost.seconds, "sampling": chains.sampling_cost.seconds},
        "movement": _movement(kernel, chains, sampling, options),
        "discovery": _discovery(figures, chains, prices),
        "ended_by": "seconds" if chains.num_samples < plan.num_samples else plan.ended_by,
    }


def starts(target: Target, environment: DiscreteEnvironment, start: str, num_chains: int, seed: int) -> Tensor:
    """Return where the chains start: all at one object of the first mode, or at objects built by uniform choices.

    Raises:
        ObjectError: If uniform choices hardly ever build a possible object.
    """
    modes = target.modes()
    if start == ONE_MODE and modes is not None:
        return modes.examples[:1].expand(num_chains, *target.event_shape)
    found: list[Tensor] = []
    for round_ in range(_START_ROUNDS):
        draws = PhiloxDraws(seed, "benchmark/start", num_chains, round_)
        built = uniformly_built(environment, draws)
        found.append(built[target.log_prob(built) > -math.inf])
        if sum(map(len, found)) >= num_chains:
            return torch.cat(found)[:num_chains]
    raise ObjectError(f"{_START_ROUNDS * num_chains} objects built by uniform choices are nearly all impossible "
                      f"under {target.name}; start in one mode")  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    num_warmup: int
    num_samples: int
    thinning: int
    ended_by: str


def _plan(kernel: Kernel, prices: Prices, limits: Limits, num_warmup: int, options: dict[str, Any]) -> _Plan:
    """Return how many steps fit, by a short trial that tells the price and the time of one."""
    if limits.calls is None:
        return _Plan(num_warmup, limits.num_samples, 1, "samples")
    trial = sample(kernel, num_warmup=0, num_samples=_TRIAL_STEPS, **options)
    # Each chain pays one evaluation for its start.
    start = options["num_chains"]
    left = limits.calls - prices.priced(kernel.training_cost) - start
    affordable = left / (prices.priced(trial.sampling_cost) - start)
    in_time = 2.0 * limits.seconds / trial.sampling_cost.seconds
    num_steps = max(_FEWEST_STEPS, int(_TRIAL_STEPS * min(affordable, in_time)))
    num_warmup = min(num_warmup, num_steps // 4)
    thinning = -(-(num_steps - num_warmup) // _MAX_KEPT)
    ended_by = "calls" if affordable <= in_time else "seconds"
    return _Plan(num_warmup, (num_steps - num_warmup) // thinning, thinning, ended_by)


def _movement(kernel: Kernel, chains: Chains, calls: float, options: dict[str, Any]) -> dict[str, Any] | None:
    """Return how often chains changed their mode and came back, and the calls and seconds that this took.

    None where there are not two modes to change between.
    """
    ids, modes = chains.mode_ids(chains.samples), chains.target.modes()
    if ids is None or modes is None or len(modes) < 2:
        return None
    all_steps = chains.num_warmup + chains.num_samples * chains.thinning
    switches, steps = count_switches(ids), (chains.num_samples - 1) * chains.thinning
    if chains.thinning > 1:
        options = options | {"init": chains.x[:, -1], "seed": options["seed"] + 1}
        audit = sample(kernel, num_warmup=0, num_samples=_AUDIT_STEPS, **options)
        audit_ids = audit.mode_ids(audit.samples)
        assert audit_ids is not None
        seen = count_switches(audit_ids)
        if seen * steps > switches * (_AUDIT_STEPS - 1):
            switches, steps = seen, _AUDIT_STEPS - 1
    share = steps / all_steps
    return {
        "switches": switches,
        "round_trips": count_round_trips(ids),
        "calls": share * calls,
        "seconds": share * chains.sampling_cost.seconds,
        "round_trip_calls": (chains.num_samples - 1) * chains.thinning / all_steps * calls,
    }


def _discovery(figures: dict[str, Any], chains: Chains, prices: Prices) -> dict[str, Any] | None:
    """Return priced calls and seconds, training included, by which every mode was found; None where one was not."""
    calls = [mode["found_after_calls"] for mode in figures["modes"]]
    seconds = [mode["found_after_seconds"] for mode in figures["modes"]]
    if not calls or None in calls:
        return None
    trained, sampled = chains.training_cost, chains.sampling_cost
    price = prices.priced(sampled) / sampled.target_calls
    return {
        "calls": prices.priced(trained) + price * (max(calls) - trained.target_calls),
        "seconds": max(seconds),
    }
