"""Cluster methods: how clusters are found, what a step reports, what is refused, larger lattices against the truth."""

import math
from collections.abc import Callable
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.kernels import Reach, Reason, State, clusters
from gfnmc.kernels.clusters import ClusterKernel, bond_model, find_clusters
from gfnmc.kernels.swendsen_wang import SwendsenWang
from gfnmc.kernels.wolff import Wolff
from gfnmc.sampling import sample
from gfnmc.targets import EdwardsAnderson, Ising, Potts, Target, from_function
from tests.support import FALSE_ALARM, assert_close, chi_square, is_identical, random_numbers

KINDS = [SwendsenWang, Wolff]
ISING = Ising((3, 4), 0.4)
IN_A_FIELD = Ising((3, 4), 0.4 * random_numbers(1, 24), field=0.3 * random_numbers(2, 3, 4))
POTTS = Potts((3, 4), 4, 0.8)
GLASS = EdwardsAnderson((3, 4), 0.5, seed=1)
TARGETS: dict[str, Target] = {"ising": ISING, "ising in a field": IN_A_FIELD, "potts": POTTS, "glass": GLASS}
CASES = [(kind, name) for kind in KINDS for name in TARGETS if kind is SwendsenWang or name != "ising in a field"]


def kernel_of(kind: type[ClusterKernel], target: Target) -> ClusterKernel:
    return kind(Lattice.for_target(target), target)


def walked(kernel: ClusterKernel, num_chains: int, num_steps: int, seed: int = 3) -> State:
    draws = PhiloxDraws(seed, "run", num_chains)
    state = kernel.init(kernel.start(draws.role("start")))
    for step in range(num_steps):
        state, _ = kernel.step(draws.at(step), state)
    return state


def clusters_one_by_one(bonds: Tensor, is_active: Tensor, num_sites: int) -> list[int]:
    """The lowest site of each site's cluster, by spreading from every site in turn."""
    label = list(range(num_sites))
    joined = bonds[is_active].tolist()
    for _ in range(num_sites):
        for one, other in joined:
            label[one] = label[other] = min(label[one], label[other])
    return label


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 2), (6, 5), (3, 2, 4)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_clusters_are_found(shape: tuple[int, ...], share: float) -> None:
    bonds, num_sites = Ising(shape, 0.1).bonds, math.prod(shape)
    is_active = torch.rand(20, len(bonds), generator=torch.Generator().manual_seed(4)) < share
    labels = find_clusters(bonds, is_active, num_sites)
    assert labels.tolist() == [clusters_one_by_one(bonds, row, num_sites) for row in is_active]


def test_a_cluster_that_winds_is_found() -> None:
    """A ring in a shuffled order is the worst case of passing labels from neighbour to neighbour."""
    order = torch.randperm(501, generator=torch.Generator().manual_seed(5))
    bonds = torch.stack([order, order.roll(-1)], 1)
    is_active = torch.ones(2, 501, dtype=torch.bool)
    is_active[1, [100, 300]] = False
    labels = find_clusters(bonds, is_active, 501)
    assert not labels[0].any()
    assert len(labels[1].unique()) == 2
    assert len(labels[1, order[101:301]].unique()) == 1


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_step_does_what_it_reports(kind: type[ClusterKernel], name: str) -> None:
    target = TARGETS[name]
    kernel = kernel_of(kind, target)
    state = walked(kernel, 40, 2)
    kept = State(state.position.clone(), state.log_prob.clone(), cache="kept")
    after, info = kernel.step(PhiloxDraws(1, "x", 40), kept)
    assert torch.equal(state.position, kept.position) and torch.equal(state.log_prob, kept.log_prob)
    assert after.cache == "kept" and after.position.dtype == target.dtype
    assert torch.equal(info.proposal, after.position) and torch.equal(after.log_prob, target.log_prob(after.position))
    assert info.is_accepted.all() and (info.acceptance_rate == 1.0).all() and not info.log_ratio.any()
    assert (info.reason == Reason.ACCEPTED).all() and info.reason.dtype == torch.int8
    assert (info.target_calls == 1).all() and kernel.calls_per_step == 1
    for field in (info.num_back_steps, info.num_forward_steps, info.policy_calls):
        assert not field.any()
    changed = (after.position != state.position).flatten(1).sum(1)
    if kind is Wolff:
        assert torch.equal(info.extras["cluster_size"], changed) and (changed > 0).all()
        assert len(changed.unique()) > 3
    else:
        assert ((info.extras["num_clusters"] >= 1) & (info.extras["num_clusters"] <= 12)).all()
        assert int(changed.min()) < int(changed.max())
    again, _ = kernel.step(PhiloxDraws(1, "x", 40), state)
    assert is_identical(again.position, after.position) and is_identical(again.log_prob, after.log_prob)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_chain_is_the_same_whatever_runs_beside_it(kind: type[ClusterKernel], name: str) -> None:
    kernel = kernel_of(kind, TARGETS[name])
    few = walked(kernel, 5, 10)
    for num_chains in (1, 40, 300):
        many, rows = walked(kernel, num_chains, 10), min(5, num_chains)
        assert is_identical(many.position[:rows], few.position[:rows])
        # The energy itself is a product whose last bits may depend on the number of rows.
        assert_close(many.log_prob[:rows], few.log_prob[:rows], 1e-13)
    assert not torch.equal(walked(kernel, 5, 10, seed=4).position, few.position)


