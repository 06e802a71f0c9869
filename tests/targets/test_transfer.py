"""Sums over lattices row by row, and the exact draws that they give."""

import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.lookup import RowIndex
from gfnmc.targets import EdwardsAnderson, ExactSolution, Ising, Potts, Target
from gfnmc.targets.base import product_space, solve_by_enumeration
from gfnmc.targets.transfer import MAX_STORED_ENTRIES, lay_out
from gfnmc.testing import enumerate_decisions
from tests.support import assert_close, chi_square


def uneven_ising(shape: tuple[int, ...], periodic: bool, strength: float = 1.0, seed: int = 2) -> Ising:
    rng = np.random.default_rng(seed)
    num_bonds = len(Ising(shape, 0.0, periodic=periodic).bonds)
    coupling, field = rng.normal(size=num_bonds), rng.normal(size=shape)
    return Ising(shape, strength * torch.from_numpy(coupling), field=torch.from_numpy(field), periodic=periodic)


LATTICES = {
    "ring of rings": uneven_ising((3, 4), periodic=True),
    "ring of rings, transposed": uneven_ising((4, 3), periodic=True),
    "free": uneven_ising((4, 3), periodic=False),
    "ring of pairs": uneven_ising((2, 4), periodic=True),
    "chain": uneven_ising((6,), periodic=False),
    "ring": uneven_ising((1, 5), periodic=True),
    "one site": uneven_ising((1,), periodic=True),
    "strong": uneven_ising((3, 3), periodic=True, strength=40.0),
    "no field": Ising((3, 3), 0.5),
    "colours": Potts((2, 3), 3, 0.9),
    "free colours": Potts((3, 2), 3, -0.7, periodic=False),
    "ring of colours": Potts((3, 3), 2, 1.3),
    "chain of colours": Potts((4,), 4, 1.3),
}
BY_NAME = pytest.mark.parametrize("name", LATTICES)


def enumerated(target: Target) -> ExactSolution:
    return solve_by_enumeration(target, product_space(target.values, target.event_shape, target.dtype))


def law_of_sampler(solution: ExactSolution, support: Tensor) -> Tensor:
    """The exact probability of each object under `solution.sample`, by following every decision."""
    found = enumerate_decisions(lambda draws, rows: solution.sample(draws), 1)
    law = torch.zeros(len(support), dtype=torch.float64)
    return law.index_add_(0, RowIndex(support).find(found.result), found.weight)


@BY_NAME
def test_log_z_and_means_agree_with_enumeration(name: str) -> None:
    target = LATTICES[name]
    solution, truth = target._solve_by_rows(), enumerated(target)
    assert solution.support is None
    assert solution.log_z == pytest.approx(truth.log_z, abs=1e-10)
    assert len(solution.expectations) >= 2
    for statistic, mean in solution.expectations.items():
        assert mean == pytest.approx(truth.expectations[statistic], abs=1e-10)


@BY_NAME
def test_the_sampler_has_the_targets_law(name: str) -> None:
    target = LATTICES[name]
    truth = enumerated(target)
    assert_close(law_of_sampler(target._solve_by_rows(), truth.support), truth.log_pmf.exp())


def test_the_sampler_of_another_lattice_would_show() -> None:
    """The negative control of the test above: a coupling changed, or the ring cut open."""
    target = Ising((3, 3), 0.5)
    truth = enumerated(target)
    coupling = target.coupling.clone()
    coupling[0] += 0.01
    for other in (Ising((3, 3), coupling), Ising((3, 3), 0.5, periodic=False)):
        law = law_of_sampler(other._solve_by_rows(), truth.support)
        assert float((law - truth.log_pmf.exp()).abs().max()) > 1e-4


