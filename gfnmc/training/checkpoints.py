"""Checkpoints and saved pairs: one safetensors file each, with JSON in its header. Loading runs no code."""

import json
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.errors import CapabilityError, OptionError, StorageError
from gfnmc.core.storage import write_atomically
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.mlp import MLPPolicy
from gfnmc.policies.pair import GFlowNet
from gfnmc.policies.uniform import UniformPolicy

_CHECKPOINT = "gfnmc.checkpoint/1"
_PAIR = "gfnmc.pair/1"
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Checkpoint:
    """All that a training run needs to go on. Random numbers are keyed by seed and step, so they need no state.

    Attributes:
        target_name: What it was trained for.
        config: The options, plain data.
        seed: Names the run.
        step: Steps taken.
        cost: Cost so far.
        history: History so far.
        num_added: Objects that the replay buffer has seen.
        tensors: Weights, optimiser and buffer.
    """

    target_name: str
    config: dict[str, Any]
    seed: int
    step: int
    cost: Cost
    history: dict[str, list[int | float]]
    num_added: int
    tensors: dict[str, Tensor]


def write_checkpoint(path: FilePath, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        StorageError: If the file cannot be written.
    """
    header = {
        name: getattr(checkpoint, name) for name in ("target_name", "config", "seed", "step", "history", "num_added")
    }
    _write(path, _CHECKPOINT, header | {"cost": _cost_to_json(checkpoint.cost)}, checkpoint.tensors)


def read_checkpoint(path: FilePath) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        StorageError: If the file cannot be read or is not a checkpoint.
    """
    header, tensors = _read(path, _CHECKPOINT)
    cost = Cost(**header.pop("cost"))
    return Checkpoint(**header, cost=cost, tensors=tensors)


def save_pair(pair: GFlowNet, path: str | FilePath) -> None:
    """Save a pair of MLP and uniform policies.

    Raises:
        CapabilityError: If a policy is of another kind.
        StorageError: If the file cannot be written.
    """
    policies = {"forward": pair.forward, "backward": pair.backward}
    header = {
        "policies": {name: _describe(policy) for name, policy in policies.items()},
        "environment": pair.environment.describe(),
        "log_z": pair.log_z.item(),
        "cost": _cost_to_json(pair.training_cost),
    }
    tensors = {
        f"{name}.{key}": value for name, policy in policies.items() for key, value in policy.state_dict().items()
    }
    _write(FilePath(path), _PAIR, header, tensors)


def load_pair(path: str | FilePath, environment: DiscreteEnvironment) -> GFlowNet:
    """Load a saved pair onto the environment it was trained on; it comes frozen.

    Raises:
        StorageError: If the file cannot be read or is not a pair.
        OptionError: If it was trained on another environment.
    """
    header, tensors = _read(FilePath(path), _PAIR)
    # As the file holds it: JSON makes lists of tuples.
    found = json.loads(json.dumps(environment.describe()))
    if found != header["environment"]:
        raise OptionError(
            f"{path} holds a pair for the environment {header['environment']}, but the one given is {found}"
        )
    policies = {}
    for direction in Direction:
        name = direction.value
        policy = _build(header["policies"][name], environment, direction)
        weights = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        try:
            policy.load_state_dict(weights)
        except RuntimeError as error:
            raise OptionError(
                f"the weights in {path} do not fit the {name} policy on this environment: {error}"
            ) from error
        policies[name] = policy.with_exploration(**header["policies"][name]["exploration"])
    cost = Cost(**header["cost"])
    return GFlowNet(policies["forward"], policies["backward"], log_z=header["log_z"], training_cost=cost).frozen()


def _describe(policy: DiscretePolicy) -> dict[str, Any]:
    exploration = {"temperature": policy.temperature, "epsilon": policy.epsilon}
    if isinstance(policy, UniformPolicy):
        return {"kind": "uniform", "exploration": exploration}
    if isinstance(policy, MLPPolicy):
        dtype = str(policy.head.dtype).removeprefix("torch.")
        sizes = {"hidden_size": policy.hidden_size, "num_layers": policy.num_layers}
        return {"kind": "mlp", "dtype": dtype, "exploration": exploration, **sizes}
    raise CapabilityError(f"a {type(policy).__name__} cannot be saved; only MLP and uniform policies can")


def _build(description: dict[str, Any], environment: DiscreteEnvironment, direction: Direction) -> DiscretePolicy:
    if description["kind"] == "uniform":
        return UniformPolicy(environment, direction)
    sizes = {"hidden_size": int(description["hidden_size"]), "num_layers": int(description["num_layers"])}
    return MLPPolicy(environment, direction, dtype=_DTYPES[description["dtype"]], **sizes)


def _cost_to_json(cost: Cost) -> dict[str, int | float]:
    return {"target_calls": cost.target_calls, "policy_calls": cost.policy_calls, "seconds": cost.seconds}


def _write(path: FilePath, schema: str, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    import safetensors.torch

    payload = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    metadata = {"schema": schema, "header": json.dumps(header)}
    write_atomically(path, safetensors.torch.save(payload, metadata))


def _read(path: FilePath, schema: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    if metadata.get("schema") != schema:
        raise StorageError(f"{path} is not a {schema} file, but {metadata.get('schema', 'something else')}")
    return json.loads(metadata["header"]), tensors
