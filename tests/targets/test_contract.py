"""What every target promises: differences, partial energies and symmetries agree with `log_prob`."""

import itertools
import math

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.targets import EdwardsAnderson, HyperGrid, Ising, Potts, Target, TFBinding, from_function
from gfnmc.targets.base import product_space


def uneven_ising(shape: tuple[int, ...], periodic: bool) -> Ising:
    rng = np.random.default_rng(5)
    num_bonds = len(Ising(shape, 0.0, periodic=periodic).bonds)
    field = torch.from_numpy(rng.normal(size=shape))
    return Ising(shape, torch.from_numpy(rng.normal(size=num_bonds)), field=field, periodic=periodic)


# The number of symmetries that each has, without the identity.
TARGETS: dict[str, tuple[Target, int]] = {
    "ising": (Ising((3, 4), 0.4), 3 * 4 * 2 - 1),
    "ising with a field": (Ising((3, 3), 0.4, field=-0.3), 3 * 3 - 1),
    "free ising": (Ising((3, 3), -0.4, periodic=False), 1),
    "uneven ising": (uneven_ising((3, 3), periodic=True), 0),
    "uneven free ising": (uneven_ising((2, 1, 4), periodic=False), 0),
    "side of two": (Ising((2, 3), 0.7), 2 * 3 * 2 - 1),
    "cube": (Ising((2, 2, 2), 0.7), 2 * 2 * 2 * 2 - 1),
    "one spin": (Ising((1,), 0.0, field=0.3), 0),
    "two potts colours": (Potts((3, 3), 2, 0.9), 9 * 2 - 1),
    "potts": (Potts((2, 3), 3, 0.9), 6 * 6 - 1),
    "free potts": (Potts((3, 2), 3, -0.4, periodic=False), 6 - 1),
    "five potts colours": (Potts((4,), 5, 0.9), 4 * 5 - 1),
    "spin glass": (EdwardsAnderson((3, 3), 0.8, seed=1), 1),
    "grid": (HyperGrid(2, 8), 2 * 2 - 1),
    "grid without a floor": (HyperGrid(3, 5, r0=0.0), 6 * 2 - 1),
    "grid of many dimensions": (HyperGrid(5, 3), 5 * 2 - 1),
    "binding": (TFBinding("WT1", 10.0), 1),
    "function": (from_function(lambda x: x.double() @ torch.arange(3).double(), (3,), values=(-2, 0, 5)), 0),
    "bool function": (from_function(lambda x: x.double().sum(1), (3,), values=(0, 1), dtype=torch.bool), 0),
}
BY_NAME = pytest.mark.parametrize("name", TARGETS)


def some_objects(target: Target, num_rows: int = 512) -> Tensor:
    """All objects of a small space, some of a large one."""
    num_sites = math.prod(target.event_shape)
    if len(target.values) ** num_sites <= num_rows:
        return product_space(target.values, target.event_shape, target.dtype)
    place = np.random.default_rng(0).integers(len(target.values), size=(num_rows, *target.event_shape))
    return torch.tensor(target.values, dtype=target.dtype)[torch.from_numpy(place)]


def delta_error(target: Target, by: Target) -> float:
    """The largest difference between `log_prob_delta` of one target and the definition by another's `log_prob`."""
    x = some_objects(by)
    here = by.log_prob(x)
    x, here = x[here > -math.inf], here[here > -math.inf]
    worst = 0.0
    for site in range(math.prod(by.event_shape)):
        delta = target.log_prob_delta(x, torch.full((len(x),), site))
        assert delta.dtype == torch.float64
        assert delta.shape == (len(x), len(by.values))
        for place, value in enumerate(by.values):
            changed = x.clone()
            changed.flatten(1)[:, site] = value
            wanted = by.log_prob(changed) - here
            impossible = wanted == -math.inf
            assert torch.equal(impossible, delta[:, place] == -math.inf)
            worst = max(worst, float(torch.where(impossible, 0.0, delta[:, place] - wanted).abs().max()))
            assert not delta[:, place][x.flatten(1)[:, site] == value].any(), "the value that is there costs something"
    return worst


def symmetry_error(target: Target, symmetry: Symmetry) -> float:
    """The largest change of `log_prob` under a relabelling."""
    x = some_objects(target)
    values = torch.tensor(target.values, dtype=target.dtype)
    indices = (x.flatten(1)[:, :, None] == values).to(torch.int64).argmax(-1)
    y = values[symmetry.apply(indices)].reshape(x.shape)
    before, after = target.log_prob(x), target.log_prob(y)
    if not torch.equal(before == -math.inf, after == -math.inf):
        return math.inf
    return float((after - before)[before > -math.inf].abs().max())


