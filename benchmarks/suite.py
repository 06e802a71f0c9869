"""Run the quick suite and write what it must show as rows: work, value, required, holds.

    python benchmarks/suite.py --out runs/quick --json benchmarks/results/suite.json

The folder is that of `gfnmc benchmark --suite quick --out runs/quick`: cells that are there are not run again. The
leaderboard is written there and, beside the summary, into a folder `quick`. Under an hour on two cores.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provenance import commit, provenance

from gfnmc.experiments import find_problem, leaderboard, run_benchmark
from gfnmc.experiments.document import versions
from gfnmc.experiments.samplers import DEFAULT, find_sampler
from gfnmc.experiments.suites import budget_in_words, find_suite
from gfnmc.report.leaderboard import save_leaderboard

REQUIRED_TARGETS = ("hypergrid-8x8x8x8-1e-5", "tfbind-klf1", "tfbind-wt1", "potts-6x6", "ising-8x8-0.6")
LEAST_RATIO = 30.0
LEAST_ESS = 1_000.0
MOST_BREAK_EVEN = 1_000.0
MOST_STANDARD_ERRORS = 3.0
MOST_FLOORS = 1.3
# The others draw a whole coordinate or several sites anew, which on a grid steps over the desert between the modes.
SINGLE_CHANGES = ("random walk", "locally balanced")


def main() -> None:
    """Run what is missing and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--json", type=Path, required=True, help="summary to write")
    options = parser.parse_args()
    suite = find_suite("quick")
    begun = time.perf_counter()
    cells = run_benchmark(
        [find_problem(name) for name in suite.targets],
        [find_sampler(name) for name in suite.samplers],
        options.out,
        plan=suite.plan,
        seeds=range(suite.num_seeds),
        starts=suite.starts,
        report=lambda line: print(line, flush=True),
    )
    document = leaderboard(
        cells,
        suite=suite.name,
        budget=budget_in_words(suite.plan),
        num_chains=suite.plan.num_chains,
        command="gfnmc benchmark --suite quick",
        commit=commit(),
    )
    kept = options.json.parent / suite.name
    kept.mkdir(parents=True, exist_ok=True)
    for folder in (options.out, kept):
        save_leaderboard(document, folder)
    rows = [row for target in document["targets"] if target["name"] in REQUIRED_TARGETS for row in required(target)]
    summary = {
        **provenance(),
        "date": document["created_at"],
        "versions": versions(),
        "minutes_of_this_call": round((time.perf_counter() - begun) / 60.0, 1),
        "rows": rows,
    }
    options.json.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    for row in rows:
        said = {True: "holds ", False: "MISSED", None: "      "}[row["holds"]]
        print(f"{said}  {row['work']}: {row['value']} (required: {row['required']})")


def required(target: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that a leaderboard's target must show."""
    lead = next(row for row in target["rows"] if row["sampler"] == DEFAULT)
    local = [row for row in target["rows"] if row["kind"] == "local" and row["status"] != "not run"]
    rows = [
        _row(
            f"{target['name']}: mode switches per {per}, {DEFAULT} over best local baseline, sampling alone",
            _ratio(lead, local, key),
            f">= {LEAST_RATIO:g}",
            lambda value: value >= LEAST_RATIO,
        )
        for key, per in (("switches_per_million_calls", "target call"), ("switches_per_second", "second"))
    ]
    single = [row for row in local if row["sampler"] in SINGLE_CHANGES]
    for key, per in (("switches_per_million_calls", "target call"), ("switches_per_second", "second")):
        work = f"{target['name']}: the same per {per}, over the best baseline that makes single changes"
        rows.append({"work": work, "value": _shown(_ratio(lead, single, key)), "required": None, "holds": None})
    rows.append(
        _row(
            f"{target['name']}: effective samples of the worst mode indicator, worst cell",
            lead["worst_mode_ess"],
            f">= {LEAST_ESS:,.0f}",
            lambda value: value >= LEAST_ESS,
        )
    )
    rows += [
        _row(
            f"{target['name']}: effective samples until training has paid, in {cost}",
            None if target["break_even"][cost] is None else target["break_even"][cost]["samples"],
            f"<= {MOST_BREAK_EVEN:,.0f}",
            lambda value: value <= MOST_BREAK_EVEN,
        )
        for cost in ("calls", "seconds")
    ]
    error, distance = lead["largest_error"], lead["total_variation"]
    rows.append(
        _row(
            f"{target['name']}: largest error of a named statistic or mode mass, in standard errors",
            None if error is None else error["standard_errors"],
            f"<= {MOST_STANDARD_ERRORS:g}",
            lambda value: value <= MOST_STANDARD_ERRORS,
        )
    )
    if target["num_states"] is not None:
        rows.append(
            _row(
                f"{target['name']}: total variation over that of as many independent draws as the worst statistic is "
                "worth, worst cell",
                None if distance is None else distance["value"] / distance["iid_floor"],
                f"<= {MOST_FLOORS:g}",
                lambda value: value <= MOST_FLOORS,
            )
        )
    return rows


def _ratio(lead: Mapping[str, Any], local: list[dict[str, Any]], key: str) -> float | None:
    rates = [row[key]["value"] for row in local if row[key] is not None]
    return lead[key]["value"] / max(rates) if rates and lead[key] is not None and not lead[key]["is_bound"] else None


def _row(work: str, value: float | None, wanted: str, holds: Any) -> dict[str, Any]:
    holds_true = value is not None and bool(holds(value))
    return {"work": work, "value": _shown(value), "required": wanted, "holds": holds_true}


def _shown(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


if __name__ == "__main__":
    main()
