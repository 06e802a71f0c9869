"""What a computation cost, in units that do not depend on the machine, and in seconds."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """Counted work.

    Attributes:
        target_calls: Log-densities asked of the target, one an object.
        policy_calls: Evaluations of P_F or P_B, one a state.
        seconds: Wall-clock seconds.
        delta_calls: Those of the target calls that asked only how one change of an object changes its log-density.
        gradient_calls: Those of the target calls that asked for the gradient as well.
    """

    target_calls: int = 0
    policy_calls: int = 0
    seconds: float = 0.0
    delta_calls: int = 0
    gradient_calls: int = 0

    @classmethod
    def from_dict(cls, figures: Mapping[str, int | float]) -> "Cost":
        """Return a cost from plain data.

        Raises:
            TypeError: If it is of other figures, or they are no numbers.
        """
        for name, figure in figures.items():
            if isinstance(figure, bool) or not isinstance(figure, int | float):
                raise TypeError(f"a cost of {figure!r} {name} is no number")
        return cls(**figures)  # type: ignore[arg-type]

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.target_calls + other.target_calls,
            self.policy_calls + other.policy_calls,
            self.seconds + other.seconds,
            self.delta_calls + other.delta_calls,
            self.gradient_calls + other.gradient_calls,
        )
