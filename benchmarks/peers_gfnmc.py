"""The work of gfnmc in benchmarks/peers.py: chain steps, sampling, training, and what bare matrix products cost."""

import functools
import json
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from peers_worker import COUPLING, GRID_REWARD, HIDDEN_SIZE, LEARNING_RATE, Facts, Task, Work, serve
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.environments import DiscreteEnvironment, HyperGrid, Lattice
from gfnmc.kernels import Info, SuffixResampling, branch
from gfnmc.policies import GFlowNet, MLPPolicy, law_table
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, Target, from_function

SEED = 0
MOST_STATES = law_table.MOST_STATES
NUM_SEEN = 5
"""Runs that facts are about, the last ones."""


def main() -> None:
    """Serve benchmarks/peers.py."""
    torch.set_num_threads(1)
    serve(make, log_reward, lambda: {name: version(name) for name in ("gfnmc", "torch", "numpy")})


def make(task: Task) -> Work:
    """Return the work of a task."""
    makers: dict[str, Callable[[Task], Work]] = {
        "chain": chain,
        "sampling": sampling,
        "training": training,
        "products": products,
    }
    law_table.MOST_STATES = MOST_STATES if task.get("tabulated", True) else 0
    return makers[task["kind"]](task)


def chain(task: Task) -> Work:
    """Steps of suffix resampling, driven as `gfnmc.sample` drives them, from objects drawn uniformly."""
    target, pair = untrained(task)
    batch = task["batch"]
    kernel = SuffixResampling(pair, target, law_of(task["branch"]))
    draws = PhiloxDraws(SEED, "chain", batch)
    state = kernel.init(uniform_objects(target, batch))
    step, seen = 0, deque[Info](maxlen=NUM_SEEN)

    def run() -> None:
        nonlocal state, step
        state, info = kernel.step(draws.at(step), state)
        seen.append(info)
        step += 1

    def facts() -> Facts:
        return {
            "steps_back": _mean([info.num_back_steps for info in seen]),
            "steps_forward": _mean([info.num_forward_steps for info in seen]),
            "acceptance": _mean([info.acceptance_rate for info in seen]),
        }

    return Work(run, facts)


def sampling(task: Task) -> Work:
    """Objects built by P_F from the source."""
    _, pair = untrained(task)
    batch = task["batch"]
    draws = PhiloxDraws(SEED, "sampling", batch)
    source = pair.environment.source(batch)
    step, lengths = 0, deque[Tensor](maxlen=NUM_SEEN)

    def run() -> None:
        nonlocal step
        lengths.append(pair.sample_forward(source, draws.at(step)).lengths)
        step += 1

    return Work(run, lambda: {"steps_forward": _mean(lengths)})


def training(task: Task) -> Work:
    """Optimiser steps of on-policy trajectory balance, as `gfnmc.train` takes them."""
    # Imported here, because other work should not hold the memory that they take.
    from plain_training import PLAIN

    from gfnmc.training.run import Run

    target, pair = untrained(task, is_frozen=False)
    config = replace(
        PLAIN,
        num_steps=10**9,
        batch_size=task["batch"],
        learning_rate=LEARNING_RATE,
        log_z_learning_rate=LEARNING_RATE,
    )
    trained = Run(pair.environment, target, config, pair, None, SEED)
    trained.begin()

    def run() -> None:
        trained._train_step(None)
        trained.at.step += 1

    return Work(run)


def products(task: Task) -> Work:
    """The products of the hidden layer that a chain step needs, and nothing else.

    K of them as the new suffix is drawn, one after the other, and K rows a chain at once as the old one is scored.
    """
    num_steps, batch = task["num_steps"], task["batch"]
    block = task["block"] or num_steps * batch
    weight, bias = torch.randn(HIDDEN_SIZE, HIDDEN_SIZE), torch.randn(HIDDEN_SIZE)
    drawn, scored = torch.randn(batch, HIDDEN_SIZE), torch.randn(num_steps * batch, HIDDEN_SIZE)
    by_step = _blocks(drawn, block) * num_steps
    at_once = _blocks(scored, block)

    def run() -> None:
        for rows, out in by_step + at_once:
            torch.addmm(bias, rows, weight, out=out)

    return Work(run)


def problem(space: Task) -> tuple[Target, DiscreteEnvironment]:
    """Return target and environment of a space."""
    if space["kind"] == "grid":
        target: Target = HyperGridTarget(space["num_dims"], space["side"], *GRID_REWARD)
        return target, HyperGrid.for_target(target)
    shape = (space["side"], space["side"])
    if space["kind"] == "ising":
        target = Ising(shape, COUPLING)
    else:
        target = from_function(_nothing, shape, values=(-1, 1), dtype=torch.int8, name="flat")
    return target, Lattice.for_target(target, order="uniform")


def untrained(task: Task, *, is_frozen: bool = True) -> tuple[Target, GFlowNet]:
    """Return the target of a task and a pair that has learned nothing, but how likely it is to exit."""
    if is_frozen:
        return _frozen(json.dumps(task["space"]), task.get("exit_bias", 0.0))
    return _untrained(task["space"], task.get("exit_bias", 0.0))


@functools.cache
def _frozen(space: str, exit_bias: float) -> tuple[Target, GFlowNet]:
    # Made once for all tasks on a space: on a large lattice a new pair takes minutes to check.
    target, pair = _untrained(json.loads(space), exit_bias)
    return target, pair.frozen()


def _untrained(space: Task, exit_bias: float) -> tuple[Target, GFlowNet]:
    target, environment = problem(space)
    forward = MLPPolicy(environment, hidden_size=HIDDEN_SIZE, num_layers=1, seed=SEED)
    if environment.exit_action is not None:
        with torch.no_grad():
            dict(forward.named_parameters())["head_bias"][environment.exit_action] += exit_bias
    return target, GFlowNet(forward)


def law_of(described: list[Any]) -> branch.BranchLaw:
    """Return a branch law from its name and its numbers."""
    name, *numbers = described
    return getattr(branch, name)(*numbers)


def uniform_objects(target: Target, batch: int) -> Tensor:
    """Return objects drawn uniformly."""
    assert target.values is not None
    generator = torch.Generator().manual_seed(SEED)
    shape = (batch, math.prod(target.event_shape))
    return _objects(target, torch.randint(len(target.values), shape, generator=generator))


def log_reward(space: Task, objects: list[list[int]]) -> list[float]:
    """Return log R of objects."""
    target, _ = problem(space)
    return target.log_prob(_objects(target, torch.tensor(objects))).tolist()


def _objects(target: Target, places: Tensor) -> Tensor:
    assert target.values is not None
    return torch.tensor(target.values, dtype=target.dtype)[places].reshape(-1, *target.event_shape)


def _blocks(rows: Tensor, block: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(rows.split(block), torch.empty_like(rows).split(block), strict=True))


def _nothing(x: Tensor) -> Tensor:
    return torch.zeros(len(x), dtype=torch.float64)


def _mean(figures: Iterable[Tensor]) -> float:
    return float(torch.cat(list(figures)).to(torch.float64).mean())


if __name__ == "__main__":
    main()
