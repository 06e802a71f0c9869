"""Small problems that training solves in a second, explicit options, and what two runs have to agree in.

No test here leans on a default option: those are tuned, and tests say what they need.
"""

from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
from torch import Tensor

from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Lattice, enumerate_states
from gfnmc.policies import DiscretePolicy, GFlowNet, TabularPolicy
from gfnmc.policies.flow import TabularFlow
from gfnmc.policies.flow_backward import FlowBackwardPolicy
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, Target
from gfnmc.targets.conditional import ConditionalTarget
from gfnmc.training import TrainingConfig, TrainingResult, train
from gfnmc.training import run as training_run
from gfnmc.training.checkpoints import Checkpoint
from tests.support import Stairs, is_identical, stairs_target, terminal_law

NEVER = 2.0
"""An acceptance that no pair reaches, so that training does not end early."""

TINY: dict[str, Any] = {
    "num_steps": 12,
    "batch_size": 8,
    "epsilon": 0.05,
    "seeding": "none",
    "seed_batch_size": 6,
    "seed_chains": 8,
    "seed_warmup": 2,
    "seed_every": 2,
    "likelihood_until": 0.3,
    "replay_batch_size": 4,
    "buffer_size": 40,
    "replay_priority": "reward",
    "chain_batch_size": 0,
    "reward_schedule": "fixed",
    "anneal_until": 0.5,
    "log_reward_range": 50.0,
    "learning_rate": 1e-2,
    "log_z_learning_rate": 5e-2,
    "lr_warmup_steps": 3,
    "hidden_size": 8,
    "num_layers": 1,
    "check_every": 5,
    "check_size": 16,
    "stop_at_acceptance": NEVER,
    "checkpoint_every": 5,
}
"""A run of milliseconds, for what does not depend on how well the pair has learned."""

LEARNS: dict[str, Any] = TINY | {
    "num_steps": 250,
    "batch_size": 64,
    "epsilon": 0.1,
    "replay_batch_size": 0,
    "learning_rate": 0.05,
    "log_z_learning_rate": 0.1,
    "lr_warmup_steps": 10,
    "lr_decay_from": 0.2,
    "max_grad_norm": 100.0,
    "log_reward_range": 20.0,
    "check_every": 250,
    "check_size": 1_024,
}
"""A run of a second that brings tables to the law of a small target."""

GRID, GRID_TARGET = HyperGrid(2, 4), HyperGridTarget(2, 4)


def three_spins() -> tuple[DiscreteEnvironment, Target]:
    target = Ising((3,), 0.6, field=0.3)
    return Lattice.for_target(target), target


def stairs() -> tuple[DiscreteEnvironment, Target]:
    environment = Stairs(5)
    return environment, stairs_target(environment)


PROBLEMS: dict[str, Callable[[], tuple[DiscreteEnvironment, Target]]] = {
    "three spins": three_spins,
    "grid": lambda: (HyperGrid(2, 3), HyperGridTarget(2, 3)),
    "stairs": stairs,
}


def tiny(**options: object) -> TrainingConfig:
    return TrainingConfig(**(TINY | options))


def learns(**options: object) -> TrainingConfig:
    return TrainingConfig(**(LEARNS | options))


def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the run-time type checks, which take most of a long run; short runs hold the same code to them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def tables(
    environment: DiscreteEnvironment, *, backward: DiscretePolicy | None = None, from_flow: bool = False
) -> GFlowNet:
    """A pair of zeros in tables, with a state flow."""
    graph = enumerate_states(environment)
    forward, flow = TabularPolicy(graph, Direction.FORWARD), TabularFlow(graph)
    return GFlowNet(forward, FlowBackwardPolicy(forward, flow) if from_flow else backward, log_flow=flow)


def run(
    environment: DiscreteEnvironment, target: Target | ConditionalTarget, config: TrainingConfig, **options: Any
) -> TrainingResult:
    return train(environment, target, config=config, progress_bar=False, **options)


def quick(target: Target = GRID_TARGET, *, seed: int = 5, **options: Any) -> TrainingResult:
    """Train on the small grid; options of `train` and of the config together."""
    given = {name: options.pop(name) for name in ("pair", "objects", "checkpoint", "num_threads") if name in options}
    return run(GRID, target, tiny(**options), seed=seed, **given)


def log_reward(environment: DiscreteEnvironment, target: Target) -> Tensor:
    return target.log_prob(enumerate_states(environment).objects)


def distance(pair: GFlowNet, target: Target) -> float:
    """Total variation between the objects of P_F and the target."""
    exact = log_reward(pair.environment, target).softmax(0)
    return 0.5 * float((terminal_law(pair.forward) - exact).abs().sum())


def log_z_error(pair: GFlowNet, target: Target) -> float:
    return float(pair.log_z.detach()) - float(log_reward(pair.environment, target).logsumexp(0))


def weights(result: TrainingResult) -> list[Tensor]:
    return [*result.pair.parameters(), result.pair.log_z_weight]


def is_same_pair(a: TrainingResult, b: TrainingResult) -> bool:
    return all(is_identical(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def assert_same_training(a: TrainingResult, b: TrainingResult) -> None:
    assert is_same_pair(a, b)
    assert a.history == b.history
    assert a.qualities == b.qualities
    assert a.quality == b.quality
    assert (a.cost.target_calls, a.cost.policy_calls) == (b.cost.target_calls, b.cost.policy_calls)


class Interrupted(Exception):
    """What stops a run in a test."""


def stop_after_checkpoint(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let training stop once it has written so many checkpoints."""
    write, written = training_run.write_checkpoint, []

    def write_and_stop(path: Any, checkpoint: Checkpoint) -> None:
        write(path, checkpoint)
        written.append(checkpoint.progress["step"])
        if len(written) == number:
            raise Interrupted

    monkeypatch.setattr(training_run, "write_checkpoint", write_and_stop)
