"""Every error gfnmc raises on purpose.

Each says what happened, where, and what to do next. Catch `GfnmcError` for all of them; each is also the
builtin error that describes it best, so that generic handlers work too.
"""

from typing import Any


class GfnmcError(Exception):
    """Base of every error raised on purpose by gfnmc.

    Attributes:
        chains: The draws finished before the error, where sampling had begun; else None.
        runs: In a comparison, the draws that each sampler finished before the error, by name; else None.
    """

    chains: Any = None
    runs: Any = None


class OptionError(GfnmcError, ValueError):
    """An option is unknown, or has a value that cannot work."""


class ObjectError(GfnmcError, ValueError):
    """Objects have the wrong shape or dtype, or are not in the space of the target."""


class EnergyError(GfnmcError, ValueError):
    """A target's `log_prob` returned something that is not a batch of float64 log-densities."""


class NonFiniteEnergyError(EnergyError):
    """A target's `log_prob` returned NaN or +inf (-inf is fine: it is a rejection).

    Attributes:
        row: The offending row of the batch, which is the chain when chains are sampled.
        step: The step of the chain, counted from the first warm-up step; None outside sampling.
        value: What the target returned.
        state: The object that it returned it for, as nested lists; None where that is not one object.
    """

    def __init__(
        self, message: str, *, row: int, value: float, step: int | None = None, state: list[Any] | None = None
    ) -> None:
        super().__init__(message)
        self.row = row
        self.value = value
        self.step = step
        self.state = state


class EnvironmentContractError(GfnmcError, ValueError):
    """An environment contradicts itself: masks, `step`, `unstep` and `is_source` do not fit together."""


class CapabilityError(GfnmcError, TypeError):
    """Something was asked of an environment, target or law that it does not offer."""


class PolicyError(GfnmcError, ValueError):
    """A policy does not fit its environment."""


class IrreducibilityError(GfnmcError, ValueError):
    """A kernel cannot reach the whole space from everywhere, so its averages would be wrong for ever."""


class TrainingError(GfnmcError, ArithmeticError):
    """Training met a loss that is not finite."""


class StorageError(GfnmcError, OSError):
    """A file could not be read or written."""


class DamageError(StorageError):
    """A part of a run directory is not what was written there.

    Attributes:
        part: Which one: a file, or a block of draws.
    """

    def __init__(self, message: str, *, part: str) -> None:
        super().__init__(message)
        self.part = part


class MismatchError(GfnmcError, ValueError):
    """A stored run was made by other versions, another kernel, target or device than are to go on with it.

    Attributes:
        mismatches: What differs: what the run was made by, and what is given now.
    """

    def __init__(self, message: str, *, mismatches: dict[str, tuple[Any, Any]]) -> None:
        super().__init__(message)
        self.mismatches = mismatches