def exact_starts(kernel: ClusterKernel, num_chains: int, num_steps: int) -> State:
    """States after some steps from exact draws."""
    solution = kernel.target.exact()
    assert solution is not None
    draws = PhiloxDraws(11, "run", num_chains)
    state = kernel.init(solution.sample(draws))
    for step in range(num_steps):
        state, _ = kernel.step(draws.at(step), state)
    return state


def levels_misfit(kernel: ClusterKernel, num_chains: int) -> tuple[float, float]:
    """Pearson's statistic of the energy levels of a small lattice a few steps after exact starts, and its limit."""
    solution = kernel.target.exact()
    assert solution is not None and solution.support is not None and solution.log_pmf is not None
    levels, of_object = kernel.target.log_prob(solution.support).round(decimals=9).unique(return_inverse=True)
    wanted = torch.zeros(len(levels), dtype=torch.float64).index_add_(0, of_object, solution.log_pmf.exp())
    found = torch.searchsorted(levels, exact_starts(kernel, num_chains, 4).log_prob.round(decimals=9))
    counts = torch.bincount(found, minlength=len(levels))
    return chi_square(*without_rare(counts, wanted))


def without_rare(counts: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Take together what is too rare for the law of Pearson's statistic."""
    rare = int(counts.sum()) * wanted < 10.0
    counts, wanted = (torch.cat([of[~rare], of[rare].sum()[None]]) for of in (counts, wanted))
    return counts, wanted


SMALL = {
    "ising": Ising((4, 4), 0.4407),
    "ising in a field": Ising((4, 4), 0.3, field=0.05),
    "glass": EdwardsAnderson((4, 4), 0.5, seed=2),
    "potts": Potts((3, 3), 3, 0.9),
}


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_exact_starts_stay_exact(
    monkeypatch: pytest.MonkeyPatch, kind: Callable[..., ClusterKernel], name: str
) -> None:
    """Fixed seed; the statistic exceeds its limit with probability 1e-6 if the kernel is right."""
    target = SMALL[name]
    kernel = kind(Lattice.for_target(target), target)
    statistic, limit = levels_misfit(kernel, 4_000)
    assert statistic < limit
    right = clusters.log_active_probability
    monkeypatch.setattr(clusters, "log_active_probability", lambda strength, power: right(0.5 * strength, power))
    statistic, limit = levels_misfit(kernel, 4_000)
    assert statistic > limit


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_energy_of_a_larger_lattice(
    monkeypatch: pytest.MonkeyPatch, kind: Callable[..., ClusterKernel]
) -> None:
    """8x8 at the critical coupling; a fixed seed, and a false alarm with probability 1e-6."""
    target = Ising((8, 8), 0.4407)
    solution = target.exact()
    assert solution is not None
    kernel = kind(Lattice.for_target(target), target)

    def deviation() -> float:
        energy = -exact_starts(kernel, 2_000, 5).log_prob / 64
        error = float(energy.std()) / math.sqrt(len(energy))
        return abs(float(energy.mean()) - solution.expectations["energy_per_site"]) / error

    limit = NormalDist().inv_cdf(1.0 - FALSE_ALARM / 2)
    assert deviation() < limit
    right = clusters.log_active_probability
    monkeypatch.setattr(clusters, "log_active_probability", lambda strength, power: right(0.5 * strength, power))
    assert deviation() > limit


@pytest.mark.parametrize("kind", KINDS)
def test_whole_runs_forget_where_they_began(kind: Callable[..., ClusterKernel]) -> None:
    target = Ising((3, 3), 0.35)
    kernel = kind(Lattice.for_target(target), target)
    chains = sample(kernel, num_chains=4_000, num_samples=1, num_warmup=25, seed=1, progress_bar=False,
                    init=torch.ones(3, 3, dtype=torch.int8))  # fmt: skip
    solution = target.exact()
    assert solution is not None and solution.log_pmf is not None
    counts, pmf = torch.bincount(solution.index(chains.x[:, -1]), minlength=512), solution.log_pmf.exp()
    statistic, limit = chi_square(*without_rare(counts, pmf))
    assert statistic < limit
    statistic, limit = chi_square(*without_rare(counts, (1.2 * solution.log_pmf).softmax(0)))
    assert statistic > limit
    assert chains.sampling_cost.target_calls == 4_000 * 27


@pytest.mark.parametrize("kind", KINDS)
def test_tempering_leaves_the_kernel_as_it_was(kind: Callable[..., ClusterKernel]) -> None:
    kernel = kind(Lattice.for_target(ISING), ISING)
    tempered = kernel.tempered(0.5)
    assert type(tempered) is kind and tempered.inverse_temperature == 0.5 and kernel.inverse_temperature == 1.0
    assert (tempered.name, tempered.reach, tempered.may_stay) == (kernel.name, kernel.reach, kernel.may_stay)
    with pytest.raises(OptionError, match=r"inverse temperature of -1.0; give a finite number from 0"):
        kernel.tempered(-1.0)
    # At inverse temperature 0 every site is a cluster.
    _, info = kernel.tempered(0.0).step(PhiloxDraws(1, "x", 30), kernel.init(kernel.start(PhiloxDraws(1, "s", 30))))
    assert set(torch.cat(list(info.extras.values())).tolist()) == ({1} if kind is Wolff else {12})


def test_bonds_that_never_part_are_not_said_to_reach_everything() -> None:
    # 1 - exp(-2 |J|) is 1 in float64 from about J = 18.4 on.
    for coupling, reaches in ((15.0, True), (20.0, False)):
        target = Ising((2, 2), coupling)
        lattice = Lattice.for_target(target)
        assert SwendsenWang(lattice, target).reach is (Reach.EVERYWHERE if reaches else Reach.PARTIAL)
        assert Wolff(lattice, target).reach is (Reach.CONNECTED if reaches else Reach.PARTIAL)
    target = Ising((2, 2), 20.0)
    kernel = SwendsenWang(Lattice.for_target(target), target)
    assert kernel.tempered(0.5).reach is Reach.EVERYWHERE
    assert kernel.tempered(torch.tensor([0.5, 1.0]).double()).reach is Reach.PARTIAL


def test_the_bonds_of_a_target() -> None:
    coupling = torch.tensor([0.5, -0.25, 0.0, 1.0]).double()
    model = bond_model(Ising((2, 2), coupling, field=0.3))
    assert_close(model.strength, torch.tensor([1.0, 0.5, 0.0, 2.0]).double(), 0.0)
    assert model.wants_equal.tolist() == [True, False, False, True]
    assert_close(model.field, torch.full((4,), 0.3, dtype=torch.float64), 0.0)
    glass = bond_model(GLASS)
    assert_close(glass.strength, torch.ones(len(GLASS.bonds)).double(), 0.0)
    assert torch.equal(glass.wants_equal, GLASS.coupling > 0) and not glass.field.any()
    potts = bond_model(POTTS)
    assert_close(potts.strength, torch.full((len(POTTS.bonds),), 0.8, dtype=torch.float64), 0.0)
    assert potts.wants_equal.all() and torch.equal(potts.bonds, POTTS.bonds)


class Frustrated(Ising):
    """An Ising model with a term that its bonds know nothing of."""

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) - 0.1 * x.flatten(1).sum(1).double().square()


@pytest.mark.parametrize("kind", KINDS)
def test_what_cluster_methods_cannot_sample_is_refused(kind: Callable[..., ClusterKernel]) -> None:
    flat = from_function(lambda x: torch.zeros(len(x)).double(), (4,), values=(0, 1), name="flat")
    for target in (flat, Frustrated((2, 2), 0.4)):
        with pytest.raises(CapabilityError, match=f"not those of {target.name} .* use Gibbs"):
            kind(Lattice.for_target(target), target)
    repelling = Potts((2, 2), 3, -0.5)
    with pytest.raises(CapabilityError, match=r"has coupling -0.5: bonds that favour different colours"):
        kind(Lattice.for_target(repelling), repelling)
    grid = from_function(lambda x: x.sum(1).double(), (2,), name="grid")
    with pytest.raises(CapabilityError, match="not those of grid"):
        kind(HyperGrid(2, 3), grid)


def test_wolff_refuses_a_field() -> None:
    with pytest.raises(CapabilityError, match=r"has a field, and Wolff turns its cluster whatever .* use SwendsenWang"):
        Wolff(Lattice.for_target(IN_A_FIELD), IN_A_FIELD)
