"""Judge a kernel where nothing is enumerable and nothing can be drawn exactly: by ranks, from a prior and its data.

Draw x from a prior and data from the model given x. Then x is an exact draw of its law given the data, whatever that
law is: one draw, of that one law. Put it at a random place of a chain, run the kernel forwards from it to the end and
its reversal backwards from it to the beginning: if the kernel leaves the law invariant, all places of the chain are
alike, and the rank of f(x) among them is uniform, for any f. Repeat with other x and data, and count ranks.

A reversible kernel is its own reversal; that of a cycle is the cycle in the other order.

Reference: Gandy and Scott 2020 (2001.06465), "Unit testing for MCMC and other Monte Carlo methods", the rank test.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import OptionError
from gfnmc.kernels.base import Kernel
from gfnmc.kernels.composition import Cycle
from gfnmc.targets.base import check_objects
from gfnmc.testing.by_sampling import FALSE_ALARM
from gfnmc.testing.invariance import Proof
from gfnmc.testing.judgement import Judgement, where_to_look
from gfnmc.testing.twins import failing_families, families

Problem = Callable[[int], tuple[Kernel, Shaped[Tensor, " *event"]]]


def assert_uniform_ranks(problem: Problem, *, num_problems: int = 256, num_steps: int = 7, seed: int = 0) -> Proof:
    """Show that a kernel leaves the laws of a model invariant, each of which is known by one exact draw only.

    Args:
        problem: Returns, for a number, a kernel and the object that its target's data were made of, drawn from the
            prior. Every number is a problem of its own; all their kernels are made alike. Kernels other than cycles
            have to be reversible.
        num_problems: How many are tried.
        num_steps: Steps of each chain, whose object has one of `num_steps + 1` ranks.
        seed: Names the run; the same seed gives the same answer.

    Returns:
        How it was shown; its `str` is one line.

    Raises:
        AssertionError: If ranks are not uniform, with the statistic and what to look at; a right kernel fails with
            probability 1e-6 at most. Or if the check has no power, because a broken twin of the kernels passes it.
        OptionError: If there are fewer than 5 problems a rank, or no steps.
        ObjectError: If an object is not the target's.
    """
    if num_steps < 1 or num_problems < 5 * (num_steps + 1):
        raise OptionError(
            f"{num_problems} problems for {num_steps + 1} ranks; give at least one step, and 5 problems a rank"
        )
    cases = [_Case(*problem(number)) for number in range(num_problems)]
    for case in cases:
        check_objects(case.kernel.target, case.truth[None])
    judge = _RankJudge([case.truth for case in cases], num_steps, seed)
    kernels = [case.kernel for case in cases]
    found = judge(kernels)
    lead = kernels[0]
    if not found.is_right:
        raise AssertionError(
            f"{lead.name} does not leave {lead.target.name} invariant, judged {judge.method}: {found.complaint}; "
            f"{where_to_look(lead)}"
        )
    twins = failing_families(_families(kernels), judge, found, lead.name)
    return Proof("invariant", lead.name, judge.method, found.figure, twins)


class _Case(NamedTuple):
    kernel: Kernel
    truth: Tensor


class _RankJudge:
    """Judges whether kernels, one a problem, give the objects that their data were made of uniform ranks."""

    def __init__(self, truths: Sequence[Tensor], num_steps: int, seed: int) -> None:
        self._truths = truths
        self._num_steps = num_steps
        self._seed = seed
        counts = torch.full((len(truths),), num_steps + 1)
        self._places = PhiloxDraws(seed, "ranks/place", len(truths)).integers(counts).tolist()

    @property
    def method(self) -> str:
        """How it judges, in words."""
        return f"by ranks of {len(self._truths)} objects in chains of {self._num_steps} steps"

    def __call__(self, kernels: Sequence[Kernel]) -> Judgement:
        values = self._statistics(kernels)
        tests = {name: self._p_value(name, value) for name, value in values.items()}
        worst = min(tests, key=lambda name: tests[name])
        is_right = tests[worst] >= FALSE_ALARM / len(tests)
        counts = torch.bincount(self._ranks(worst, values[worst]), minlength=self._num_steps + 1)
        complaint = (
            "" if is_right else f"ranks of {worst!r} are not uniform (p = {tests[worst]:.1e}): {counts.tolist()}"
        )
        outcome = torch.stack(list(values.values()))
        return Judgement(is_right, f"smallest p {tests[worst]:.2g}", complaint, outcome)

    def _statistics(self, kernels: Sequence[Kernel]) -> dict[str, Float64[Tensor, "problems places"]]:
        """Return each statistic at every place of every chain, that of the true object first."""
        rows: list[dict[str, Tensor]] = []
        for number, (kernel, truth, place) in enumerate(zip(kernels, self._truths, self._places, strict=True)):
            draws = PhiloxDraws(self._seed, f"ranks/{number}", 1)
            forwards = _walk(kernel, truth, self._num_steps - place, draws.role("forwards"))
            backwards = _walk(_reversal(kernel), truth, place, draws.role("backwards"))
            objects = torch.cat([truth[None], forwards, backwards])
            watched = {name: value.to(torch.float64) for name, value in kernel.target.statistics(objects).items()}
            flat = objects.flatten(1).to(torch.float64)
            rows.append(watched | {"log-density": kernel.target.log_prob(objects), "sum of coordinates": flat.sum(1)})
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _p_value(self, name: str, values: Float64[Tensor, "problems places"]) -> float:
        from scipy.stats import chisquare

        counts = torch.bincount(self._ranks(name, values), minlength=self._num_steps + 1)
        return float(chisquare(counts.numpy()).pvalue)

    def _ranks(self, name: str, values: Float64[Tensor, "problems places"]) -> Int64[Tensor, " problems"]:
        """Return the rank of the first value among all of its row, ties broken at random."""
        below = (values < values[:, :1]).sum(1)
        ties = (values[:, 1:] == values[:, :1]).sum(1)
        draws = PhiloxDraws(self._seed, f"ranks/ties/{name}", len(values))
        return below + draws.integers(ties + 1).to(torch.int64)


def _walk(kernel: Kernel, truth: Tensor, num_steps: int, draws: PhiloxDraws) -> Shaped[Tensor, "steps *event"]:
    """Return the objects that a chain comes to after each step."""
    visited = [truth[None][:0]]
    state = kernel.init(truth[None])
    for step in range(num_steps):
        state, _ = kernel.step(draws.at(step), state)
        visited.append(state.position)
    return torch.cat(visited)


def _reversal(kernel: Kernel) -> Kernel:
    if not isinstance(kernel, Cycle):
        return kernel
    return Cycle([_reversal(part) for part in reversed(kernel.kernels)])


def _families(kernels: Sequence[Kernel]) -> Iterator[list[tuple[str, list[Kernel]]]]:
    """Yield broken twins of all kernels together: each time the same fault in every one."""
    for family in zip(*(families(kernel) for kernel in kernels), strict=True):
        yield [(twins[0].name, [twin.kernel for twin in twins]) for twins in zip(*family, strict=True)]
