"""What a computation cost, in units that do not depend on the machine, and in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """Counted work.

    Attributes:
        target_calls: Evaluations of the target's log-density, one an object.
        policy_calls: Evaluations of P_F or P_B, one a state.
        seconds: Wall-clock seconds.
    """

    target_calls: int = 0
    policy_calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.target_calls + other.target_calls,
            self.policy_calls + other.policy_calls,
            self.seconds + other.seconds,
        )