@BY_NAME
def test_delta_is_the_difference_of_log_probs(name: str) -> None:
    target, _ = TARGETS[name]
    assert delta_error(target, by=target) < 1e-12


def test_the_delta_of_another_coupling_would_show() -> None:
    """The negative control of the test above."""
    assert delta_error(Ising((3, 4), 0.401), by=Ising((3, 4), 0.4)) > 1e-3
    assert delta_error(Ising((3, 4), 0.4, periodic=False), by=Ising((3, 4), 0.4)) > 1e-3
    assert delta_error(Potts((2, 3), 3, 0.91), by=Potts((2, 3), 3, 0.9)) > 1e-3


def deltas_error(target: Target, by: Target) -> float:
    """The largest difference between `log_prob_deltas` of one target and the default, made of another's single ones."""
    x = some_objects(by)
    x = x[by.log_prob(x) > -math.inf]
    num_sites = math.prod(by.event_shape)
    worst = 0.0
    for sites in (torch.arange(num_sites), torch.arange(num_sites).flip(0)[::2], torch.tensor([0]), torch.arange(0)):
        # The same objects, laid out site by site in memory.
        turned = x.flatten(1).T.contiguous().T.unflatten(1, x.shape[1:])
        wanted = Target.log_prob_deltas(by, x, sites)
        for objects in (x, turned):
            found = target.log_prob_deltas(objects, sites)
            assert found.dtype == torch.float64 and found.shape == (len(x), len(sites), len(by.values))
            impossible = wanted == -math.inf
            assert torch.equal(impossible, found == -math.inf)
            difference = torch.where(impossible, 0.0, found - wanted)
            worst = max(worst, float(difference.abs().max()) if len(sites) else 0.0)
            there = x.flatten(1)[:, sites][:, :, None] == torch.tensor(by.values, dtype=x.dtype)
            assert not found[there].any(), "the value that is there costs something"
    return worst


@BY_NAME
def test_deltas_at_many_sites_are_those_at_each_of_them(name: str) -> None:
    target, _ = TARGETS[name]
    assert deltas_error(target, by=target) < 1e-12


def test_the_deltas_of_another_coupling_would_show() -> None:
    """The negative control of the test above."""
    assert deltas_error(Ising((3, 4), 0.401), by=Ising((3, 4), 0.4)) > 1e-3
    assert deltas_error(Ising((3, 4), 0.4, field=0.01), by=Ising((3, 4), 0.4)) > 1e-3
    assert deltas_error(Potts((2, 3), 3, 0.9, periodic=False), by=Potts((2, 3), 3, 0.9)) > 1e-3
    assert deltas_error(EdwardsAnderson((3, 3), 0.8, seed=2), by=EdwardsAnderson((3, 3), 0.8, seed=1)) > 1e-3


