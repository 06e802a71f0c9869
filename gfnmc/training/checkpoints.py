"""Checkpoints and saved pairs: one safetensors file each, with JSON in its header. Loading runs no code."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.errors import OptionError, StorageError
from gfnmc.core.foreign import foreign_content
from gfnmc.core.storage import write_atomically
from gfnmc.diagnostics.quality import PairQuality
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.policies.kinds import build_flow, build_policy, describe_flow, describe_policy
from gfnmc.policies.log_partition import LogPartition
from gfnmc.policies.pair import GFlowNet
from gfnmc.policies.weights import at_most

_CHECKPOINT = "gfnmc.checkpoint/2"
_PAIR = "gfnmc.pair/2"
# The first version held policies only, described in the same way.
_OLDER_PAIRS = ("gfnmc.pair/1",)


@dataclass(frozen=True)
class Checkpoint:
    """All that a training run needs to go on. Random numbers are keyed by seed and step, so they need no state.

    Attributes:
        target_name: What it was trained for.
        config: The options, plain data.
        seed: Names the run.
        cost: Cost so far.
        progress: Steps taken, schedule, history and looks, plain data.
        num_added: Objects that the replay buffer has seen.
        seeds: Counters and ladder of the tempered chains, plain data; None where there are none.
        tensors: Weights, optimiser, buffer and chains.
    """

    target_name: str
    config: dict[str, Any]
    seed: int
    cost: Cost
    progress: dict[str, Any]
    num_added: int
    seeds: dict[str, Any] | None
    tensors: dict[str, Tensor]


def write_checkpoint(path: FilePath, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        StorageError: If the file cannot be written.
    """
    header = {
        name: getattr(checkpoint, name) for name in ("target_name", "config", "seed", "progress", "num_added", "seeds")
    }
    _write(path, _CHECKPOINT, header | {"cost": asdict(checkpoint.cost)}, checkpoint.tensors)