@pytest.mark.parametrize(
    "target", [uneven_ising((3, 3), True, 0.3), Potts((2, 3), 3, 0.6), Ising((3, 3), 0.3)], ids=lambda t: t.name
)
def test_exact_draws_by_chi_square(target: Target) -> None:
    truth = enumerated(target)
    num_rows = 60_000
    x = target._solve_by_rows().sample(PhiloxDraws(4, "test", num_rows))
    assert x.dtype == target.dtype
    assert x.shape == (num_rows, *target.event_shape)
    pmf = truth.log_pmf.exp()
    # Outcomes that are expected less than ten times are counted as one.
    group = torch.where(pmf * num_rows < 10, 0, torch.arange(1, len(pmf) + 1))
    counts = torch.bincount(group[truth.index(x)], minlength=len(pmf) + 1)
    pooled = torch.zeros(len(pmf) + 1, dtype=torch.float64).index_add_(0, group, pmf)
    statistic, limit = chi_square(counts, pooled)
    assert statistic < limit
    # Negative control: a law that is flatter by a tenth is told apart.
    flatter = (0.9 * truth.log_pmf).softmax(0)
    statistic, limit = chi_square(counts, torch.zeros_like(pooled).index_add_(0, group, flatter))
    assert statistic > limit


@pytest.mark.parametrize(
    "target",
    [Ising((8, 8), 0.4407), EdwardsAnderson((8, 8), 1.0, seed=0), Potts((6, 6), 3, 1.005)],
    ids=lambda target: target.name,
)
def test_exact_draws_of_large_lattices_have_the_exact_means(target: Target) -> None:
    solution = target.exact()
    assert solution.support is None
    assert solution.can_sample
    statistics = target.statistics(solution.sample(PhiloxDraws(11, "test", 4_000)))
    for name, mean in solution.expectations.items():
        value = statistics[name].double()
        # A normal variable is more than 4.9 standard errors away with probability 1e-6.
        assert abs(float(value.mean()) - mean) < 4.9 * float(value.std()) / math.sqrt(len(value)), name
    energy = statistics["energy_per_site"]
    assert abs(float(energy.mean()) - 0.98 * solution.expectations["energy_per_site"]) > 4.9 * float(energy.std()) / 63


def test_a_draw_does_not_depend_on_how_many_there_are() -> None:
    solution = Ising((6, 6), 0.4).exact()
    many = solution.sample(PhiloxDraws(3, "test", 300))
    assert torch.equal(many[:5], solution.sample(PhiloxDraws(3, "test", 5)))
    assert torch.equal(many, solution.sample(PhiloxDraws(3, "test", 300)))
    assert not torch.equal(many, solution.sample(PhiloxDraws(4, "test", 300)))


def test_a_target_that_was_solved_and_sampled_can_be_sent_to_a_worker() -> None:
    target = Ising((5, 5), 0.4)
    before = target.exact().sample(PhiloxDraws(3, "test", 5))
    copy = pickle.loads(pickle.dumps(target))  # noqa: S301 - made on the line itself
    assert torch.equal(copy.exact().sample(PhiloxDraws(3, "test", 5)), before)


def test_lattices_out_of_reach() -> None:
    bonds, on_bonds = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 3, 3).double()
    assert lay_out((6, 9), bonds, on_bonds, torch.zeros(54, 3).double()) is not None
    assert lay_out((7, 9), bonds, on_bonds, torch.zeros(63, 3).double()) is None
    assert lay_out((2, 3, 2), bonds, on_bonds, torch.zeros(12, 3).double()) is None
    assert lay_out((1, 3, 1, 2), bonds, on_bonds, torch.zeros(6, 3).double()) is not None


def test_messages_too_large_to_keep_leave_no_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_STORED_ENTRIES >= 32 * 2**20
    monkeypatch.setattr("gfnmc.targets.transfer.MAX_STORED_ENTRIES", 6 * 2**12 - 1)
    assert not Ising((6, 6), 0.4).exact().can_sample
    assert Ising((6, 6), 0.4, periodic=False).exact().can_sample
