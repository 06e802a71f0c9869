"""Run a suite: every sampler on every target, cell by cell, each cell a file, so that a run goes on where it stopped.

    DIR/settings.json                     what all cells share
    DIR/<target>/prices.json              what differences and gradients cost
    DIR/<target>/seed<k>.safetensors      the pair of a seed, trained once for all samplers that propose with it
    DIR/<target>/<sampler>,<start>,seed<k>.json     a cell; names as `slug` writes them

Delete a file to have it made again.
"""

import json
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gfnmc.core.errors import CapabilityError, GfnmcError, OptionError, StorageError
from gfnmc.core.storage import write_atomically
from gfnmc.environments import DiscreteEnvironment
from gfnmc.experiments.cell import DISPERSED, ONE_MODE, Limits, run_cell, starts
from gfnmc.experiments.pricing import Prices, measure_prices
from gfnmc.experiments.problems import Problem
from gfnmc.experiments.samplers import DEFAULT, Sampler, Setting
from gfnmc.policies import GFlowNet
from gfnmc.targets import Target
from gfnmc.training import load_pair, save_pair, train

SCHEMA = "gfnmc.cell/1"

_log = logging.getLogger("gfnmc")


@dataclass(frozen=True)
class Plan:
    """What a benchmark runs. All cells of a folder share these settings.

    Attributes:
        num_chains: Chains of each sampler.
        num_samples: Kept draws a chain of the default cycle.
        num_warmup: Steps before the first kept draw.
        budget: Priced target calls of every sampler, training included; None for what the default cycle spends.
        seconds: Most seconds of sampling of every other sampler in a cell; None for what the default cycle spends,
            training included.
        training_steps: Training steps of each pair; None for what is set with the target.
    """

    num_chains: int = 256
    num_samples: int = 1_000
    num_warmup: int = 100
    budget: float | None = None
    seconds: float | None = None
    training_steps: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("num_chains", 2), ("num_samples", 4), ("num_warmup", 0)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("budget", "seconds", "training_steps"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be positive, or None")


def run_benchmark(
    problems: Sequence[Problem],
    samplers: Sequence[Sampler],
    out: Path,
    *,
    plan: Plan,
    seeds: Sequence[int],
    starts: Sequence[str] = (ONE_MODE, DISPERSED),
    num_threads: int | None = 1,
    report: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Run every cell that has no file yet, and return all cells.

    Args:
        problems: The targets.
        samplers: The samplers, the default cycle among them where the plan has no budget.
        out: Folder of the run; made if it is not there.
        plan: What all cells share.
        seeds: Seeds of training and chains.
        starts: `ONE_MODE`, `DISPERSED` or both. A target whose modes are not known has dispersed starts only.
        num_threads: Torch threads; None leaves torch's setting alone.
        report: Called with a line for each finished cell.

    Raises:
        OptionError: If the folder holds cells of another plan, or nothing sets the budget.
        StorageError: If the folder cannot be written.
    """
    if plan.budget is None and all(sampler.name != DEFAULT for sampler in samplers):
        raise OptionError(f"{DEFAULT!r} sets the budget of the others; name it too, or give a budget of target calls")
    _open(out, plan)
    ordered = sorted(samplers, key=lambda sampler: sampler.name != DEFAULT)
    cells = []
    for problem in problems:
        bench = _Bench(problem, out / slug(problem.name), plan, num_threads)
        kinds = [start for start in starts if start == DISPERSED or bench.target.modes() is not None] or [DISPERSED]
        for seed in seeds:
            for start in kinds:
                for sampler in ordered:
                    cell, is_new = bench.cell(sampler, start, seed)
                    cells.append(cell)
                    if is_new:
                        report(cell_line(cell))
    return cells


def slug(name: str) -> str:
    """Return a name as part of a file's path."""
    return re.sub(r"[^A-Za-z0-9._,-]+", "-", name).strip("-.") or "unnamed"


def cell_line(cell: dict[str, Any]) -> str:
    """Return what to print of a finished cell."""
    head = f"{cell['target']}, {cell['sampler']}, {cell['start']}, seed {cell['seed']}: "
    if cell["result"] is None:
        return head + f"not run: {cell['reason']}"
    result = cell["result"]
    figures = result["figures"]
    modes = f"{figures['modes_found']} of {len(figures['modes'])} modes, " if figures["modes"] else ""
    ess = figures["worst"]["ess_bulk"]
    worth = "never moved" if ess is None else f"ESS {ess:,.0f}"
    seconds = result["seconds"]["sampling"]
    return head + f"{figures['status']}, {modes}{worth}, {result['calls']['sampling']:,.0f} calls in {seconds:.1f} s"


class _Bench:
    """One target with all that its cells share."""

    def __init__(self, problem: Problem, folder: Path, plan: Plan, num_threads: int | None) -> None:
        self.problem = problem
        self.folder = folder
        self.plan = plan
        self.num_threads = num_threads
        self._pairs: dict[int, GFlowNet] = {}

    @cached_property
    def target(self) -> Target:
        return self.problem.target()

    @cached_property
    def environment(self) -> DiscreteEnvironment:
        return self.problem.environment(self.target)

    @cached_property
    def prices(self) -> Prices:
        path = self.folder / "prices.json"
        if path.exists():
            return Prices(**_read(path))
        objects = starts(self.target, self.environment, DISPERSED, self.plan.num_chains, 0)
        prices = measure_prices(self.target, objects, num_threads=self.num_threads)
        _write(path, asdict(prices))
        return prices

    def cell(self, sampler: Sampler, start: str, seed: int) -> tuple[dict[str, Any], bool]:
        """Return a cell, and whether it was run just now."""
        path = self.folder / f"{slug(sampler.name)},{slug(start)},seed{seed}.json"
        if path.exists():
            return _read(path), False
        cell = {
            "schema": SCHEMA,
            "target": self.problem.name,
            "description": self.problem.description,
            "sampler": sampler.name,
            "kind": sampler.kind,
            "start": start,
            "seed": seed,
            "prices": asdict(self.prices),
            "facts": self._facts(),
            "result": None,
            "reason": None,
        }
        try:
            cell["result"] = self._run(sampler, start, seed)
        except CapabilityError as error:
            cell["reason"] = str(error)
        except GfnmcError as error:
            # One sampler that fails should not take the others down; its cell is not kept, so it is tried again.
            return cell | {"reason": f"failed: {error}"}, True
        _write(path, cell)
        return cell, True

    def _run(self, sampler: Sampler, start: str, seed: int) -> dict[str, Any]:
        pair = self._pair(seed) if sampler.kind == "learned" else None
        kernel = sampler.make(Setting(self.environment, self.target, pair, self.problem.branch, seed))
        return run_cell(
            sampler.name,
            kernel,
            self.prices,
            self._limits(sampler, start, seed),
            start=start,
            num_chains=self.plan.num_chains,
            num_warmup=self.plan.num_warmup,
            seed=seed,
            num_threads=self.num_threads,
        )

    def _limits(self, sampler: Sampler, start: str, seed: int) -> Limits:
        plan = self.plan
        if sampler.name == DEFAULT and plan.budget is None:
            return Limits(plan.num_samples, None, math.inf)
        calls, seconds = plan.budget, plan.seconds
        if calls is None or seconds is None:
            spent = _read(self.folder / f"{slug(DEFAULT)},{slug(start)},seed{seed}.json")["result"]
            calls = sum(spent["calls"].values()) if calls is None else calls
            seconds = sum(spent["seconds"].values()) if seconds is None else seconds
        return Limits(plan.num_samples, calls, seconds)

    def _pair(self, seed: int) -> GFlowNet:
        if seed not in self._pairs:
            path = self.folder / f"seed{seed}.safetensors"
            if not path.exists():
                _log.info("training a pair for %s, seed %d", self.problem.name, seed)
                config = self.problem.training
                if self.plan.training_steps is not None:
                    config = replace(config, num_steps=self.plan.training_steps)
                trained = train(
                    self.environment,
                    self.target,
                    config=config,
                    seed=seed,
                    num_threads=self.num_threads,
                    progress_bar=False,
                )
                save_pair(trained.pair, path)
            self._pairs[seed] = load_pair(path, self.environment)
        return self._pairs[seed]

    def _facts(self) -> dict[str, Any]:
        exact, modes = self.target.exact(), self.target.modes()
        return {
            "log_z": None if exact is None else exact.log_z,
            "num_states": None if exact is None or exact.support is None else len(exact.support),
            "num_modes": 0 if modes is None else len(modes),
        }


def _open(out: Path, plan: Plan) -> None:
    """Make the folder, or hold it to the plan that its cells were run with."""
    path = out / "settings.json"
    if path.exists():
        # What an earlier version did not write has its default.
        found = asdict(Plan()) | _read(path)
        if found != asdict(plan):
            changed = ", ".join(name for name, value in asdict(plan).items() if found.get(name) != value)
            raise OptionError(
                f"{out} holds cells that were run with other settings ({changed}); give another folder, or the same "
                "settings to go on"
            )
    else:
        _write(path, asdict(plan))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
        return found
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is not the JSON file that was written here; delete it to have it made again") from (
            error
        )


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {path.parent}: {error.strerror or error}") from error
    write_atomically(path, json.dumps(content, allow_nan=False).encode())
