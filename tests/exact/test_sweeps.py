"""Chromatic sweeps, proved: Gibbs and Metropolis, by a table of bonds and by changes of any target."""

import functools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import IrreducibilityError
from gfnmc.core.lookup import RowIndex
from gfnmc.environments import Lattice
from gfnmc.kernels import ChromaticMetropolis, Cycle, Gibbs, Kernel, Mixture, RandomWalk, Reach, sweep
from gfnmc.kernels.base import check_irreducible
from gfnmc.kernels.bond_sweep import equal_bonds
from gfnmc.kernels.colouring import colours_of
from gfnmc.kernels.site_rules import SiteRule
from gfnmc.sampling import sample
from gfnmc.targets import EdwardsAnderson, Ising, Potts, Target
from gfnmc.targets.base import product_space
from gfnmc.testing import assert_invariant, enumerate_decisions, move_matrix, transition_matrix
from tests.exact.cases import balance_error, invariance_error, is_connected
from tests.support import random_numbers


class HardCore(Target):
    """Particles on a ring, neighbours excluded; each place has its own energy."""

    name = "hard core"
    dtype = torch.int64
    values = (0, 1)

    def __init__(self, num_sites: int) -> None:
        self.event_shape = (num_sites,)
        self._energy = random_numbers(4, num_sites)

    def log_prob(self, x: Tensor) -> Tensor:
        touches = (x * x.roll(1, 1)).any(1)
        return torch.where(touches, -math.inf, x.double() @ self._energy)

    def interactions(self) -> Tensor:
        site = torch.arange(self.event_shape[0])
        return torch.stack([site, site.roll(-1)], 1)


# Half the magnitudes are large, so that what is wrong shows.
SPINS: dict[str, Target] = {
    "2x3": Ising((2, 3), 0.5),
    "ring of three": Ising((3,), -0.7),
    "ring of five": Ising((5,), 0.6),
    "free 2x3": Ising((2, 3), 0.8, periodic=False),
    "glass": EdwardsAnderson((2, 3), 0.6, seed=3),
    "two colours": Potts((2, 2), 2, 0.9),
}
OTHERS: dict[str, Target] = {
    "uneven 2x3": Ising((2, 3), 0.6 * random_numbers(3, 9), field=0.4 * random_numbers(5, 2, 3)),
    "uneven ring of three": Ising((3,), 0.8 * random_numbers(2, 3), field=0.5 * random_numbers(6, 3)),
    "uneven ring of five": Ising((5,), 0.8 * random_numbers(7, 5), field=0.5 * random_numbers(8, 5)),
    "free chain in a field": Ising((4,), 0.5, field=0.3, periodic=False),
    "three colours on a ring": Potts((3,), 3, 0.9),
    "three colours, free": Potts((2, 2), 3, -0.7, periodic=False),
    "hard core": HardCore(5),
}
TARGETS = SPINS | OTHERS
KERNELS: dict[str, Callable[[Target], Kernel]] = {
    "Gibbs": lambda target: Gibbs(Lattice.for_target(target), target, "chromatic"),
    "Metropolis": lambda target: ChromaticMetropolis(Lattice.for_target(target), target, 0.3),
    "eager Metropolis": lambda target: ChromaticMetropolis(Lattice.for_target(target), target, 0.0),
}
LAZINESS = {"Metropolis": 0.3, "eager Metropolis": 0.0}
RUNGS = (1.0, 0.35, 2.0, 0.0)


@functools.lru_cache(maxsize=64)
def space(name: str) -> Tensor:
    target = TARGETS[name]
    assert target.values is not None
    return product_space(target.values, target.event_shape, target.dtype)


def law(name: str, power: float = 1.0) -> Tensor:
    """The exact law, to a power, on all objects; flat at power 0."""
    log_prob = TARGETS[name].log_prob(space(name))
    return (torch.zeros_like(log_prob) if power == 0.0 else power * log_prob).softmax(0)


def matrix_of(kernel: Kernel, name: str) -> tuple[Tensor, Tensor]:
    """The transition matrix between possible objects, and their law."""
    pmf = law(name)
    return transition_matrix(kernel, space(name)[pmf > 0]), pmf[pmf > 0]


