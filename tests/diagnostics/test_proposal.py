"""Acceptance summaries: of what was proposed, by kernel and by steps back."""

import pytest
import torch

from gfnmc.diagnostics import acceptance_by_back_steps, acceptance_summary
from gfnmc.environments import HyperGrid
from gfnmc.kernels import Cycle, RandomWalk, Reason, SuffixResampling, branch
from gfnmc.sampling import Record, sample
from gfnmc.targets import HyperGrid as HyperGridTarget
from tests.support import random_pair


def record() -> Record:
    """Two chains of four draws, by hand."""
    reason = torch.tensor([[0, 1, 2, 3], [0, 0, 2, 1]], dtype=torch.int8)
    stats = {
        "reason": reason,
        "acceptance_rate": torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.8, 1.0, 0.0, 0.25]]).double(),
        "num_back_steps": torch.tensor([[2, 3, 0, 3], [2, 3, 0, 0]], dtype=torch.int32),
    }
    return Record(torch.zeros(2, 4, 1), torch.zeros(2, 4).double(), stats, torch.arange(4).double())


def test_lazy_steps_are_no_proposals() -> None:
    summary = acceptance_summary(record())
    assert summary["overall"] == pytest.approx((1.0 + 0.5 + 0.0 + 0.8 + 1.0 + 0.25) / 6)
    assert summary["lazy"] == pytest.approx(2 / 8)
    assert summary["no_reverse_move"] == pytest.approx(1 / 8)
    assert summary["parts"] == {}


def test_acceptance_by_steps_back() -> None:
    assert acceptance_by_back_steps(record()) == [
        {"num_back_steps": 0, "proposals": 1, "acceptance": 0.25},
        {"num_back_steps": 2, "proposals": 2, "acceptance": pytest.approx(0.9)},
        {"num_back_steps": 3, "proposals": 3, "acceptance": pytest.approx(0.5)},
    ]


def test_only_lazy_steps_leave_nothing_to_say() -> None:
    lazy = record()
    lazy.stats["reason"].fill_(Reason.LAZY)
    assert acceptance_summary(lazy) == {"overall": 0.0, "parts": {}, "lazy": 1.0, "no_reverse_move": 0.0}
    assert acceptance_by_back_steps(lazy) == []


def test_a_run_is_summed_up_by_kernel() -> None:
    environment, target = HyperGrid(2, 4), HyperGridTarget(2, 4)
    pair = random_pair(environment)
    suffix = SuffixResampling(pair, target, branch.PrefixUniform())
    chains = sample(Cycle([suffix, RandomWalk(environment, target)]), num_chains=30, num_samples=20, progress_bar=False)
    stats = chains.samples.stats
    proposed = stats["reason"] != Reason.LAZY
    summary = acceptance_summary(chains.samples)
    assert set(summary["parts"]) == {"suffix resampling", "random walk"}
    wanted = float(stats["acceptance_rate"][proposed].mean())
    assert summary["overall"] == pytest.approx(wanted)
    # Of each kernel too, what proposed nothing does not count.
    assert summary["lazy"] > 0.1
    assert summary["parts"]["suffix resampling"] == pytest.approx(wanted)
    assert summary["parts"]["random walk"] == pytest.approx(float(stats["acceptance_rate[random walk]"].mean()))
    rows = acceptance_by_back_steps(chains.samples)
    assert sum(row["proposals"] for row in rows) == int(proposed.sum())
    mean = sum(row["proposals"] * row["acceptance"] for row in rows) / sum(row["proposals"] for row in rows)
    assert mean == pytest.approx(wanted)
    walk = sample(RandomWalk(environment, target), num_chains=4, num_samples=5, progress_bar=False)
    assert acceptance_by_back_steps(walk.samples) == []
