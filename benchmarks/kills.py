"""kill -9 at random moments, of sampling and training: are the draws and the pair those of a run that was not killed?

    python benchmarks/kills.py --kills 100 --json kills.json

Each run is killed once, at a moment drawn uniformly over the time that a whole run takes, and then gone on with to its
end; one that was killed before it had stored anything begins again. What is compared is a digest of all draws, their
log-densities and what the kernel said, or of the weights of the pair. The digest of another seed must differ.
"""

import argparse
import hashlib
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs  # noqa: F401 - loaded before children are forked
import safetensors.torch  # noqa: F401 - the same
import torch
import zarr  # noqa: F401 - the same
from provenance import provenance

from gfnmc.environments import Direction, HyperGrid
from gfnmc.kernels import Cycle, ParallelTempering, RandomWalk, SuffixResampling
from gfnmc.policies import GFlowNet, UniformPolicy
from gfnmc.sampling import Store, open_run, resume, sample
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.training import TrainingConfig, resume_training, save_pair, train
from gfnmc.training.checkpoints import load_pair
from gfnmc.training.run import Run

TARGET = HyperGridTarget(2, 8)
ENVIRONMENT = HyperGrid.for_target(TARGET)
PAIR = GFlowNet(UniformPolicy(ENVIRONMENT, Direction.FORWARD), UniformPolicy(ENVIRONMENT, Direction.BACKWARD))
KERNEL = Cycle([SuffixResampling(PAIR, TARGET), ParallelTempering(RandomWalk(ENVIRONMENT, TARGET), (1.0, 0.5, 0.0))])
CONFIG = TrainingConfig(
    num_steps=16,
    batch_size=8,
    hidden_size=8,
    checkpoint_every=1,
    check_size=32,
    seed_chains=8,
    seed_warmup=8,
    seed_batch_size=8,
    replay_batch_size=8,
)
QUIET: dict[str, Any] = {"progress_bar": False}


def go_on_sampling(path: Path, seed: int = 0) -> None:
    """Begin a stored run of chains, or go on with it."""
    if (path / "commit.json").exists():
        resume(path, KERNEL, **QUIET)
    else:
        store = Store(path, block_size=5)
        sample(KERNEL, num_chains=8, num_samples=60, num_warmup=10, seed=seed, store=store, **QUIET)


def digest_of_draws(path: Path) -> str:
    """Return a digest of everything in a run but its clocks."""
    chains, found = open_run(path, TARGET), hashlib.sha256()
    for record in (chains.warmup, chains.samples):
        for name, value in {"x": record.position, "lp": record.log_prob, **record.stats}.items():
            found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def go_on_training(path: Path, seed: int = 0) -> None:
    """Begin a training run with a checkpoint, or go on with it, and save the pair."""
    path.mkdir(exist_ok=True)
    checkpoint = path / "checkpoint"
    if checkpoint.exists():
        result = resume_training(checkpoint, ENVIRONMENT, TARGET, **QUIET)
    else:
        result = train(ENVIRONMENT, TARGET, config=CONFIG, seed=seed, checkpoint=checkpoint, **QUIET)
    save_pair(result.pair, path / "pair")


def digest_of_pair(path: Path) -> str:
    """Return a digest of the weights of a trained pair."""
    pair, found = load_pair(path / "pair", ENVIRONMENT), hashlib.sha256()
    for policy in (pair.forward, pair.backward):
        for name, value in policy.state_dict().items():
            found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def warm_up() -> None:
    """Load, before children are forked, what is loaded when first used; the gradients of autograd do not like forks."""
    sample(KERNEL, num_chains=2, num_samples=2, num_warmup=0, **QUIET)
    run = Run(ENVIRONMENT, TARGET, CONFIG, None, None, 0)
    run.begin()
    run.judge.look(0, run.sources.seeds)
    run.snapshot()


def killed_runs(
    what: str, go_on: Callable[..., None], digest: Callable[[Path], str], num_kills: int, seed: int
) -> dict[str, Any]:
    """Kill runs at random moments, go on with each, and count how many end as a run that was not killed."""
    rng = random.Random(seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        whole, other = Path(folder) / "whole", Path(folder) / "other"
        in_child(go_on, whole)
        begun = time.perf_counter()
        in_child(go_on, other, 1)
        seconds = time.perf_counter() - begun
        wanted = digest(whole)
        same, struck = 0, 0
        for number in range(num_kills):
            path = Path(folder) / str(number)
            struck += in_child(go_on, path, kill_after=rng.uniform(0.0, seconds))
            in_child(go_on, path)
            same += digest(path) == wanted
        return {
            "what": what,
            "runs": num_kills,
            "killed in the middle": struck,
            "same digest": same,
            "another seed differs": digest(other) != wanted,
            "seconds of a run": round(seconds, 2),
        }


def in_child(go_on: Callable[..., None], *given: Any, kill_after: float | None = None) -> bool:
    """Run in a child process, killed after some seconds if it is still there; return whether it was killed.

    Raises:
        RuntimeError: If it failed by itself.
    """
    child = os.fork()
    if child == 0:
        try:
            go_on(*given)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise RuntimeError("a run failed by itself")
    return os.WIFSIGNALED(status)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="runs of each kind")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # That so short a training makes a poor pair is no news.
    logging.getLogger("gfnmc").setLevel(logging.ERROR)
    warm_up()
    rows = []
    for what, go_on, digest in (
        ("sample", go_on_sampling, digest_of_draws),
        ("train", go_on_training, digest_of_pair),
    ):
        rows.append(killed_runs(what, go_on, digest, options.kills, options.seed))
        print(json.dumps(rows[-1]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({**provenance(), "rows": rows}, indent=2) + "\n", encoding="utf-8")
    is_right = all(row["same digest"] == row["runs"] and row["another seed differs"] for row in rows)
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
