"""Prove that a kernel, ours or a user's, leaves its target invariant, or is reversible.

Two ways, the first where it is possible:

1. *By enumeration*, on a small space: the transition matrix of the production code, and the law after a step is the law
   to 1e-10. That is a proof for this target.
2. *By sampling*, where the target has exact draws: chains that start from them stay exact. That is a test; a right
   kernel fails it with probability 1e-6 at most, all statistics together.

Each check judges broken twins of the kernel as well, and fails where it finds one of them right: then it would not have
seen the error. A cycle or mixture is judged as a whole, and each of its kernels alone: kernels that leave a law
invariant leave it invariant in any fixed order.

    from gfnmc.testing import assert_invariant

    print(assert_invariant(kernel))  # raises AssertionError where it is not so

Failures are `AssertionError`, as test runners want them.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from jaxtyping import Shaped
from torch import Tensor

from gfnmc.core.errors import CapabilityError, EnergyError, OptionError
from gfnmc.environments.enumeration import enumerate_states
from gfnmc.kernels.base import Kernel
from gfnmc.kernels.composition import Composition
from gfnmc.kernels.parallel_tempering import ParallelTempering
from gfnmc.targets.base import Target, check_objects, checked_log_prob
from gfnmc.targets.solution import ExactSolution
from gfnmc.testing.by_enumeration import EnumerationJudge
from gfnmc.testing.by_sampling import ROUNDS, InvarianceJudge, ReversibilityJudge
from gfnmc.testing.enumerator import TooManyDecisionsError
from gfnmc.testing.judgement import Judgement, where_to_look
from gfnmc.testing.twins import NoPowerError, failing_twins

MAX_OBJECTS = 2**11
"""Most objects of a space that is enumerated; a transition matrix of 32 MiB."""

_MAX_STATES = 2**13


@dataclass(frozen=True)
class Proof:
    """What was shown of a kernel.

    Attributes:
        claim: "invariant" or "reversible".
        kernel: The kernel's name.
        method: How it was shown, in words.
        figure: The largest error, or the smallest p-value, in words.
        twins: The broken twins of the kernel that failed the same check.
        parts: The proofs of the kernels that a cycle or mixture is made of.
    """

    claim: str
    kernel: str
    method: str
    figure: str
    twins: tuple[str, ...]
    parts: tuple["Proof", ...] = field(default=())

    def __str__(self) -> str:
        number = "1 broken twin fails" if len(self.twins) == 1 else f"{len(self.twins)} broken twins fail"
        parts = "".join(f"; {part.kernel}: {part}" for part in self.parts)
        return f"{self.claim} {self.figure} {self.method}; {number} ({', '.join(self.twins)}){parts}"


def assert_invariant(
    kernel: Kernel,
    target: Target | None = None,
    *,
    objects: Shaped[Tensor, "objects *event"] | None = None,
    num_chains: int = 2_048,
    num_steps: int = 8,
    seed: int = 0,
) -> Proof:
    """Show that a kernel leaves a law invariant.

    Args:
        kernel: Any kernel; its decisions go through `Draws`, and what it keeps from step to step its `init` makes of
            the object alone. Parallel tempering is started with replicas that are exact at every rung.
        target: The law; by default the kernel's own target, to the power of its inverse temperature.
        objects: Every object that the kernel can reach, once; by default those of the environment, or of the target's
            exact solution, if they are few. Give them where neither is known.
        num_chains: Chains, where it is shown by sampling; up to 16 times as many while a broken twin passes.
        num_steps: Their steps.
        seed: Names them; the same seed gives the same answer.

    Returns:
        How it was shown; its `str` is one line.

    Raises:
        AssertionError: If it is not so, with the worst object or statistic and what to look at; or if the check has no
            power, because a broken twin of the kernel passes it.
        CapabilityError: If neither way is possible: there are too many objects, and no exact solution that can sample;
            or the target is noisy, or the kernel carries replicas that nobody can draw exactly.
        OptionError: If a count is below 1, or the kernel has an inverse temperature a chain.
        ObjectError: If `objects` are not the target's.
        EnergyError: If none of the objects is possible, or the target breaks its contract.
    """

    def by_sampling(times: int) -> InvarianceJudge:
        options = {"num_chains": times * num_chains, "num_steps": num_steps, "seed": seed}
        return InvarianceJudge(kernel, case.target, case.sampler(), **options)

    _check_counts(num_chains=num_chains, num_steps=num_steps)
    case = _Case(kernel, target, objects)
    parts = ()
    if isinstance(kernel, Composition):
        parts = tuple(
            assert_invariant(part, target, objects=objects, num_chains=num_chains, num_steps=num_steps, seed=seed)
            for part in kernel.kernels
        )
    return case.shown("invariant", by_sampling, parts)


def assert_reversible(
    kernel: Kernel,
    target: Target | None = None,
    *,
    objects: Shaped[Tensor, "objects *event"] | None = None,
    num_chains: int = 16_384,
    seed: int = 0,
) -> Proof:
    """Show that a kernel is in detailed balance with a law, so that it leaves it invariant, too.

    Metropolis-Hastings kernels, random scans and mixtures of such kernels are; cycles and systematic scans are not.

    Args:
        kernel: Any kernel; its decisions go through `Draws`.
        target: As in `assert_invariant`.
        objects: As in `assert_invariant`.
        num_chains: Chains that move once, where it is shown by sampling; up to 16 times as many, as above.
        seed: Names them.

    Raises:
        AssertionError: As `assert_invariant`.
        CapabilityError: As `assert_invariant`.
        OptionError: As `assert_invariant`.
        ObjectError: As `assert_invariant`.
        EnergyError: As `assert_invariant`.
    """

    def by_sampling(times: int) -> ReversibilityJudge:
        return ReversibilityJudge(kernel, case.target, case.sampler(), num_chains=times * num_chains, seed=seed)

    _check_counts(num_chains=num_chains)
    case = _Case(kernel, target, objects)
    return case.shown("reversible", by_sampling, ())


class _Case:
    """A kernel, the law it is judged by, and the objects of that law where they are few."""

    def __init__(self, kernel: Kernel, target: Target | None, objects: Tensor | None) -> None:
        _check_kernel(kernel)
        self.kernel = kernel
        self.target = kernel.target if target is None else target
        self.power = float(kernel.inverse_temperature) if target is None else 1.0
        self.exact = self.target.exact()
        # Replicas are no function of the object, so there is more to enumerate than objects.
        self.objects = None if isinstance(kernel, ParallelTempering) else self._few_objects(objects)

    def shown(
        self,
        claim: str,
        by_sampling: Callable[[int], InvarianceJudge | ReversibilityJudge],
        parts: tuple[Proof, ...],
    ) -> Proof:
        """Judge the kernel and its broken twins, by enumeration if possible."""
        if self.objects is not None:
            judge = EnumerationJudge(self._law(self.objects), judges_pairs=claim == "reversible")
            # A step may be taken in too many ways even in a small space; then that is sampled.
            with suppress(TooManyDecisionsError):
                return self._judged(claim, judge, parts)
        for times in ROUNDS[:-1]:
            try:
                return self._judged(claim, by_sampling(times), parts)
            except NoPowerError:
                continue
        return self._judged(claim, by_sampling(ROUNDS[-1]), parts)

    def sampler(self) -> ExactSolution:
        """Return the exact solution that chains start from.

        Raises:
            CapabilityError: If there is none.
        """
        if self.objects is not None:
            return self._law(self.objects)
        if self.exact is None or not self.exact.can_sample or self.power != 1.0:
            raise CapabilityError(
                f"{self.kernel.name} on {self.target.name} cannot be judged: there are more than {MAX_OBJECTS} "
                "objects, or nobody lists them, and there are no exact draws at this temperature to start from. "
                "Give `objects=`, all objects of a smaller case; or let the target's `exact` return a solution with a "
                "sampler"
            )
        return self.exact

    def _judged(
        self, claim: str, judge: EnumerationJudge | InvarianceJudge | ReversibilityJudge, parts: tuple[Proof, ...]
    ) -> Proof:
        found = judge(self.kernel)
        if not found.is_right:
            raise AssertionError(self._failure(claim, found, judge.method))
        twins = failing_twins(self.kernel, judge, found)
        return Proof(claim, self.kernel.name, judge.method, found.figure, twins, parts)

    def _failure(self, claim: str, found: Judgement, method: str) -> str:
        return (
            f"{self.kernel.name} is not {claim} under {self.target.name}, judged {method}: {found.complaint}; "
            f"{where_to_look(self.kernel)}"
        )

    def _few_objects(self, objects: Tensor | None) -> Tensor | None:
        """Return all objects, where they are few enough to be enumerated."""
        if objects is not None:
            check_objects(self.target, objects)
        else:
            objects = self._listed()
        if objects is None or len(objects) > MAX_OBJECTS:
            return None
        return objects

    def _listed(self) -> Tensor | None:
        try:
            return enumerate_states(self.kernel.environment, max_states=_MAX_STATES).objects
        except CapabilityError:
            return None if self.exact is None else self.exact.support

    def _law(self, objects: Tensor) -> ExactSolution:
        """Return the objects of positive probability, and their log-probabilities."""
        log_prob = checked_log_prob(self.target, objects)
        # At power 0 the law is flat, and impossible objects are possible.
        log_law = torch.zeros_like(log_prob) if self.power == 0.0 else self.power * log_prob
        possible = log_law > -torch.inf
        if not possible.any():
            raise EnergyError(f"{self.target.name} gives density zero to all {len(objects)} objects")
        log_z = float(log_law.logsumexp(0))
        return ExactSolution(log_z, support=objects[possible], log_pmf=log_law[possible] - log_z)


def _check_kernel(kernel: Kernel) -> None:
    """Refuse kernels whose next step depends on more than the object, where that cannot be drawn exactly."""
    if kernel.target.is_noisy:
        raise CapabilityError(
            f"{kernel.target.name} is noisy: chains sample pairs of an object and an estimate. Judge {kernel.name} on "
            "a target without noise; the accept step is the same"
        )
    if isinstance(kernel.inverse_temperature, Tensor):
        raise OptionError(f"{kernel.name} has an inverse temperature a chain; judge it at one of them")
    if isinstance(kernel, Composition) and any(isinstance(part, ParallelTempering) for part in kernel.kernels):
        raise CapabilityError(
            f"{kernel.name} carries replicas for one of its parts; judge its parts one by one: if each leaves the "
            "target invariant, all in turn do"
        )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise OptionError(f"{name} is {count}; it must be at least 1")