def read_checkpoint(path: FilePath) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        StorageError: If the file cannot be read or is not a checkpoint.
    """
    header, tensors = _read(path, _CHECKPOINT)
    with foreign_content(path, "a checkpoint"):
        cost = Cost.from_dict(header.pop("cost"))
        checkpoint = Checkpoint(**header, cost=cost, tensors=tensors)
        _check_types(checkpoint)
    return checkpoint


def save_pair(pair: GFlowNet, path: str | FilePath) -> None:
    """Save a pair: policies, log Z, state flow, what training cost and recorded, and the log Z of each condition.

    Of a bound pair the whole family is saved; which condition it was bound to is not.

    Raises:
        CapabilityError: If a policy or flow is of a kind that is not saved, such as a table.
        StorageError: If the file cannot be written.
    """
    header = {
        "policies": {"forward": describe_policy(pair.forward), "backward": describe_policy(pair.backward)},
        "environment": pair.environment.describe(),
        "log_z": pair.log_z_weight.item(),
        "log_flow": None if pair.log_flow is None else describe_flow(pair.log_flow),
        "condition_names": list(pair.condition_names),
        "log_partition": None if pair.log_partition is None else pair.log_partition.options(),
        "cost": asdict(pair.training_cost),
        "training_report": pair.training_report,
    }
    tensors = {
        f"{name}.{key}": value for name, part in _parts(pair).items() for key, value in part.state_dict().items()
    }
    _write(FilePath(path), _PAIR, header, tensors)


def load_pair(path: str | FilePath, environment: DiscreteEnvironment) -> GFlowNet:
    """Load a saved pair onto the environment it was trained on; it comes frozen, and if conditional not bound.

    Raises:
        StorageError: If the file cannot be read or is not a pair.
        OptionError: If it was trained on another environment.
    """
    header, tensors = _read(FilePath(path), _PAIR, *_OLDER_PAIRS)
    with foreign_content(path, "a pair"), at_most(num_elements(tensors)):
        return _pair_of(path, header, tensors, environment)


def read_training_report(path: str | FilePath) -> dict[str, Any] | None:
    """Return what training recorded of a saved pair, as plain data; None where it is not known.

    Raises:
        StorageError: If the file cannot be read or is not a pair.
    """
    header, _ = _read(FilePath(path), _PAIR, *_OLDER_PAIRS)
    with foreign_content(path, "a pair"):
        return _checked_report(header.get("training_report"))


def num_elements(tensors: Mapping[str, Tensor]) -> int:
    """Return the numbers that some tensors hold together."""
    return sum(tensor.numel() for tensor in tensors.values())


def _check_types(checkpoint: Checkpoint) -> None:
    """Raise TypeError where a figure of a checkpoint is of another type than its name says."""
    for name, kind in {"target_name": str, "config": dict, "seed": int, "progress": dict, "num_added": int}.items():
        if not isinstance(getattr(checkpoint, name), kind):
            raise TypeError(f"{name} is {getattr(checkpoint, name)!r}")
    if not isinstance(checkpoint.seeds, dict | None):
        raise TypeError(f"seeds is {checkpoint.seeds!r}")


def _pair_of(
    path: str | FilePath, header: dict[str, Any], tensors: dict[str, Tensor], environment: DiscreteEnvironment
) -> GFlowNet:
    # As the file holds it: JSON makes lists of tuples.
    found = json.loads(json.dumps(environment.describe()))
    if found != header["environment"]:
        raise OptionError(
            f"{path} holds a pair for the environment {header['environment']}, but the one given is {found}"
        )
    flow, partition = header.get("log_flow"), header.get("log_partition")
    pair = GFlowNet(
        build_policy(header["policies"]["forward"], environment, Direction.FORWARD),
        build_policy(header["policies"]["backward"], environment, Direction.BACKWARD),
        log_z=header["log_z"],
        log_flow=None if flow is None else build_flow(flow, environment),
        condition_names=header.get("condition_names", ()),
        log_partition=None if partition is None else LogPartition(**partition),
        training_cost=Cost.from_dict(header["cost"]),
    )
    pair.training_report = _checked_report(header.get("training_report"))
    for name, part in _parts(pair).items():
        weights = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        try:
            part.load_state_dict(weights)
        except RuntimeError as error:
            misfit = " ".join(str(error).split())
            raise OptionError(
                f"the weights of {name} in {path} do not fit the network on this environment: {misfit}"
            ) from error
    return pair.frozen()


def _checked_report(report: Any) -> dict[str, Any] | None:
    """Return what training recorded, as reports show it.

    Raises:
        LookupError: If a part is missing.
        TypeError: If a part is of another type.
    """
    if report is None:
        return None
    kinds = {"target": str, "seed": int, "config": dict, "num_steps": int, "qualities": list, "history": dict}
    for name, kind in kinds.items():
        if not isinstance(report[name], kind):
            raise TypeError(f"{name} of its training report is a {type(report[name]).__name__}")
    for look in (report["quality"], *report["qualities"]):
        PairQuality.from_dict({key: value for key, value in look.items() if key != "step"})
    return report


def _parts(pair: GFlowNet) -> dict[str, torch.nn.Module]:
    """Return what has weights, by the name its tensors carry in the file."""
    parts = {
        "forward": pair.forward,
        "backward": pair.backward,
        "log_flow": pair.log_flow,
        "log_partition": pair.log_partition,
    }
    return {name: part for name, part in parts.items() if part is not None}


def _write(path: FilePath, schema: str, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    import safetensors.torch

    payload = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    metadata = {"schema": schema, "header": json.dumps(header)}
    write_atomically(path, safetensors.torch.save(payload, metadata))


def _read(path: FilePath, schema: str, *older: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    if metadata.get("schema") not in (schema, *older):
        raise StorageError(f"{path} is not a {schema} file, but {metadata.get('schema', 'something else')}")
    with foreign_content(path, f"a {schema} file"):
        header = json.loads(metadata["header"])
        if not isinstance(header, dict):
            raise TypeError(f"its header is a {type(header).__name__}")
        return header, tensors
