"""What training recorded goes with the pair, through files and kernels, into the document and the page."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gfnmc.environments import Direction, Lattice
from gfnmc.experiments import Comparison, compare
from gfnmc.experiments.training_figures import training_figures
from gfnmc.kernels import Cycle, IndependenceMH, Kernel, ParallelTempering, RandomWalk, SuffixResampling
from gfnmc.policies import GFlowNet, UniformPolicy
from gfnmc.report import render
from gfnmc.targets import Ising, TemperedFamily
from gfnmc.training import TrainingConfig, load_pair, save_pair, train

TARGET = Ising((4, 4), coupling=1.0)
ENVIRONMENT = Lattice.for_target(TARGET, order="fixed")
GROUND_STATES = torch.ones(2, 4, 4, dtype=torch.int8) * torch.tensor([1, -1], dtype=torch.int8)[:, None, None]
FEW = TrainingConfig(
    num_steps=6, batch_size=8, seeding="none", replay_batch_size=0, hidden_size=8, check_every=2, check_size=16
)


@pytest.fixture(scope="module")
def collapsed() -> GFlowNet:
    """Return a pair that after a few steps hardly ever makes what the target is made of."""
    return train(ENVIRONMENT, TARGET, config=FEW, objects=GROUND_STATES, seed=4, progress_bar=False).pair


def _comparison(**kernels: Kernel) -> Comparison:
    return compare(kernels, TARGET, num_chains=4, num_samples=5, num_warmup=1, progress_bar=False)


def _report(pair: GFlowNet) -> dict[str, Any]:
    assert pair.training_report is not None
    return pair.training_report


def test_a_trained_pair_carries_a_report_of_plain_data(collapsed: GFlowNet) -> None:
    report = _report(collapsed)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["target"], report["seed"], report["num_steps"]) == ("ising-4x4", 4, 6)
    assert report["config"] == FEW.to_dict()
    assert not report["is_stopped_early"]
    assert [look["step"] for look in report["qualities"]] == [2, 4, 6]
    assert {"step": 6} | report["quality"] == report["qualities"][-1]
    assert report["quality"]["warning"].startswith("the pair has collapsed")


def test_a_run_that_ends_early_says_so() -> None:
    config = TrainingConfig.from_dict(FEW.to_dict() | {"stop_at_acceptance": 1e-9, "reward_schedule": "fixed"})
    report = _report(train(ENVIRONMENT, TARGET, config=config, progress_bar=False).pair)
    assert report["is_stopped_early"]
    assert report["num_steps"] == 4


def test_the_report_goes_through_files_and_kernels(collapsed: GFlowNet, tmp_path: Path) -> None:
    save_pair(collapsed, tmp_path / "pair")
    loaded = load_pair(tmp_path / "pair", ENVIRONMENT)
    assert loaded.training_report == collapsed.training_report
    assert loaded.frozen().training_report == collapsed.training_report
    assert SuffixResampling(loaded, TARGET).pair.training_report == collapsed.training_report  # type: ignore[attr-defined]
    save_pair(GFlowNet(UniformPolicy(ENVIRONMENT, Direction.FORWARD)), tmp_path / "untrained")
    assert load_pair(tmp_path / "untrained", ENVIRONMENT).training_report is None


def test_a_collapsed_pair_is_warned_of_in_document_verdict_and_page(collapsed: GFlowNet) -> None:
    walk = RandomWalk(ENVIRONMENT, TARGET)
    found = _comparison(hybrid=Cycle([walk, SuffixResampling(collapsed, TARGET)]), walk=walk)
    hybrid, alone = found.document["samplers"]
    assert alone["training"] is None
    assert hybrid["training"]["quality"] == _report(collapsed)["quality"]
    assert hybrid["training"]["target_calls"] == collapsed.training_cost.target_calls
    assert hybrid["training"]["curves"]["quality"]["step"] == [2, 4, 6]
    assert hybrid["training"]["curves"]["loss"]["step"] == [0, 5]
    warning = hybrid["training"]["quality"]["warning"]
    assert f"hybrid: training ended with a warning: {warning}." in found.document["verdict"]
    assert json.loads(json.dumps(found.document, allow_nan=False)) == found.document
    page = render(found.document)
    assert page.count("the pair has collapsed") == 4  # the verdict, the section on training, and both in the data
    assert '<p class="warning">hybrid: the pair has collapsed' in page


def test_a_pair_without_a_report_has_no_section(collapsed: GFlowNet) -> None:
    untrained = GFlowNet(UniformPolicy(ENVIRONMENT, Direction.FORWARD))
    document = _comparison(restarts=IndependenceMH(untrained, TARGET)).document
    assert document["samplers"][0]["training"] is None
    assert "<h2>Training</h2>" not in render(document)
    # Negative control: with a report there is one.
    trained = _comparison(restarts=IndependenceMH(collapsed, TARGET)).document
    assert "<h2>Training</h2>" in render(trained)


def test_the_figures_are_copies(collapsed: GFlowNet) -> None:
    report = json.loads(json.dumps(_report(collapsed)))
    figures = training_figures(report, collapsed.training_cost)
    before = json.dumps(figures)
    report["quality"]["warning"] = None
    report["history"]["loss"].append(0.0)
    report["config"]["num_steps"] = 1
    assert json.dumps(figures) == before


def test_the_pair_of_tempered_replicas_is_found() -> None:
    family = TemperedFamily(TARGET, 0.2)
    pair = train(ENVIRONMENT, family, config=FEW, progress_bar=False).pair
    assert pair.given(torch.ones(1, dtype=torch.float64)).training_report == pair.training_report
    tempered = ParallelTempering(SuffixResampling(pair, TARGET), (1.0, 0.5))
    found = _comparison(tempered=tempered)
    training = found.document["samplers"][0]["training"]
    assert training["target"] == "tempered ising-4x4"
    assert training["quality"]["label"] == "conditional on the modes visited"
    render(found.document)
