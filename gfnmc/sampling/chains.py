"""What sampling returns: draws, what the kernel said of each, and what they cost."""

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.errors import StorageError
from gfnmc.core.storage import check_writable
from gfnmc.kernels.base import Kernel
from gfnmc.sampling.summary import chains_summary
from gfnmc.targets.base import Target


@dataclass(frozen=True, eq=False)
class Record:
    """The draws of one phase, chains first.

    Those of a run directory are read when they are first asked for (`Record.stored`).

    Attributes:
        position: Objects.
        log_prob: Their log-densities, nats.
        stats: What `Info` says at each kept draw, by name; `target_calls` and `policy_calls` are summed over the
            steps since the draw before. The acceptance of each kernel of a cycle is under
            `acceptance_rate[name]`, and its `Reason` under `reason[name]`.
        seconds: Seconds from the start of sampling to each draw.
    """

    position: Shaped[Tensor, "chains draws *event"]
    log_prob: Float64[Tensor, "chains draws"]
    stats: dict[str, Shaped[Tensor, "chains draws"]]
    seconds: Float64[Tensor, " draws"]

    @classmethod
    def stored(cls, load: Callable[[str], Any]) -> "Record":
        """Return draws that are elsewhere.

        Args:
            load: Returns the value of an attribute, by its name; asked once for each.
        """
        record = object.__new__(cls)
        object.__setattr__(record, "_load", load)
        return record

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Python asks here for what has not been set yet.
            if name not in ("position", "log_prob", "stats", "seconds") or "_load" not in self.__dict__:
                raise AttributeError(f"a record has no {name!r}")
            value = self.__dict__["_load"](name)
            object.__setattr__(self, name, value)
            return value