def by_hand(name: str, kind: str) -> Tensor:
    """One site after the other, colour after colour: heat bath, or another value proposed and accepted."""
    target, objects = TARGETS[name], space(name)
    flat, log_prob = objects.flatten(1), target.log_prob(objects)
    matrix = torch.eye(len(flat), dtype=torch.float64)
    for site in torch.cat(colours_of(target)).tolist():
        others = [place for place in range(flat.shape[1]) if place != site]
        is_variant = (flat[:, None, others] == flat[None, :, others]).all(-1)
        if kind == "Gibbs":
            step = torch.where(is_variant, log_prob, -math.inf).softmax(1).nan_to_num()
        else:
            change = (log_prob - log_prob[:, None]).nan_to_num(nan=-math.inf)
            accept = (1.0 - LAZINESS[kind]) * change.clamp(max=0.0).exp() / (len(target.values) - 1)
            step = torch.where(is_variant & ~torch.eye(len(flat), dtype=torch.bool), accept, 0.0)
            step += torch.diag(1.0 - step.sum(1))
        matrix = matrix @ step
    return matrix


@pytest.mark.parametrize("name", TARGETS)
def test_spins_of_one_bond_strength_go_by_a_table(name: str) -> None:
    assert (equal_bonds(TARGETS[name]) is not None) == (name in SPINS)


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("name", TARGETS)
def test_leaves_the_target_invariant(name: str, kind: str) -> None:
    kernel = KERNELS[kind](TARGETS[name])
    matrix, pmf = matrix_of(kernel, name)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, pmf) < 1e-10
    # A sweep is not reversible.
    assert balance_error(matrix, pmf) > 1e-6
    if kind == "eager Metropolis":
        assert kernel.reach is Reach.PARTIAL and not kernel.may_stay
        return
    assert kernel.reach is Reach.EVERYWHERE and (matrix.diagonal() > 0).all() and kernel.may_stay
    # Where everything is possible, everything is reached at once.
    assert (matrix > 0).all() or name == "hard core"


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("name", TARGETS)
def test_a_sweep_is_its_sites_one_after_the_other(name: str, kind: str) -> None:
    is_possible = law(name) > 0
    matrix, _ = matrix_of(KERNELS[kind](TARGETS[name]), name)
    torch.testing.assert_close(matrix, by_hand(name, kind)[is_possible][:, is_possible], rtol=0.0, atol=1e-12)


CROWDED = [name for name in TARGETS if name != "hard core"]


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("name", CROWDED)
def test_neighbours_of_one_colour_fail(monkeypatch: pytest.MonkeyPatch, name: str, kind: str) -> None:
    def crowded(target: Target) -> tuple[Tensor, ...]:
        first, second, *rest = colours_of(target)
        # The first site of the second colour is updated together with its neighbours.
        return tuple(sites for sites in (torch.cat([first, second[:1]]), second[1:], *rest) if len(sites) > 0)

    monkeypatch.setattr(sweep, "colours_of", crowded)
    matrix, pmf = matrix_of(KERNELS[kind](TARGETS[name]), name)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, pmf) > 1e-4


class Wrong(SiteRule):
    """A rule that is told other changes than there are."""

    def __init__(self, rule: SiteRule, change: Callable[[Tensor], Tensor]) -> None:
        self.role, self.counts_changes = rule.role, rule.counts_changes
        self._rule, self._change = rule, change

    def log_flip(self, change: Tensor) -> Tensor:
        return self._rule.log_flip(self._change(change))

    def choose(self, draws: Draws, change: Tensor, present: Tensor) -> Tensor:
        return self._rule.choose(draws, self._change(change), present)


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "inverted": lambda change: -change,
    "half of it": lambda change: 0.5 * change,
    "none": torch.zeros_like,
}


