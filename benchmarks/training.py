"""The table of training: what `gfnmc.train(environment, target, seed=0)` reaches without options, and what others do.

    python benchmarks/training.py --torchgfn-python torchgfn-venv/bin/python --json benchmarks/results/training.json
    python benchmarks/training.py --targets klf1,potts --seeds 5 --no-baselines

Beside each line of the default stand plain on-policy trajectory balance and torchgfn's own trainer, each at as many
target calls or three times the seconds, whichever comes first. All lattices and sequences are filled in row-major
order, a tree with one path an object; hypergrids are climbed. Everything runs on one thread. benchmarks/README.md says
what the figures mean and how to make the interpreter that has torchgfn.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import training_judging as judging
from plain_training import PLAIN
from training_judging import Judge, Judgement
from training_problems import PROBLEMS, Problem
from training_report import Document, Row, header, missing_line, rows_of, rows_of_seeds, seed_lines, table_line
from training_runs import (
    SECONDS_FACTOR,
    TORCHGFN_BATCH_SIZE,
    Options,
    run_default,
    run_plain,
    run_torchgfn,
    torchgfn_version,
)

from gfnmc.core.storage import check_writable
from gfnmc.training import TrainingConfig

TORCHGFN_HINT = (
    "torchgfn is not run. It needs an interpreter of its own, for it wants numpy < 2:\n"
    "    python -m venv torchgfn-venv && torchgfn-venv/bin/pip install torch==2.13.0 torchgfn==2.4.1\n"
    "    python benchmarks/training.py --torchgfn-python torchgfn-venv/bin/python"
)


def main() -> None:
    """Run the trainers on the targets, print the table and write the rows."""
    asked = _parse()
    torch.set_num_threads(1)
    versions = {}
    if asked.torchgfn_python is not None:
        versions["torchgfn"] = torchgfn_version(asked.torchgfn_python)
    elif not asked.no_baselines:
        print(TORCHGFN_HINT, flush=True)
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        check_writable(asked.json)
    titles = [problem.title for problem in PROBLEMS.values()]
    document = Document(asked.json, titles, _settings(asked.num_steps), versions)
    options = Options(asked.num_steps, asked.torchgfn_python)
    print(header(), flush=True)
    for name in asked.targets:
        problem = PROBLEMS[name]
        document.put(problem.title, _run(problem, asked.seeds, options, with_baselines=not asked.no_baselines))


def _run(problem: Problem, num_seeds: int, options: Options, *, with_baselines: bool) -> list[Row]:
    """Run one target, print its lines and return its rows."""
    judge = Judge(problem)
    first = run_default(problem, judge, 0, options)
    rows = _shown(judge, "default", first, is_asked=True)
    if with_baselines:
        for trainer, judgement in _baselines(problem, judge, first, options):
            if judgement is None:
                print(missing_line(problem.title, trainer, "not run"), flush=True)
            else:
                rows += _shown(judge, trainer, judgement, is_asked=False)
    judgements = [first]
    for seed in range(1, num_seeds):
        judgements.append(run_default(problem, judge, seed, options))
        print(table_line(judge, f"default, seed {seed}", judgements[-1], is_asked=True), flush=True)
    if num_seeds > 1:
        rows += rows_of_seeds(judge, judgements)
        print(*seed_lines(judge, judgements), sep="\n", flush=True)
    return rows


def _baselines(
    problem: Problem, judge: Judge, allowed: Judgement, options: Options
) -> Iterator[tuple[str, Judgement | None]]:
    yield "plain TB", run_plain(problem, judge, allowed, options)
    yield "torchgfn", None if options.torchgfn_python is None else run_torchgfn(problem, judge, allowed, options)


def _shown(judge: Judge, trainer: str, judgement: Judgement, *, is_asked: bool) -> list[Row]:
    print(table_line(judge, trainer, judgement, is_asked=is_asked), flush=True)
    return rows_of(judge, trainer, judgement, is_asked=is_asked)


def _settings(num_steps: int | None) -> dict[str, Any]:
    """Return what the figures depend on, besides the code."""
    return {
        "num_steps": num_steps,
        "default": TrainingConfig().to_dict(),
        "plain TB": PLAIN.to_dict() | {"num_steps": "by target calls and seconds", "check_every": "the last step"},
        "torchgfn": {"loop": "train_hypergrid_simple.py", "batch_size": TORCHGFN_BATCH_SIZE},
        "baseline_seconds_factor": SECONDS_FACTOR,
        "num_threads": 1,
        "draws": {problem.name: problem.num_draws for problem in PROBLEMS.values()},
        "half": {problem.name: _plain_data(problem.half) for problem in PROBLEMS.values()},
        "judging": {
            "exact_objects": judging.NUM_EXACT,
            "acceptance_chains": judging.ACCEPTANCE_CHAINS,
            "acceptance_steps": judging.ACCEPTANCE_STEPS,
            "overlap_chains": judging.OVERLAP_CHAINS,
            "overlap_steps": judging.OVERLAP_STEPS,
            "overlap_band_quantile": judging.OVERLAP_QUANTILE,
        },
    }


def _plain_data(law: Any) -> str:
    named = ", ".join(f"{name}={value}" for name, value in dataclasses.asdict(law).items())
    return f"{type(law).__name__}({named})"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--targets", type=_targets, default=list(PROBLEMS), help=f"of {', '.join(PROBLEMS)}; all by default"
    )
    parser.add_argument(
        "--seeds", type=_positive, default=1, help="seeds of the default trainer; the table shows seed 0"
    )
    parser.add_argument("--json", type=Path, help="file for the rows, written after each target")
    parser.add_argument("--torchgfn-python", type=Path, help="an interpreter that has torchgfn")
    parser.add_argument("--no-baselines", action="store_true", help="run the default trainer only")
    parser.add_argument(
        "--num-steps",
        type=_positive,
        help="most steps of every trainer, for trying the script out; the figures mean nothing",
    )
    return parser.parse_args()


def _targets(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in PROBLEMS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no target {unknown[0]!r}; choose of {', '.join(PROBLEMS)}")
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


if __name__ == "__main__":
    main()
