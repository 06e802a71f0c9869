"""What a run was asked for: the options of `sample` that decide its draws, and where they are stored."""

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from gfnmc.core.errors import OptionError

OnNonFinite = Literal["raise", "reject"]


@dataclass(frozen=True)
class Budget:
    """A bound on the work of a run; the run ends with the last kept draw that fits.

    Attributes:
        target_calls: Evaluations of the target, start and warm-up included; None for no bound.
        seconds: Wall-clock seconds; None for no bound.
    """

    target_calls: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("target_calls", self.target_calls), ("seconds", self.seconds)):
            if value is not None and not value > 0:
                raise OptionError(f"a budget of {value} {name} allows no work; give a positive number, or None")


@dataclass(frozen=True)
class Plan:
    """The options of a run; `sample` says what they mean.

    Raises:
        OptionError: If a count makes no sense, or `on_nonfinite` is neither.
    """

    num_chains: int
    num_samples: int
    num_warmup: int
    thinning: int
    seed: int
    adapt: bool
    on_nonfinite: OnNonFinite = "raise"

    def __post_init__(self) -> None:
        for name, least in (("num_chains", 1), ("num_samples", 1), ("num_warmup", 0), ("thinning", 1)):
            value = getattr(self, name)
            if value < least:
                raise OptionError(f"{name} is {value}; it must be at least {least}")
        if self.on_nonfinite not in ("raise", "reject"):
            raise OptionError(f"on_nonfinite is {self.on_nonfinite!r}; choose 'raise' or 'reject'")

    @property
    def num_steps(self) -> int:
        """Steps in all."""
        return self.num_warmup + self.num_samples * self.thinning

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> "Plan":
        """Return the plan with these options.

        Raises:
            OptionError: If they are not those of a plan.
        """
        known = {field.name for field in fields(cls)}
        if set(options) != known:
            raise OptionError(f"a plan has the options {sorted(known)}, not {sorted(options)}")
        return cls(**options)


@dataclass(frozen=True)
class Store:
    """Where a run is stored.

    Attributes:
        path: The run directory; a new one, or an empty folder.
        block_size: Draws a block; draws reach the store block by block. None for as many as fit into 16 MiB, 1,000 at
            most.
        commit_seconds: After so many seconds what there is of a block is stored as well.
        problem: The name by which the command line knows the target, if it does.
        pair: A saved pair to be copied into the directory, so that the command line can go on with nothing else.

    Raises:
        OptionError: If a number makes no sense.
    """

    path: str | os.PathLike[str]
    block_size: int | None = None
    commit_seconds: float = 30.0
    problem: str | None = None
    pair: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.block_size is not None and self.block_size < 1:
            raise OptionError(f"block_size is {self.block_size}; it must be at least 1")
        if not self.commit_seconds >= 0.0:
            raise OptionError(f"commit_seconds is {self.commit_seconds}; give 0 or more seconds")

    @property
    def folder(self) -> Path:
        """The run directory."""
        return Path(self.path)