@pytest.mark.parametrize("control", WRONG)
@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("name", CROWDED)
def test_wrong_rules_fail(monkeypatch: pytest.MonkeyPatch, name: str, kind: str, control: str) -> None:
    right = sweep.ChromaticSweep.__init__

    def made(self: sweep.ChromaticSweep, target: Target, rule: SiteRule) -> None:
        right(self, target, Wrong(rule, WRONG[control]))

    monkeypatch.setattr(sweep.ChromaticSweep, "__init__", made)
    matrix, pmf = matrix_of(KERNELS[kind](TARGETS[name]), name)
    if kind == "eager Metropolis" and control == "none" and name in SPINS:
        # Every spin flips, which changes no energy: nothing but the reach is wrong.
        assert torch.equal(matrix, torch.eye(len(pmf), dtype=torch.float64).flip(0))
        return
    assert invariance_error(matrix, pmf) > 1e-3


def rungs(kernel: Kernel, name: str, powers: tuple[float, ...]) -> Iterator[tuple[float, Tensor, Tensor]]:
    """The transition matrix at each inverse temperature with its law, all rows of one batch."""
    objects, log_prob = space(name), TARGETS[name].log_prob(space(name))
    ladder, index = torch.tensor(powers, dtype=torch.float64), RowIndex(objects)
    points = torch.cartesian_prod(torch.arange(len(powers)), torch.arange(len(objects)))
    points = points[(ladder[points[:, 0]] == 0.0) | (log_prob[points[:, 1]] > -math.inf)]

    def move(draws: Draws, rows: Tensor) -> Tensor:
        rung, place = points[rows].unbind(1)
        tempered = kernel.tempered(ladder[rung])
        state, _ = tempered.step(draws, tempered.init(objects[place]))
        found = index.find(state.position)
        # Whatever the temperature, the state keeps the log-density of the target itself.
        torch.testing.assert_close(state.log_prob, log_prob[found], rtol=0.0, atol=1e-12)
        return torch.stack([rung, found], 1)

    matrix = move_matrix(move, points)
    for rung, power in enumerate(powers):
        here = points[:, 0] == rung
        yield power, matrix[here][:, here], law(name, power)[points[here, 1]]


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("name", ["ring of five", "glass", "two colours", *OTHERS])
def test_each_row_keeps_the_law_of_its_own_temperature(name: str, kind: str) -> None:
    kernel = KERNELS[kind](TARGETS[name])
    blocks = list(rungs(kernel, name, RUNGS))
    for power, matrix, pmf in blocks:
        assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
        assert invariance_error(matrix, pmf) < 1e-10
        # One temperature for all rows is the same kernel.
        possible = space(name) if power == 0.0 else space(name)[law(name) > 0]
        alone = transition_matrix(kernel.tempered(power), possible)
        torch.testing.assert_close(matrix, alone, rtol=0.0, atol=1e-12)
    # Negative control: the matrix of one temperature does not keep the law of another.
    assert invariance_error(blocks[1][1], blocks[0][2]) > 1e-3


@pytest.mark.parametrize("kind", KERNELS)
def test_impossible_objects_are_left_and_met_at_inverse_temperature_zero_only(kind: str) -> None:
    kernel, objects = KERNELS[kind](TARGETS["hard core"]), space("hard core")
    is_possible = law("hard core") > 0
    flat = transition_matrix(kernel.tempered(0.0), objects)
    if kind != "eager Metropolis":
        assert (flat > 0).all()
    assert invariance_error(flat, law("hard core", 0.0)) < 1e-12
    # In a warm chain nothing leads out; `transition_matrix` would say so.
    assert transition_matrix(kernel.tempered(0.1), objects[is_possible]).sum() == pytest.approx(int(is_possible.sum()))


