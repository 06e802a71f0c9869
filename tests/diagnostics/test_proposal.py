"""What became of proposals: acceptance by kernel, steps back and depth, the ratios behind it, and jumps."""

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.diagnostics import (
    acceptance_by_back_steps,
    acceptance_by_depth,
    acceptance_summary,
    count_reasons,
    jump_figures,
    log_ratio_figures,
)
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.kernels import Cycle, RandomWalk, Reason, SuffixResampling, branch
from gfnmc.sampling import Chains, Record, sample
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, Target
from tests.support import Stairs, random_pair, stairs_target


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


def test_reasons_are_counted() -> None:
    assert count_reasons(record()) == {"accepted": 3, "rejected": 2, "lazy": 2, "no_reverse_move": 1}


def test_ratios_of_what_was_proposed() -> None:
    ratios = record()
    inf = float("inf")
    ratios.stats["log_ratio"] = torch.tensor([[1.0, -1.0, 0.0, -inf], [-2.0, 4.0, 0.0, -inf]]).double()
    found = log_ratio_figures(ratios)
    assert found["proposals"] == 6 and found["impossible"] == pytest.approx(2 / 6)
    assert found["mean"] == pytest.approx(0.5)
    assert found["quantiles"]["0.5"] == pytest.approx(0.0)
    assert found["quantiles"]["0.25"] == pytest.approx(-1.25) and next(iter(found["quantiles"])) == "0.01"
    ratios.stats["reason"].fill_(Reason.LAZY)
    assert log_ratio_figures(ratios) == {"proposals": 0, "impossible": 0.0, "mean": None, "quantiles": None}


class Watched(Target):
    """Objects of two numbers, flat."""

    name, event_shape, dtype = "watched", (2,), torch.int64

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.float64)

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        return {"first": x[:, 0].double(), "nothing": torch.ones(len(x)).double()}


def chains_of(position: Tensor, *, thinning: int = 1, **stats: Tensor) -> Chains:
    zero = torch.zeros(position.shape[:2], dtype=torch.float64)
    empty = Record(position[:, :0], zero[:, :0], {}, zero[0, :0])
    samples = Record(position, zero, stats, torch.arange(position.shape[1]).double())
    return Chains(Watched(), "by hand", empty, samples, thinning, 0, Cost(), Cost(target_calls=1, seconds=1.0))


def test_jumps_by_hand() -> None:
    position = torch.tensor([[[0, 0], [3, 4], [3, 4]], [[1, 1], [1, 2], [0, 2]]])
    found = jump_figures(chains_of(position))
    assert found["moved"] == pytest.approx(3 / 4)
    assert found["squared_distance"] == pytest.approx((25 + 0 + 1 + 1) / 4)
    assert found["coordinates"] == pytest.approx((2 + 0 + 1 + 1) / 4)
    variance = np.var([0, 3, 3, 1, 1, 0])
    assert found["statistics"]["first"] == pytest.approx((9 + 0 + 0 + 1) / 4 / (2 * variance))
    assert found["statistics"]["nothing"] is None
    alone = jump_figures(chains_of(position[:, :1]))
    assert alone["moved"] is None and set(alone["statistics"].values()) == {None}


def test_jumps_of_independent_draws_are_twice_the_variance() -> None:
    position = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (20, 500, 2)))
    found = jump_figures(chains_of(position))
    assert found["statistics"]["first"] == pytest.approx(1.0, abs=0.05)
    # Negative control: each draw twice, so that every other jump is none.
    twice = jump_figures(chains_of(position.repeat_interleave(2, 1)))
    assert twice["statistics"]["first"] == pytest.approx(0.5, abs=0.05)


def test_acceptance_by_depth_is_that_of_the_branch_states() -> None:
    environment, target = HyperGrid(2, 4), HyperGridTarget(2, 4)
    kernel = SuffixResampling(random_pair(environment), target)
    chains = sample(kernel, num_chains=20, num_samples=30, num_warmup=1, progress_bar=False)
    # On a grid the depth of an object is the sum of its coordinates.
    before = torch.cat([chains.warmup.position, chains.x[:, :-1]], 1).sum(-1)
    depth = (before - chains.samples.stats["num_back_steps"]).flatten()
    rate = chains.samples.stats["acceptance_rate"].flatten()
    rows = acceptance_by_depth(chains, environment)
    assert [row["depth"] for row in rows] == depth.unique().tolist()
    assert int(depth.min()) == 0
    for row in rows:
        of_these = depth == row["depth"]
        assert row["proposals"] == int(of_these.sum())
        assert row["acceptance"] == pytest.approx(float(rate[of_these].mean()))
    # Without a warm-up nobody knows where the first step began.
    cold = sample(kernel, num_chains=20, num_samples=30, num_warmup=0, progress_bar=False)
    assert sum(row["proposals"] for row in acceptance_by_depth(cold, environment)) == 20 * 29


def test_depths_of_objects_of_one_length_need_no_draw_before() -> None:
    target = Ising((2, 2), 0.4)
    lattice = Lattice.for_target(target)
    kernel = SuffixResampling(random_pair(lattice), target, branch.Fixed(3))
    chains = sample(
        Cycle([kernel, RandomWalk(lattice, target)]), num_chains=4, num_samples=6, thinning=2, progress_bar=False
    )
    rows = acceptance_by_depth(chains, lattice)
    assert [(row["depth"], row["proposals"]) for row in rows] == [(1, 24)]


def test_depths_that_nobody_knows_are_left_out() -> None:
    stairs = Stairs(5)
    kernel = SuffixResampling(random_pair(stairs), stairs_target(stairs))
    assert acceptance_by_depth(sample(kernel, num_chains=4, num_samples=6, progress_bar=False), stairs) == []
    environment, target = HyperGrid(2, 4), HyperGridTarget(2, 4)
    kernel = SuffixResampling(random_pair(environment), target)
    thinned = sample(kernel, num_chains=4, num_samples=6, thinning=2, progress_bar=False)
    assert acceptance_by_depth(thinned, environment) == []
    walk = sample(RandomWalk(environment, target), num_chains=4, num_samples=5, progress_bar=False)
    assert acceptance_by_depth(walk, environment) == []
    # One draw and nothing before it.
    single = sample(kernel, num_chains=4, num_samples=1, num_warmup=0, progress_bar=False)
    assert acceptance_by_depth(single, environment) == []
