"""Targets whose log-density cannot be had, only estimated, and one whose noise is known exactly.

A chain that keeps each object's estimate, and never estimates it again, samples the law of the *mean* of
exp(estimate): the target where the estimate is unbiased.

Reference: Andrieu and Roberts 2009, "The pseudo-marginal approach for efficient Monte Carlo computations".
"""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.targets.base import ExactSolution, ModeSet, Target


class NoisyTarget(Target):
    """A target that knows estimates only. Set `is_unbiased` where the mean of exp(estimate) is the density."""

    is_noisy = True

    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        """Refuse.

        Raises:
            CapabilityError: Always.
        """
        raise CapabilityError(f"{self.name} is noisy: its log_prob is not known, call `estimate_log_prob`")

    @abstractmethod
    def estimate_log_prob(self, x: Shaped[Tensor, "batch *event"], draws: Draws) -> Float64[Tensor, " batch"]: ...


class NoisyCopy(NoisyTarget):
    """Another target seen through noise of mean one; its statistics, modes and exact solution are that target's.

        estimate = log_prob(x) + log m,    m one of `multipliers`, drawn afresh for each estimate

    The noise takes finitely many values, so a chain on (object, estimate) can be enumerated.

    Args:
        target: The target, not noisy itself.
        multipliers: Values of the noise, positive.
        probabilities: The probability of each; with them the multipliers have mean one.

    Raises:
        OptionError: If the target is noisy, or the multipliers and probabilities are no law of mean one.
    """

    is_unbiased = True

    def __init__(self, target: Target, multipliers: Sequence[float], probabilities: Sequence[float]) -> None:
        if target.is_noisy:
            raise OptionError(f"{target.name} is noisy already")
        if len(multipliers) != len(probabilities) or len(multipliers) == 0:
            raise OptionError(f"{len(multipliers)} multipliers and {len(probabilities)} probabilities are no law")
        if not all(math.isfinite(m) and m > 0 for m in multipliers) or not all(p > 0 for p in probabilities):
            raise OptionError("multipliers and probabilities must be finite and positive")
        mean = sum(m * p for m, p in zip(multipliers, probabilities, strict=True))
        if abs(sum(probabilities) - 1) > 1e-9 or abs(mean - 1) > 1e-9:
            raise OptionError(
                f"probabilities sum to {sum(probabilities)} and the multipliers' mean is {mean}; both must be 1"
            )
        self.inner = target
        self.name = f"noisy-{target.name}"
        self.event_shape = target.event_shape
        self.dtype = target.dtype
        self.values = target.values
        self._log_multipliers = torch.tensor(multipliers, dtype=torch.float64).log()
        self._log_probabilities = torch.tensor(probabilities, dtype=torch.float64).log()

    def estimate_log_prob(self, x: Shaped[Tensor, "batch *event"], draws: Draws) -> Float64[Tensor, " batch"]:
        chosen = draws.role("noise").categorical(self._log_probabilities)
        return self.inner.log_prob(x) + self._log_multipliers[chosen]

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        return self.inner.statistics(x)

    def modes(self) -> ModeSet | None:
        return self.inner.modes()

    def exact(self) -> ExactSolution | None:
        return self.inner.exact()
