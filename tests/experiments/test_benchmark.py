"""A small benchmark from end to end: cells, resumption, budgets, samplers that do not apply."""

import json
from pathlib import Path

import pytest

from gfnmc.core.errors import OptionError, StorageError
from gfnmc.environments import Lattice
from gfnmc.experiments import Problem, leaderboard, run_benchmark
from gfnmc.experiments.benchmark import Plan, slug
from gfnmc.experiments.cell import DISPERSED, ONE_MODE
from gfnmc.experiments.problems import PROBLEMS
from gfnmc.experiments.samplers import DEFAULT, SAMPLERS, find_sampler
from gfnmc.experiments.suites import SUITES, budget_in_words, find_suite
from gfnmc.targets import Ising
from gfnmc.training import TrainingConfig

PROBLEM = Problem(
    name="small",
    description="a 3x3 Ising model",
    target=lambda: Ising((3, 3), coupling=0.5),
    environment=lambda target: Lattice.for_target(target, order="fixed"),
    training=TrainingConfig(num_steps=30, seeding="none", hidden_size=16),
)
PLAN = Plan(num_chains=16, num_samples=40, num_warmup=10, seconds=1.0)
NAMES = (DEFAULT, "random walk", "Swendsen-Wang", "discrete Langevin")


def run(out: Path, *, names: tuple[str, ...] = NAMES, plan: Plan = PLAN, seeds: int = 1) -> tuple[list, list[str]]:
    """Run the small benchmark; the cells, and the lines it said."""
    lines: list[str] = []
    samplers = [find_sampler(name) for name in names]
    cells = run_benchmark([PROBLEM], samplers, out, plan=plan, seeds=range(seeds), report=lines.append)
    return cells, lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list, list[str]]:
    out = tmp_path_factory.mktemp("bench")
    return out, *run(out)


def test_every_sampler_has_a_cell_for_each_start(finished: tuple[Path, list, list[str]]) -> None:
    _, cells, lines = finished
    assert [(cell["sampler"], cell["start"]) for cell in cells] == [
        (name, start) for start in (ONE_MODE, DISPERSED) for name in NAMES
    ]
    assert len(lines) == len(cells)
    assert all(cell["result"] is not None for cell in cells)
    assert lines[0].startswith("small, default cycle, one mode, seed 0: ")
    learned, walk = cells[0]["result"], cells[1]["result"]
    assert learned["calls"]["training"] > 0 and walk["calls"]["training"] == 0.0
    assert walk["calls"]["sampling"] <= sum(learned["calls"].values())


def test_a_finished_run_runs_nothing_again(finished: tuple[Path, list, list[str]]) -> None:
    out, cells, _ = finished
    again, lines = run(out)
    assert lines == []
    assert again == json.loads(json.dumps(cells))
    (out / "small" / "random-walk,one-mode,seed0.json").unlink()
    again, lines = run(out)
    assert [line.split(": ")[0] for line in lines] == ["small, random walk, one mode, seed 0"]


def test_one_folder_has_one_plan(finished: tuple[Path, list, list[str]]) -> None:
    out, _, _ = finished
    with pytest.raises(OptionError, match=r"other settings \(num_samples\)"):
        run(out, plan=Plan(num_chains=16, num_samples=41, num_warmup=10, seconds=1.0))


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    run(tmp_path, names=("random walk",), plan=Plan(num_chains=4, num_samples=8, budget=400.0, seconds=1.0))
    path = tmp_path / "small" / "random-walk,one-mode,seed0.json"
    path.write_text("{")
    with pytest.raises(StorageError, match=r"seed0\.json"):
        run(tmp_path, names=("random walk",), plan=Plan(num_chains=4, num_samples=8, budget=400.0, seconds=1.0))


def test_without_the_default_cycle_a_budget_is_needed(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="sets the budget"):
        run(tmp_path, names=("random walk",))


def test_the_leaderboard_of_a_run(finished: tuple[Path, list, list[str]]) -> None:
    _, cells, _ = finished
    document = leaderboard(cells, suite="small", budget="the same", num_chains=16, command=None)
    json.dumps(document, allow_nan=False)
    (target,) = document["targets"]
    assert {row["sampler"] for row in target["rows"]} == set(NAMES)
    assert all(row["num_cells"] == 2 for row in target["rows"])
    assert target["num_states"] == 512 and target["num_modes"] == 2
    assert target["prices"]["delta"] > 0.0


def test_what_does_not_apply_says_why(tmp_path: Path) -> None:
    grid = PROBLEMS["hypergrid-8x8x8x8"]
    plan = Plan(num_chains=4, num_samples=8, budget=400.0, seconds=1.0)
    lines: list[str] = []
    options = {"plan": plan, "seeds": [0], "starts": [ONE_MODE], "report": lines.append}
    cells = run_benchmark([grid], [find_sampler("wolff")], tmp_path, **options)
    assert cells[0]["result"] is None and cells[0]["reason"]
    assert "not run: " in lines[0]


def test_suites_name_what_there_is() -> None:
    for suite in SUITES.values():
        assert set(suite.targets) <= set(PROBLEMS)
        assert set(suite.samplers) <= set(SAMPLERS)
        assert DEFAULT in suite.samplers
    assert find_suite("quick").num_seeds == 2
    assert find_suite("multimodal").num_seeds == 5
    with pytest.raises(OptionError, match="the suites are"):
        find_suite("slow")
    with pytest.raises(OptionError, match="did you mean Gibbs"):
        find_sampler("gibs")


def test_budgets_in_words_and_plans_that_cannot_work() -> None:
    assert budget_in_words(Plan(seconds=5.0)) == (
        "as many target calls as the default cycle spent, training included, and at most 5 s of sampling"
    )
    assert "1,000 target calls" in budget_in_words(Plan(budget=1_000.0))
    with pytest.raises(OptionError, match="num_chains is 1"):
        Plan(num_chains=1)
    with pytest.raises(OptionError, match="seconds is -1"):
        Plan(seconds=-1.0)


def test_names_of_files() -> None:
    assert slug("examples/custom_model.py:model") == "examples-custom_model.py-model"
    assert slug("..") == "unnamed"