def test_without_laziness_a_flat_target_is_never_left_to_chance() -> None:
    """Why `reach` says no: every site flips in every sweep, for ever."""
    flat = Ising((2, 2), 0.0, field=1e-300)
    for target in (Ising((2, 2), 0.0), flat):
        lattice = Lattice.for_target(target)
        objects = product_space((-1, 1), (2, 2), torch.int8)
        eager = ChromaticMetropolis(lattice, target, 0.0)
        assert ChromaticMetropolis(lattice, target, 1e-300).reach is eager.reach is Reach.PARTIAL
        matrix = transition_matrix(eager, objects)
        assert torch.equal(matrix, matrix.round()) and torch.equal(matrix @ matrix, torch.eye(16).double())
        assert not is_connected(matrix)
        with pytest.raises(IrreducibilityError, match="chromatic Metropolis cannot reach every object"):
            check_irreducible(eager)
        with pytest.raises(IrreducibilityError):
            sample(eager, num_chains=2, num_samples=2, progress_bar=False)
        # Beside a kernel that goes everywhere it may be used; a walk of single changes might only go round with it.
        check_irreducible(Cycle([eager, Gibbs(lattice, target, "chromatic")]))
        check_irreducible(Mixture([eager, RandomWalk(lattice, target)]))
        with pytest.raises(IrreducibilityError):
            check_irreducible(Cycle([eager, RandomWalk(lattice, target)]))
        lazy = ChromaticMetropolis(lattice, target)
        check_irreducible(lazy)
        assert (transition_matrix(lazy, objects) > 0).all()


def test_without_laziness_a_target_may_fall_apart() -> None:
    """On a ring of four with a coupling, too, some objects are led round for ever, and others never come to them."""
    target = Ising((4,), 0.5)
    matrix = transition_matrix(
        ChromaticMetropolis(Lattice.for_target(target), target, 0.0), product_space((-1, 1), (4,), torch.int8)
    )
    assert invariance_error(matrix, target.log_prob(product_space((-1, 1), (4,), torch.int8)).softmax(0)) < 1e-12
    power = matrix
    for _ in range(6):
        power = power @ power
    settled = torch.linalg.eigvals(matrix).abs()
    # More than one eigenvalue of modulus one: it does not converge.
    assert int((settled > 1.0 - 1e-9).sum()) > 1


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("name", ["ring of three", "uneven ring of three"])
def test_compositions_with_sweeps_are_exact(name: str, kind: str) -> None:
    kernel = KERNELS[kind](TARGETS[name])
    walk = RandomWalk(kernel.environment, kernel.target)
    for composed in (Cycle([kernel, walk]), Mixture([kernel, walk])):
        for _, matrix, pmf in rungs(composed, name, RUNGS):
            assert invariance_error(matrix, pmf) < 1e-10


@pytest.mark.parametrize("kind", ["Gibbs", "Metropolis"])
@pytest.mark.parametrize("name", ["glass", "uneven ring of three", "three colours on a ring"])
def test_the_kit_for_users_proves_them_as_well(name: str, kind: str) -> None:
    proof = assert_invariant(KERNELS[kind](TARGETS[name]))
    assert proof.method.startswith("by enumeration") and proof.twins


class Liar(Ising):
    """An Ising model that forgets a bond when it is asked which sites interact."""

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x)

    def interactions(self) -> Tensor:
        return self.bonds[1:]


@pytest.mark.parametrize("kind", ["Gibbs", "Metropolis"])
def test_a_target_that_forgets_an_interaction_is_found_out(kind: str) -> None:
    with pytest.raises(AssertionError, match="is not invariant"):
        assert_invariant(KERNELS[kind](Liar((3,), 0.9)))


LARGE = {"spins": Ising((6, 6), 0.35), "in a field": Ising((5, 6), 0.3, field=0.1), "colours": Potts((5, 5), 3, 0.8)}


@pytest.mark.parametrize("kind", ["Gibbs", "Metropolis"])
@pytest.mark.parametrize("name", LARGE)
def test_chains_that_start_exact_stay_exact(name: str, kind: str) -> None:
    """With the random numbers of real runs: those of the enumerator know no 16 bits."""
    proof = assert_invariant(KERNELS[kind](LARGE[name]), num_chains=1_024, num_steps=4)
    assert proof.method.startswith("by sampling") or "exact" in proof.method


def test_the_start_is_the_law_at_inverse_temperature_zero() -> None:
    for name in ("ring of three", "three colours on a ring"):
        kernel = KERNELS["Metropolis"](TARGETS[name])
        found = enumerate_decisions(lambda draws, rows, kernel=kernel: kernel.start(draws), 1)
        assert torch.equal(RowIndex(space(name)).find(found.result).sort().values, torch.arange(len(space(name))))
        torch.testing.assert_close(found.weight, torch.full_like(found.weight, 1.0 / len(found.weight)))
