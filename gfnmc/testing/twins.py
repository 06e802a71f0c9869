"""Broken twins of a kernel: negative controls, made on the fly.

A check that no wrong kernel fails says nothing. So each kernel is judged beside copies of it that are wrong on purpose,
and they have to fail:

    Metropolis kernels     the Hastings correction left out, and with its sign turned
    others that accept     every possible proposal accepted; this too where the correction is 0, as for a symmetric walk
    parallel tempering     replicas moved at half the inverse temperatures that the ladder says
    that always accept     the kernel of R^(1/2), judged as one of R
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float64
from torch import Tensor

from gfnmc.core.coins import Coins, FewLaws
from gfnmc.core.draws import Ahead, Draws
from gfnmc.core.errors import CapabilityError
from gfnmc.kernels.base import Kernel
from gfnmc.kernels.composition import Composition
from gfnmc.kernels.metropolis import MetropolisKernel, Proposal
from gfnmc.kernels.parallel_tempering import ParallelTempering
from gfnmc.testing.judgement import Judge, Judgement

Judged = TypeVar("Judged")

_POWER = 0.5


class NoPowerError(AssertionError):
    """A check that a wrong kernel passes, so that it says nothing of a right one."""


class Twin(NamedTuple):
    """A kernel that is wrong on purpose.

    Attributes:
        name: What is wrong with it.
        kernel: The copy.
    """

    name: str
    kernel: Kernel


class AcceptingDraws(Draws):
    """Draws that say yes to every proposal that is not impossible, and else decide as others do.

    Args:
        draws: The others.
        accepts: Whether this is the stream that accepts; kernels call it "accept".
    """

    def __init__(self, draws: Draws, *, accepts: bool = False) -> None:
        self._draws = draws
        self._accepts = accepts

    @property
    def num_rows(self) -> int:
        return self._draws.num_rows

    def role(self, name: str) -> "AcceptingDraws":
        return AcceptingDraws(self._draws.role(name), accepts=name == "accept")

    def repeated(self, times: int) -> "AcceptingDraws":
        return AcceptingDraws(self._draws.repeated(times), accepts=self._accepts)

    def coins(self, laws: FewLaws, times: int) -> Coins:
        return super().coins(laws, times) if self._accepts else self._draws.coins(laws, times)

    def for_rows(self, rows: Tensor) -> Draws:
        return AcceptingDraws(self._draws.for_rows(rows), accepts=self._accepts)

    def ahead(self, num: int, order: Tensor | None = None) -> Ahead:
        return self._draws.ahead(num, order)

    def categorical(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        return self._draws.categorical(log_probs, active)

    def bernoulli(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        if not self._accepts:
            return self._draws.bernoulli(log_probs, active)
        possible = log_probs > -torch.inf
        return possible if active is None else possible & active

    def bernoulli_logits(self, logits: Tensor, active: Tensor | None = None) -> Tensor:
        return self._draws.bernoulli_logits(logits, active)

    def integers(self, highs: Tensor, active: Tensor | None = None) -> Tensor:
        return self._draws.integers(highs, active)

    def permutation(self, length: int) -> Tensor:
        return self._draws.permutation(length)

    def shared_categorical(self, log_probs: Tensor) -> int:
        return self._draws.shared_categorical(log_probs)


def failing_twins(kernel: Kernel, judge: Judge, right: Judgement) -> tuple[str, ...]:
    """Judge the broken twins of a kernel and return the names of those that differ from it; each has failed.

    Args:
        kernel: A kernel that the judge found right.
        judge: The judge.
        right: What it said of the kernel itself.

    Raises:
        NoPowerError: If the judge finds a broken twin right, so that it would not have seen the error.
        CapabilityError: If no broken twin can be made.
    """
    return failing_families(families(kernel), judge, right, kernel.name)


def failing_families(
    broken: Iterable[Iterable[tuple[str, Judged]]], judge: Callable[[Judged], Judgement], right: Judgement, name: str
) -> tuple[str, ...]:
    """Judge broken twins of anything, with what is wrong with each, as `failing_twins` does.

    Args:
        broken: Families of twins, as `families` yields them.
        judge: The judge.
        right: What it said of the original.
        name: What to call that.

    Raises:
        NoPowerError: As `failing_twins`.
    """
    for twins in broken:
        different = []
        for fault, twin in twins:
            found = judge(twin)
            if _is_same(found.outcome, right.outcome):
                continue
            if found.is_right:
                raise NoPowerError(
                    f"this check has no power here: {name} with {fault} passes it as well ({found.figure}). "
                    "Give a smaller case that can be enumerated, more chains, a target that is less flat, or a pair "
                    "that is further from uniform"
                )
            different.append(fault)
        if different:
            return tuple(different)
    raise NoPowerError(
        f"this check has no power here: no broken twin of {name} does anything else than the kernel itself, as "
        "where the target is flat or nothing ever moves. Give a target that tells objects apart"
    )


def families(kernel: Kernel) -> Iterator[tuple[Twin, ...]]:
    """Yield broken twins; the next ones are for kernels that the ones before do not change."""
    if isinstance(kernel, MetropolisKernel):
        yield (
            Twin("no correction", _with_correction(kernel, _left_out)),
            Twin("the correction inverted", _with_correction(kernel, _inverted)),
        )
    if not isinstance(kernel, Composition | ParallelTempering):
        yield (Twin("every proposal accepted", _accepting(kernel)),)
    if isinstance(kernel, ParallelTempering):
        yield (Twin("every rung at half its inverse temperature", _with_warm_rungs(kernel)),)
    else:
        yield (Twin(f"the target to the power {_POWER}", _tempered(kernel)),)


Correction = Callable[[Proposal], Float64[Tensor, " chains"]]


def _with_correction(kernel: MetropolisKernel, correction: Correction) -> Kernel:
    """Return a copy whose proposals carry another Hastings correction."""
    propose = kernel._checked_proposal

    def broken(draws: Draws, position: Tensor) -> Proposal:
        proposal = propose(draws, position)
        return proposal._replace(log_hastings=torch.where(proposal.is_lazy, 0.0, correction(proposal)))

    twin = copy.copy(kernel)
    # On the copy alone, in the place of the method of its class.
    vars(twin)["_checked_proposal"] = broken
    return twin


def _left_out(proposal: Proposal) -> Float64[Tensor, " chains"]:
    return torch.zeros_like(proposal.log_hastings)


def _inverted(proposal: Proposal) -> Float64[Tensor, " chains"]:
    return torch.where(proposal.log_hastings.isinf(), 0.0, -proposal.log_hastings)


def _accepting(kernel: Kernel) -> Kernel:
    """Return a copy that accepts whatever it may."""
    twin = copy.copy(kernel)
    vars(twin)["step"] = lambda draws, state: kernel.step(AcceptingDraws(draws), state)
    return twin


def _with_warm_rungs(kernel: ParallelTempering) -> Kernel:
    """Return parallel tempering whose swaps know nothing of how warm its replicas are moved."""
    moved = copy.copy(kernel.kernel)
    vars(moved)["tempered"] = lambda powers: kernel.kernel.tempered(_POWER * powers)
    twin = copy.copy(kernel)
    twin.kernel = moved
    return twin


def _tempered(kernel: Kernel) -> Kernel:
    try:
        return kernel.tempered(_POWER * torch.as_tensor(kernel.inverse_temperature, dtype=torch.float64).item())
    except CapabilityError as error:
        raise CapabilityError(
            f"no broken twin of {kernel.name} can be made, so nobody knows what the check would see ({error}); "
            "implement `tempered`"
        ) from error


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=0.0, atol=1e-12)
