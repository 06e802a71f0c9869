"""Judge a kernel of a small space by its whole transition matrix P, production code under every decision.

    invariant:   sum_x pi(x) P(x, y) = pi(y)          reversible:   pi(x) P(x, y) = pi(y) P(y, x)

Detailed balance summed over x is invariance, so the second says more. Both hold to rounding or do not hold.
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from gfnmc.core.errors import CapabilityError, ObjectError
from gfnmc.kernels.base import Kernel
from gfnmc.targets.solution import ExactSolution
from gfnmc.testing.enumerator import transition_matrix
from gfnmc.testing.judgement import Judgement

TOLERANCE = 1e-10
"""Largest error of a probability that counts as rounding."""

MAX_ROWS = 2**18
"""Most sequences of decisions that are followed for one kernel: some seconds and some hundred MiB."""


class EnumerationJudge:
    """Judges kernels on listed objects.

    Args:
        law: Every object of positive probability, and its log-probability.
        judges_pairs: Whether to ask for reversibility, not only for invariance.

    Raises:
        CapabilityError: If the law lists no objects.
        TooManyDecisionsError: Later, if a step has too many sequences of decisions.
    """

    def __init__(self, law: ExactSolution, *, judges_pairs: bool) -> None:
        if law.support is None or law.log_pmf is None:
            raise CapabilityError("this law lists no objects, so there is nothing to enumerate")
        self._objects = law.support
        self._law = law.log_pmf.exp()
        self._judges_pairs = judges_pairs

    @property
    def method(self) -> str:
        """How it judges, in words."""
        return f"by enumeration of {len(self._objects):,} objects"

    def __call__(self, kernel: Kernel) -> Judgement:
        try:
            matrix = transition_matrix(kernel, self._objects, max_rows=MAX_ROWS)
        except ObjectError as error:
            complaint = (
                f"{error}: the {len(self._objects)} objects of positive density. Either they are not all, or the step "
                "accepts impossible objects"
            )
            return Judgement(False, "ends outside the space", complaint, torch.zeros(0))
        total = matrix.sum(1)
        if float((total - 1.0).abs().max()) > TOLERANCE:
            row = int((total - 1.0).abs().argmax())
            complaint = (
                f"the probabilities of all ways out of {self._name(row)} add up to {float(total[row]):.12g}, not to 1; "
                "the kernel decides by laws that are not normalised"
            )
            return Judgement(False, f"adds up to {float(total[row]):.3g}", complaint, matrix)
        flow = self._law[:, None] * matrix
        errors = (flow - flow.T).abs() if self._judges_pairs else (flow.sum(0) - self._law).abs()
        worst = float(errors.max())
        is_right = worst <= TOLERANCE
        return Judgement(is_right, f"to {worst:.0e}", "" if is_right else self._complaint(flow), matrix)

    def _complaint(self, flow: Float64[Tensor, "objects objects"]) -> str:
        """Name the object, and the pair of objects, with the largest error."""
        after = flow.sum(0)
        place = int((after - self._law).abs().argmax())
        there, back = divmod(int((flow - flow.T).abs().argmax()), len(flow))
        pair = (
            f"from {self._name(there)} to {self._name(back)} flows {float(flow[there, back]):.6g} a step, and back "
            f"{float(flow[back, there]):.6g}"
        )
        if self._judges_pairs:
            return f"{pair}: unbalanced by {float((flow - flow.T).abs().max()):.2g}"
        error = float((after - self._law).abs().max())
        return (
            f"a step changes the probability of {self._name(place)} from {float(self._law[place]):.6g} to "
            f"{float(after[place]):.6g}, by {error:.2g}; the pair of objects that is least in balance: {pair}"
        )

    def _name(self, place: int) -> str:
        return str(self._objects[place].tolist())
