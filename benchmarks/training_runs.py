"""The three trainers of benchmarks/training.py, each on one problem, clocked and judged.

The default goes first. Plain on-policy trajectory balance and torchgfn then stop at as many target calls as it used, or
at three times its seconds, whichever comes first.
"""

import json
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_training import PLAIN
from training_judging import Judge, Judgement
from training_problems import Problem, objects_of, value_indices

from gfnmc.targets import HyperGrid, Potts, Target
from gfnmc.targets.base import product_space
from gfnmc.training import TrainingConfig, train

TORCHGFN_BATCH_SIZE = 256
SECONDS_FACTOR = 3.0
TRIAL_STEPS = 20
NUM_TEST_OBJECTS = 256

_TORCHGFN_TRAINER = Path(__file__).with_name("torchgfn_trainer.py")


@dataclass(frozen=True)
class Options:
    """How the trainers are run.

    Attributes:
        num_steps: Most optimiser steps of every trainer, for trying the script out; None for the real thing.
        torchgfn_python: Interpreter that has torchgfn; None leaves that trainer out.
    """

    num_steps: int | None = None
    torchgfn_python: Path | None = None


def run_default(problem: Problem, judge: Judge, seed: int, options: Options) -> Judgement:
    """Train a pair without any options and judge it."""
    config = None if options.num_steps is None else TrainingConfig(num_steps=options.num_steps)
    return _run(problem, judge, config, seed)


def run_plain(problem: Problem, judge: Judge, allowed: Judgement, options: Options) -> Judgement:
    """Train a pair by plain on-policy trajectory balance, within what the default took.

    The number of steps has to be known beforehand, for the step sizes fall towards the end; so a trial clocks a step.
    """
    trial = train(problem.environment, problem.target, config=_plain(TRIAL_STEPS), progress_bar=False)
    by_seconds = int(SECONDS_FACTOR * allowed.seconds * TRIAL_STEPS / trial.cost.seconds)
    by_calls = (allowed.target_calls - PLAIN.check_size) // PLAIN.batch_size
    return _run(problem, judge, _plain(_at_most(options.num_steps, max(1, min(by_calls, by_seconds)))), 0)


def run_torchgfn(problem: Problem, judge: Judge, allowed: Judgement, options: Options) -> Judgement:
    """Train a pair by torchgfn's own trainer in its own interpreter, within what the default took.

    Raises:
        RuntimeError: If it fails, with what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        described, found = Path(folder, "problem.npz"), Path(folder, "result.npz")
        np.savez(described, **describe_problem(problem, judge, allowed, options))
        command = [str(options.torchgfn_python), "-W", "ignore", str(_TORCHGFN_TRAINER), str(described), str(found)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            raise RuntimeError(f"torchgfn_trainer.py failed on {problem.name}:\n{done.stderr[-2_000:]}")
        with np.load(found, allow_pickle=False) as archive:
            result = {name: torch.from_numpy(archive[name]) for name in archive.files}
    made = objects_of(problem.target, result["own_objects"])
    given = problem.target.log_prob(judge.exact_objects)
    return judge.of_weights(
        problem.target.log_prob(made) + result["own_log_backward"] - result["own_log_forward"],
        made,
        given + result["given_log_backward"] - result["given_log_forward"],
        learned_log_z=result["log_z"].item(),
        seconds=result["seconds"].item(),
        target_calls=int(result["target_calls"].item()),
    )


def torchgfn_version(python: Path) -> str:
    """Return the version of torchgfn that an interpreter has.

    Raises:
        SystemExit: If it has none.
    """
    code = "import gfn, importlib.metadata; print(importlib.metadata.version('torchgfn'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise SystemExit(f"{python} cannot import torchgfn:\n{done.stderr[-500:]}")
    return done.stdout.strip()


def describe_problem(problem: Problem, judge: Judge, allowed: Judgement, options: Options) -> dict[str, Any]:
    """Return the arrays that torchgfn_trainer.py reads; objects are rows of indices of values."""
    target = problem.target
    assert target.values is not None
    tested = problem.exact_objects(NUM_TEST_OBJECTS, "tests of the reward")
    energy, arrays = _energy(target)
    description = {
        "kind": "grid" if isinstance(target, HyperGrid) else "tree",
        "num_sites": tested[0].numel(),
        "num_values": len(target.values),
        "energy": energy,
        "seed": 0,
        "batch_size": TORCHGFN_BATCH_SIZE,
        "target_calls": allowed.target_calls,
        "seconds": SECONDS_FACTOR * allowed.seconds,
        "num_steps": options.num_steps,
        "num_own_draws": problem.num_draws,
    }
    return arrays | {
        "description": np.array(json.dumps(description)),
        "test_objects": value_indices(target, tested).numpy(),
        "test_log_prob": target.log_prob(tested).numpy(),
        "given_objects": value_indices(target, judge.exact_objects).numpy(),
    }


def _energy(target: Target) -> tuple[str, dict[str, np.ndarray]]:
    """Return the log-density as data: a table of all objects, or a sum over bonds."""
    bonds = getattr(target, "bonds", None)
    if bonds is None:
        assert target.values is not None
        support = product_space(target.values, target.event_shape, target.dtype)
        return "table", {"log_prob": target.log_prob(support).numpy()}
    if isinstance(target, Potts):
        coupling, on_bond = (
            torch.full((len(bonds),), target.coupling, dtype=torch.float64),
            torch.eye(target.num_states),
        )
    else:
        coupling, on_bond = target.coupling, torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    return "bonds", {"bonds": bonds.numpy(), "coupling": coupling.numpy(), "on_bond": on_bond.double().numpy()}


def _run(problem: Problem, judge: Judge, config: TrainingConfig | None, seed: int) -> Judgement:
    begun = time.perf_counter()
    result = train(problem.environment, problem.target, config=config, seed=seed, progress_bar=False)
    seconds = time.perf_counter() - begun
    return judge.of_pair(result.pair, seconds=seconds, target_calls=result.cost.target_calls)


def _plain(num_steps: int) -> TrainingConfig:
    return replace(PLAIN, num_steps=num_steps, check_every=num_steps)


def _at_most(limit: int | None, number: int) -> int:
    return number if limit is None else min(limit, number)