@dataclass(frozen=True, eq=False)
class Chains:
    """Draws of a kernel.

    Attributes:
        target: What was sampled.
        kernel_name: What sampled it.
        warmup: The draws before the kept ones, every step of them.
        samples: The kept draws.
        thinning: Steps from one kept draw to the next.
        seed: Names the run.
        training_cost: What training the kernel's proposal cost.
        sampling_cost: What the chains cost, start and warm-up included.
        adapted_kernel: What the warm-up made of the kernel, and the kept draws come from, where it was asked to adapt.
        remarks: What else a reader must know of the run, by name; they go to ArviZ as attributes.
    """

    target: Target
    kernel_name: str
    warmup: Record
    samples: Record
    thinning: int
    seed: int
    training_cost: Cost
    sampling_cost: Cost
    adapted_kernel: Kernel | None = None
    remarks: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return self.samples.log_prob.shape[0]

    @property
    def num_samples(self) -> int:
        """Kept draws a chain."""
        return self.samples.log_prob.shape[1]

    @property
    def num_warmup(self) -> int:
        """Warm-up steps a chain."""
        return self.warmup.log_prob.shape[1]

    @property
    def x(self) -> Shaped[Tensor, "chains draws *event"]:
        """The kept objects."""
        return self.samples.position

    @property
    def cost(self) -> Cost:
        """Training and sampling together."""
        return self.training_cost + self.sampling_cost

    @cached_property
    def nonfinite_count(self) -> Int64[Tensor, " chains"]:
        """How many log-densities of each chain were NaN or +inf and taken for -inf, warm-up included.

        Always 0 with `sample(on_nonfinite="raise")`, where the first of them ends the run.
        """
        phases = (record.stats["nonfinite"] for record in (self.warmup, self.samples) if "nonfinite" in record.stats)
        return sum((counts.sum(1) for counts in phases), torch.zeros(self.num_chains, dtype=torch.int64))

    @cached_property
    def statistics(self) -> dict[str, Float64[np.ndarray, "chains draws"]]:
        """The log-density and the target's statistics at the kept draws."""
        values = self.target.statistics(self.x.flatten(0, 1))
        shape = (self.num_chains, self.num_samples)
        named = {name: value.to(torch.float64).reshape(shape).numpy() for name, value in values.items()}
        return {"log_prob": self.samples.log_prob.numpy(), **named}

    def mode_ids(self, record: Record) -> Int64[np.ndarray, "chains draws"] | None:
        """Return the mode of each draw of a phase, -1 outside all; None where the target knows no modes."""
        modes = self.target.modes()
        if modes is None:
            return None
        return modes.assign(record.position.flatten(0, 1)).reshape(record.log_prob.shape).numpy()

    def to_arviz(self) -> Any:
        """Return the chains as the installed ArviZ reads them.

        `posterior` holds the objects as `x`, every statistic of the target, and the occupancy of its modes as
        `occ`; `sample_stats` what the kernel said (`lp`, `acceptance_rate`, `accepted`, `log_ratio`,
        `num_back_steps`, ...); `warmup_posterior` and `warmup_sample_stats` the warm-up.

        Returns:
            An `arviz.InferenceData` where ArviZ 0.23 is installed, else an `xarray.DataTree`.
        """
        return _for_installed_arviz(self._tree())

    def _tree(self) -> Any:
        import arviz_base

        groups: dict[str, Any] = {
            "posterior": self._posterior(self.samples) | self._named_statistics(),
            "sample_stats": self._sample_stats(self.samples),
        }
        if self.num_warmup:
            groups["warmup_posterior"] = self._posterior(self.warmup)
            groups["warmup_sample_stats"] = self._sample_stats(self.warmup)
        modes = self.target.modes()
        with warnings.catch_warnings():
            # Many short chains are what batches are for.
            warnings.filterwarnings("ignore", message="Found chain dimension to be longer than draw dimension")
            return arviz_base.from_dict(
                groups,
                coords=None if modes is None else {"mode": list(modes.names)},
                dims=None if modes is None else {"occ": ["mode"]},
                attrs={"/": self._attributes(), "posterior": self._attributes()},
                save_warmup=True,
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the chains as an ArviZ netCDF file, whole or not at all.

        Raises:
            StorageError: If the file cannot be written.
        """
        check_writable(path)
        part = f"{os.fspath(path)}.part"
        try:
            tree = self._tree()
            zipped = {"zlib": True, "complevel": 1}
            packed = {node.path: {name: zipped for name in node.data_vars} for node in tree.subtree}
            tree.to_netcdf(part, engine="h5netcdf", encoding=packed)
            os.replace(part, path)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(part)

    def __repr__(self) -> str:
        return chains_summary(self).text()

    def _repr_html_(self) -> str:
        """Show the chains in a notebook."""
        return chains_summary(self).html()

    def _posterior(self, record: Record) -> dict[str, np.ndarray]:
        variables = {"x": _without_bool(record.position.numpy())}
        mode = self.mode_ids(record)
        if mode is not None:
            num_modes = len(self.target.modes() or ())
            variables["occ"] = (mode[..., None] == np.arange(num_modes)).astype(np.int8)
        return variables

    def _named_statistics(self) -> dict[str, np.ndarray]:
        """Return the target's statistics under names that are free in the posterior group."""
        named = {name: value for name, value in self.statistics.items() if name != "log_prob"}
        return {f"statistic_{name}" if name in ("x", "occ") else name: value for name, value in named.items()}

    def _sample_stats(self, record: Record) -> dict[str, np.ndarray]:
        stats = {name: _without_bool(value.numpy()) for name, value in record.stats.items()}
        mode = self.mode_ids(record)
        if mode is not None:
            stats["mode_id"] = mode.astype(np.int32)
        return {"lp": record.log_prob.numpy(), **stats}

    def _attributes(self) -> dict[str, str | float | int]:
        return {
            "inference_library": "gfnmc",
            "inference_library_version": version("gfnmc"),
            "target": self.target.name,
            "kernel": self.kernel_name,
            "log_density": "unnormalised, nats",
            # A file holds integers of 64 bits.
            "seed": self.seed if -(2**63) <= self.seed < 2**63 else str(self.seed),
            "thinning": self.thinning,
            "sampling_time": self.sampling_cost.seconds,
            "training_cost": json.dumps(asdict(self.training_cost)),
            "sampling_cost": json.dumps(asdict(self.sampling_cost)),
            "nonfinite_count": int(self.nonfinite_count.sum()),
            **self.remarks,
        }


def _without_bool(values: np.ndarray) -> np.ndarray:
    """Return truth values as 0 and 1, for files know no others."""
    return values.astype(np.int8) if values.dtype == bool else values


def _for_installed_arviz(tree: Any) -> Any:
    """Hand a DataTree to ArviZ 0.23 as its own container; ArviZ 1 and arviz-base alone read the tree itself."""
    try:
        import arviz
    except ImportError:
        return tree
    # `hasattr` would be True on ArviZ 1 as well: its module answers for names that are gone.
    convert = vars(arviz).get("from_datatree")
    return tree if convert is None else convert(tree)