@pytest.mark.parametrize("target", [Ising((3, 3), 0.4), Potts((3, 3), 2, 0.4), HyperGrid(2, 8)], ids=lambda t: t.name)
def test_deltas_refuse_sites_and_objects_that_are_not_the_targets(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    x = some_objects(target)[:4]
    for sites in ([math.prod(target.event_shape)], [0, -1]):
        with pytest.raises(OptionError, match=r"sites of .* are counted 0"):
            target.log_prob_deltas(x, torch.tensor(sites))
    with pytest.raises(ObjectError):
        target.log_prob_deltas(x + 9, torch.tensor([0]))
    with pytest.raises(CapabilityError, match="declares no `values`"):
        from_function(lambda x: x.sum(1).double(), (2,)).log_prob_deltas(x.flatten(1)[:, :2], torch.tensor([0]))


def interaction_error(target: Target, pairs: Tensor) -> float:
    """The largest change of log-density by which two sites that are not paired differ from each alone."""
    x = some_objects(target)
    num_sites, values = math.prod(target.event_shape), torch.tensor(target.values, dtype=target.dtype)
    paired = {frozenset(pair) for pair in pairs.tolist()}
    here, worst = target.log_prob(x), 0.0
    for one, other in itertools.combinations(range(num_sites), 2):
        if frozenset((one, other)) in paired:
            continue
        changed = {}
        for sites in ((one,), (other,), (one, other)):
            y = x.clone()
            # Every site to the next value.
            for site in sites:
                place = (y.flatten(1)[:, site, None] == values).to(torch.int64).argmax(1)
                y.flatten(1)[:, site] = values[(place + 1) % len(values)]
            changed[sites] = target.log_prob(y) - here
        gap = changed[one, other] - changed[one,] - changed[other,]
        worst = max(worst, float(gap.abs().max()))
    return worst


@pytest.mark.parametrize("name", [name for name in TARGETS if TARGETS[name][0].interactions() is not None])
def test_sites_that_do_not_interact_change_the_energy_each_for_itself(name: str) -> None:
    target, _ = TARGETS[name]
    pairs = target.interactions()
    assert pairs is not None and pairs.shape[1:] == (2,) and pairs.dtype == torch.int64
    assert interaction_error(target, pairs) < 1e-12
    # Negative control: a pair left out.
    coupling = torch.as_tensor(target.coupling).expand(len(pairs))
    if len(pairs) > 0 and bool(coupling[0] != 0):
        assert interaction_error(target, pairs[1:]) > 1e-3


def test_which_targets_say_what_interacts() -> None:
    known = {name for name in TARGETS if TARGETS[name][0].interactions() is not None}
    assert known == {name for name in TARGETS if isinstance(TARGETS[name][0], Ising | Potts | EdwardsAnderson)}


@pytest.mark.parametrize("target", [Ising((3, 3), 0.4), Potts((3, 3), 2, 0.4), HyperGrid(2, 8)], ids=lambda t: t.name)
def test_delta_refuses_sites_and_objects_that_are_not_the_targets(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    x = some_objects(target)[:4]
    num_sites = math.prod(target.event_shape)
    for sites in (torch.full((4,), num_sites), torch.full((4,), -1), torch.zeros(3, dtype=torch.int64)):
        with pytest.raises(OptionError):
            target.log_prob_delta(x, sites)
    with pytest.raises(ObjectError):
        target.log_prob_delta(x + 9, torch.zeros(4, dtype=torch.int64))
    assert target.log_prob_delta(x[:0], torch.zeros(0, dtype=torch.int64)).shape == (0, len(target.values))


def test_delta_from_an_impossible_object_is_refused() -> None:
    target = HyperGrid(2, 8, r0=0.0)
    with pytest.raises(ObjectError, match=r"object 1 .* density zero"):
        target.log_prob_delta(torch.tensor([[0, 0], [3, 3]]), torch.tensor([0, 0]))


def test_delta_without_values_is_refused() -> None:
    target = from_function(lambda x: x.sum(1), (2,))
    with pytest.raises(CapabilityError, match="values"):
        target.log_prob_delta(torch.zeros(1, 2, dtype=torch.int64), torch.tensor([0]))


@pytest.mark.parametrize("name", [name for name in TARGETS if "function" not in name and name != "binding"])
def test_the_partial_energy_of_a_whole_object_is_its_energy(name: str) -> None:
    target, _ = TARGETS[name]
    x = some_objects(target)
    whole = target.partial_log_prob(x, torch.ones_like(x, dtype=torch.bool))
    assert whole.dtype == torch.float64
    assert torch.equal(whole, target.log_prob(x))


@BY_NAME
def test_the_partial_energy_is_that_of_the_assigned_sites_whatever_stands_elsewhere(name: str) -> None:
    target, _ = TARGETS[name]
    x = some_objects(target)
    rng = np.random.default_rng(1)
    is_assigned = torch.from_numpy(rng.random(x.shape) < 0.6)
    if "function" in name or name == "binding":
        with pytest.raises(CapabilityError, match="partial_log_prob"):
            target.partial_log_prob(x, is_assigned)
        return
    other = torch.where(is_assigned, x, x[torch.from_numpy(rng.permutation(len(x)))])
    partial = target.partial_log_prob(x, is_assigned)
    assert torch.equal(partial, target.partial_log_prob(other, is_assigned))
    if isinstance(target, HyperGrid):
        return
    flat, mask = x.flatten(1), is_assigned.flatten(1)
    first, second = target.bonds.unbind(1)
    if isinstance(target, Potts):
        terms = target.coupling * (flat[:, first] == flat[:, second]).double()
    else:
        terms = target.coupling * (flat[:, first] * flat[:, second]).double()
    wanted = (terms * (mask[:, first] & mask[:, second])).sum(1)
    if isinstance(target, Ising):
        wanted = wanted + (flat.double() * target.field.flatten() * mask).sum(1)
    assert torch.allclose(partial, wanted, rtol=0, atol=1e-12)
    assert not target.partial_log_prob(x, torch.zeros_like(is_assigned)).any()
    # Negative control: bonds with one assigned end do not count.
    loose = (terms * (mask[:, first] | mask[:, second])).sum(1)
    assert len(first) == 0 or not torch.allclose(partial, loose, rtol=0, atol=1e-3)


def test_an_unfinished_cell_is_as_good_as_its_best_completion() -> None:
    for target in (HyperGrid(2, 8), HyperGrid(2, 11), HyperGrid(3, 5, r0=0.0)):
        space = some_objects(target, 2_000)
        log_prob = target.log_prob(space)
        for assigned in itertools.product((False, True), repeat=target.num_dims):
            mask = torch.tensor(assigned)
            agrees = ((space[:, None] == space) | ~mask).all(-1)
            best = torch.where(agrees, log_prob, -math.inf).amax(1)
            assert torch.equal(target.partial_log_prob(space, mask.expand_as(space)), best)


@pytest.mark.parametrize("target", [Ising((3, 3), 0.4), Potts((3, 3), 2, 0.4)], ids=lambda t: t.name)
def test_marks_that_do_not_fit_are_refused(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    x = some_objects(target)[:4]
    for marks in (torch.ones(4, 9, dtype=torch.bool), torch.ones(4, 3, 3), torch.ones(3, 3, 3, dtype=torch.bool)):
        with pytest.raises(ObjectError):
            target.partial_log_prob(x, marks)


@BY_NAME
def test_symmetries_leave_the_energy_unchanged(name: str) -> None:
    target, num_symmetries = TARGETS[name]
    symmetries = target.symmetries()
    assert len(symmetries) == num_symmetries
    assert not any(symmetry.is_identity for symmetry in symmetries)
    assert len({symmetry.name for symmetry in symmetries}) == num_symmetries
    for symmetry in symmetries:
        assert symmetry_error(target, symmetry) < 1e-12, symmetry.name


@BY_NAME
def test_symmetries_form_a_group(name: str) -> None:
    symmetries = TARGETS[name][0].symmetries()
    group = {*symmetries}
    assert len(group) == len(symmetries)
    assert all(symmetry.inverse() in group for symmetry in symmetries)
    for one, other in itertools.product(symmetries, repeat=2):
        product = one.after(other)
        assert product.is_identity or product in group


def test_what_is_no_symmetry_would_show() -> None:
    """The negative control of the symmetry tests: relabellings that the targets are right not to declare."""
    shift = next(s for s in Ising((3, 3), 0.4).symmetries() if s.name == "shift (0, 1), identity")
    flip = next(s for s in Ising((3, 3), 0.4).symmetries() if s.name == "flip")
    assert symmetry_error(TARGETS["uneven ising"][0], shift) > 0.1
    assert symmetry_error(TARGETS["spin glass"][0], shift) > 0.1
    assert symmetry_error(TARGETS["free ising"][0], shift) > 0.1
    assert symmetry_error(TARGETS["ising with a field"][0], flip) > 0.1
    backwards = Symmetry("reversed", tuple(range(8))[::-1], (0, 1, 2, 3))
    assert symmetry_error(TARGETS["binding"][0], backwards) > 0.1


def test_the_reverse_complement_holds_for_every_sequence_of_every_factor() -> None:
    for factor in ("KLF1", "WT1", "SNAI2", "SIX6"):
        target = TFBinding(factor, 5.0)
        (symmetry,) = target.symmetries()
        support = target.exact().support
        assert torch.equal(target.log_prob(symmetry.apply(support)), target.log_prob(support))


def test_large_groups_are_cut_to_relabellings_of_values() -> None:
    assert len(Ising((32, 32), 0.4).symmetries()) == 2_047
    assert [symmetry.name for symmetry in Ising((33, 33), 0.4).symmetries()] == ["flip"]
    assert len(Potts((20, 20), 4, 0.4).symmetries()) == 23


def test_couplings_that_repeat_along_one_axis_allow_its_shifts_only() -> None:
    shape = (3, 4)
    along_rows = torch.tensor([0.1, 0.2, 0.3]).double()[:, None].expand(shape).flatten()
    target = Ising(shape, torch.cat([along_rows, 2 * along_rows]))
    assert len(target.symmetries()) == 4 * 2 - 1
    assert max(symmetry_error(target, symmetry) for symmetry in target.symmetries()) < 1e-12
    field = torch.tensor([0.1, 0.2, 0.3, 0.4]).double().expand(shape)
    assert len(Ising(shape, 0.5, field=field).symmetries()) == 3 - 1
