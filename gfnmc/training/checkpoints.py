"""Checkpoints and saved pairs: one safetensors file each, with JSON in its header. Loading runs no code."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.errors import OptionError, StorageError
from gfnmc.core.storage import write_atomically
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.policies.kinds import build_flow, build_policy, describe_flow, describe_policy
from gfnmc.policies.log_partition import LogPartition
from gfnmc.policies.pair import GFlowNet

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
    cost = Cost(**header.pop("cost"))
    return Checkpoint(**header, cost=cost, tensors=tensors)


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
        training_cost=Cost(**header["cost"]),
    )
    pair.training_report = header.get("training_report")
    for name, part in _parts(pair).items():
        weights = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        try:
            part.load_state_dict(weights)
        except RuntimeError as error:
            raise OptionError(
                f"the weights of {name} in {path} do not fit the network on this environment: {error}"
            ) from error
    return pair.frozen()


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
    return json.loads(metadata["header"]), tensors
