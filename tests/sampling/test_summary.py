"""What chains say of themselves: one line, and a block for notebooks, of what is known already."""

from dataclasses import replace

import pytest
import torch

from gfnmc.environments import HyperGrid
from gfnmc.kernels import Cycle, RandomWalk, SuffixResampling
from gfnmc.sampling import Chains, sample
from gfnmc.targets import HyperGrid as HyperGridTarget
from tests.support import random_pair

TARGET = HyperGridTarget(2, 4)


@pytest.fixture
def chains() -> Chains:
    grid = HyperGrid(2, 4)
    kernel = Cycle([SuffixResampling(random_pair(grid), TARGET), RandomWalk(grid, TARGET)])
    return sample(kernel, num_chains=3, num_samples=1_000, num_warmup=5, seed=7, progress_bar=False)


def test_the_line_says_what_was_sampled_how_and_how_much(chains: Chains) -> None:
    assert repr(chains) == "Chains(suffix resampling + random walk on hypergrid-2d-4, 3 chains x 1,000 draws)"


def test_the_block_says_what_it_cost_and_how_much_was_accepted(chains: Chains) -> None:
    block = chains._repr_html_()
    rate = float(chains.samples.stats["acceptance_rate"].mean())
    for words in (f"{rate:.3g}", "(random walk)", f"{chains.sampling_cost.target_calls:,} target calls", "5 steps"):
        assert words in block
    assert "<td>7</td>" in block


def test_nothing_is_computed_for_it(chains: Chains, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HyperGridTarget, "statistics", lambda *_: pytest.fail("statistics were asked for"))
    monkeypatch.setattr(HyperGridTarget, "modes", lambda *_: pytest.fail("modes were asked for"))
    assert "Statistics" not in chains._repr_html_()
    monkeypatch.undo()
    mean = chains.statistics["log_prob"].mean()
    assert f"<td>{mean:.4g}</td>" in chains._repr_html_()


def test_names_are_escaped(chains: Chains) -> None:
    block = replace(chains, kernel_name="<script>alert(1)</script>")._repr_html_()
    assert "<script" not in block
    assert "&lt;script&gt;" in block


def test_a_run_without_draws_has_a_summary(chains: Chains) -> None:
    samples = chains.samples
    nothing = replace(
        samples,
        position=samples.position[:, :0],
        log_prob=samples.log_prob[:, :0],
        stats={name: value[:, :0] for name, value in samples.stats.items()},
        seconds=torch.empty(0, dtype=torch.float64),
    )
    empty = replace(chains, samples=nothing)
    assert "0 draws" in repr(empty)
    assert "not known" in empty._repr_html_()
