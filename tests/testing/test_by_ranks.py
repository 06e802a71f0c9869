"""Ranks tell right kernels from wrong ones where all that is known of each law is one draw."""

import functools
import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.environments import Lattice
from gfnmc.kernels import Cycle, Kernel, RandomWalk, Reach
from gfnmc.kernels.metropolis import MetropolisKernel, Proposal
from gfnmc.targets import Target
from gfnmc.testing import NoPowerError, assert_uniform_ranks
from gfnmc.testing.by_ranks import Problem, _RankJudge, _reversal

VALUES = (0, 1, 2, 3)
WIDE = 2.5


class Denoising(Target):
    """Three numbers of a uniform prior, seen with normal noise."""

    name, event_shape, dtype, values = "denoising", (3,), torch.int64, VALUES

    def __init__(self, data: Tensor, noise: float) -> None:
        self.data = data
        self.noise = noise

    def log_prob(self, x: Tensor) -> Tensor:
        return -(x.double() - self.data).square().sum(1) / (2.0 * self.noise**2)

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        return {"first": x[:, 0].double()}


LATTICE = Lattice((3,), VALUES, order="fixed")
LOG_LAW = torch.tensor([0.7, 0.2, 0.07, 0.03], dtype=torch.float64).log()


class Skewed(MetropolisKernel):
    """Proposes all numbers anew, small ones more often."""

    name, environment = "skewed", LATTICE
    reach, may_stay = Reach.EVERYWHERE, True

    def __init__(self, target: Target) -> None:
        self.target = target

    def start(self, draws: Draws) -> Tensor:
        return torch.stack([draws.role(f"{site}").categorical(LOG_LAW) for site in range(3)], 1).to(torch.int64)

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        new, zero = self.start(draws), torch.zeros(len(position), dtype=torch.int64)
        log_hastings = LOG_LAW[position].sum(1) - LOG_LAW[new].sum(1)
        return Proposal(new, log_hastings, zero > 0, zero, zero, zero)


class Inverted(Skewed):
    """The same with the sign of its correction turned."""

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        proposal = super()._propose(draws, position)
        return proposal._replace(log_hastings=-proposal.log_hastings)


@functools.cache
def drawn(number: int, width: float) -> tuple[Target, Tensor]:
    """The posterior of data that were made of an object of the prior, and the object."""
    draws = PhiloxDraws(number, "prior", 3)
    truth = draws.integers(torch.full((3,), len(VALUES))).to(torch.int64)
    noise = math.sqrt(2.0) * torch.erfinv(2.0 * draws.role("noise").uniforms() - 1.0)
    return Denoising(truth.double() + width * noise, width), truth


def problem_of(make: type[Skewed]) -> Problem:
    def problem(number: int) -> tuple[Kernel, Tensor]:
        target, truth = drawn(number, WIDE)
        return make(target), truth

    return problem


FEW = {"num_problems": 120, "num_steps": 3}


def test_a_right_kernel_is_shown_beside_broken_twins() -> None:
    proof = assert_uniform_ranks(problem_of(Skewed), **FEW)
    assert proof.claim == "invariant" and proof.twins == ("no correction", "the correction inverted")
    assert str(proof).startswith("invariant smallest p ")
    assert "by ranks of 120 objects in chains of 3 steps; 2 broken twins fail" in str(proof)


def test_an_inverted_ratio_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"ranks of '.*' are not uniform \(p = .*look at the acceptance ratio"):
        assert_uniform_ranks(problem_of(Inverted), **FEW)


def judged(make: type[Skewed]) -> bool:
    """Whether cycles with a random walk are found right."""
    cases = [drawn(number, WIDE) for number in range(120)]
    kernels = [Cycle([make(target), RandomWalk(LATTICE, target)]) for target, _ in cases]
    return _RankJudge([truth for _, truth in cases], 3, 0)(kernels).is_right


def test_a_cycle_is_run_backwards_in_the_other_order() -> None:
    assert judged(Skewed)
    assert not judged(Inverted)
    target, _ = drawn(0, WIDE)
    parts = [Skewed(target), RandomWalk(LATTICE, target), Cycle([Inverted(target), Skewed(target)])]
    backwards = _reversal(Cycle(parts))
    assert isinstance(backwards, Cycle)
    inner = backwards.kernels[0]
    assert isinstance(inner, Cycle) and [type(part) for part in inner.kernels] == [Skewed, Inverted]
    assert list(backwards.kernels[1:]) == [parts[1], parts[0]]


def test_objects_that_are_no_draws_of_the_prior_are_caught() -> None:
    def problem(number: int) -> tuple[Kernel, Tensor]:
        target, truth = drawn(number, WIDE)
        return RandomWalk(LATTICE, target), torch.full_like(truth, 3)

    with pytest.raises(AssertionError, match="are not uniform"):
        assert_uniform_ranks(problem, **FEW)


def test_a_check_without_power_says_so() -> None:
    with pytest.raises(NoPowerError, match="passes it as well"):
        assert_uniform_ranks(problem_of(Skewed), num_problems=10, num_steps=1)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(OptionError, match=r"39 problems for 8 ranks; .*5 problems a rank"):
        assert_uniform_ranks(problem_of(Skewed), num_problems=39)
    with pytest.raises(OptionError, match="at least one step"):
        assert_uniform_ranks(problem_of(Skewed), num_steps=0)
    with pytest.raises(ObjectError):
        assert_uniform_ranks(lambda number: (problem_of(Skewed)(number)[0], torch.zeros(4, dtype=torch.int64)))
