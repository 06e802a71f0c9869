"""The laws that chromatic sweeps draw from, each against numbers worked out by hand. Like test_acceptance.py."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core import coins
from gfnmc.core.coins import Coins, FewLaws, KeyedCoins
from gfnmc.core.errors import NonFiniteEnergyError, OptionError
from gfnmc.environments import Lattice
from gfnmc.kernels import ChromaticMetropolis, Gibbs, Kernel, Reason, State
from gfnmc.kernels.bond_sweep import BondSweep, _sums_over_sites
from gfnmc.kernels.chromatic_metropolis import _Metropolis
from gfnmc.kernels.gibbs import _HeatBath
from gfnmc.kernels.site_rules import Moved, report
from gfnmc.targets import Ising, Potts, Target
from tests.exact.test_acceptance_of_many import INF, Told, numbers, whole
from tests.support import assert_close, is_identical

# Rules


def test_a_site_of_two_values_is_drawn_by_the_change_with_the_other() -> None:
    change = numbers(-2.0, 0.0, 0.5, -INF, -800.0).reshape(5, 1)
    by_hand = [1 / (1 + math.exp(2.0)), 0.5, 1 / (1 + math.exp(-0.5)), 0.0, 0.0]
    assert_close(_HeatBath().log_flip(change).exp()[:, 0], numbers(*by_hand), 1e-15)
    for laziness in (0.0, 0.25):
        accepted = (1.0 - laziness) * numbers(math.exp(-2.0), 1.0, 1.0, 0.0, 0.0)
        assert_close(_Metropolis(laziness).log_flip(change).exp()[:, 0], accepted, 1e-15)
    assert not _HeatBath().counts_changes and _Metropolis(0.5).counts_changes


CHANGE = torch.tensor([[0.0, 1.0, -2.0], [0.5, -0.25, 0.0], [-INF, 0.0, 3.0]], dtype=torch.float64)
PRESENT = whole(0, 2, 1)


def test_a_value_of_several_is_drawn_from_its_law() -> None:
    draws = Told(3, {"value": whole(2, 0, 1)})
    assert _HeatBath().choose(draws, CHANGE, PRESENT).tolist() == [2, 0, 1]
    assert_close(draws.asked["value"][0].exp(), CHANGE.exp() / CHANGE.exp().sum(1, keepdim=True), 1e-15)


def test_another_value_is_proposed_and_accepted() -> None:
    draws = Told(3, {"other": whole(0, 1, 1), "change": torch.tensor([True, False, True])})
    # Proposed are 1, 1 and 0; the last is impossible.
    assert _Metropolis(0.25).choose(draws, CHANGE, PRESENT).tolist() == [1, 2, 1]
    assert draws.asked["other"][0].tolist() == [2, 2, 2]
    assert_close(draws.asked["change"][0].exp(), 0.75 * numbers(1.0, math.exp(-0.25), 0.0), 1e-15)


# By changes


class Uneven(Target):
    """Three sites in a row, of some values each; a table for each of the two pairs."""

    name, event_shape, dtype = "uneven", (3,), torch.int64

    def __init__(self, values: tuple[int, ...]) -> None:
        self.values = values
        size = len(values)
        self.left = torch.tensor([[math.sin(1.0 + 3 * i + 5 * j) for j in range(size)] for i in range(size)]).double()
        self.right = torch.tensor([[math.cos(2.0 + 2 * i + 7 * j) for j in range(size)] for i in range(size)]).double()
        self.asked: list[Tensor] = []

    def log_prob(self, x: Tensor) -> Tensor:
        first, second, third = torch.searchsorted(torch.tensor(self.values), x.contiguous()).unbind(1)
        return self.left[first, second] + self.right[second, third]

    def interactions(self) -> Tensor:
        return torch.tensor([[0, 1], [1, 2]])

    def log_prob_deltas(self, x: Tensor, sites: Tensor) -> Tensor:
        self.asked.append(x)
        return super().log_prob_deltas(x, sites)


def gibbs(target: Target) -> Kernel:
    return Gibbs(Lattice.for_target(target), target, "chromatic")


POWERS = {"one": [1.0] * 4, "warm": [0.3] * 4, "one a chain": [0.0, 0.5, 1.0, 0.0], "one is warm": [0.0, 0.0, 2.0, 0.0]}


@pytest.mark.parametrize("powers", [*POWERS, "none is warm"])
def test_sites_of_a_colour_are_drawn_given_the_other_colours(powers: str) -> None:
    given = POWERS.get(powers, [0.0] * 4)
    target = Uneven((0, 2, 5))
    kernel = gibbs(target)
    kernel.inverse_temperature = given[0] if len(set(given)) == 1 else numbers(*given)
    start = torch.tensor([[0, 0, 0], [2, 5, 0], [5, 5, 2], [0, 2, 5]])
    outer, inner = whole(1, 2, 0, 0, 2, 2, 1, 0), whole(2, 0, 1, 1)
    draws, cache = Told(4, {"colour0*2value": outer, "colour1*1value": inner}), object()
    before = State(start.clone(), target.log_prob(start), cache)
    state, info = kernel.step(draws, before)
    values = torch.tensor(target.values)
    moved = torch.stack([values[outer[::2]], values[inner], values[outer[1::2]]], 1)
    assert torch.equal(state.position, moved) and torch.equal(before.position, start)
    assert_close(state.log_prob, target.log_prob(moved), 1e-14)
    assert_close(before.log_prob, target.log_prob(start), 0.0)
    assert state.cache is cache and info.proposal is state.position
    halfway = moved.clone()
    halfway[:, 1] = start[:, 1]
    outer_law, inner_law = draws.asked["colour0*2value"][0], draws.asked["colour1*1value"][0]
    for row, beta in enumerate(given):
        for site, asked, others in ((0, outer_law[2 * row], start), (2, outer_law[2 * row + 1], start),
                                    (1, inner_law[row], halfway)):  # fmt: skip
            variants = others[row].repeat(3, 1)
            variants[:, site] = values
            assert_close(asked.exp(), (beta * target.log_prob(variants)).softmax(0), 1e-14)
    num_warm = sum(beta > 0.0 for beta in given)
    assert [len(x) for x in target.asked] == ([] if num_warm == 0 else [num_warm] * 2)
    calls = whole(*(6 if beta > 0.0 else 1 for beta in given))
    assert is_identical(info.target_calls, calls) and is_identical(info.delta_calls, torch.zeros_like(calls))


def test_a_site_of_two_values_takes_the_other_or_keeps_its_own() -> None:
    target = Uneven((-1, 4))
    kernel = ChromaticMetropolis(Lattice.for_target(target), target, 0.25)
    kernel.inverse_temperature = numbers(1.0, 0.5)
    start = torch.tensor([[-1, -1, 4], [4, 4, 4]])
    outer, inner = torch.tensor([True, False, False, True]), torch.tensor([False, True])
    draws = Told(2, {"colour0change*2": outer, "colour1change*1": inner})
    state, info = kernel.step(draws, kernel.init(start))
    assert state.position.tolist() == [[4, -1, 4], [4, -1, -1]]
    assert_close(state.log_prob, target.log_prob(state.position), 1e-14)
    turned = {0: [[4, -1, 4], [-1, -1, -1]], 1: [[-1, 4, 4], [4, 4, -1]]}
    at = {name: target.log_prob(torch.tensor(x)) for name, x in turned.items()}
    here = target.log_prob(start)
    changes = [at[0][0] - here[0], at[0][1] - here[0], 0.5 * (at[1][0] - here[1]), 0.5 * (at[1][1] - here[1])]
    by_hand = numbers(*(0.75 * min(1.0, math.exp(change)) for change in changes))
    assert_close(draws.asked["colour0change*2"][0].exp(), by_hand, 1e-14)
    between, ends = torch.tensor([[4, -1, 4], [4, 4, -1]]), torch.tensor([[4, 4, 4], [4, -1, -1]])
    changes = numbers(1.0, 0.5) * (target.log_prob(ends) - target.log_prob(between))
    assert_close(draws.asked["colour1change*1"][0].exp(), 0.75 * changes.clamp(max=0.0).exp(), 1e-14)
    assert_close(info.acceptance_rate, numbers(1 / 3, 2 / 3), 1e-15)
    assert is_identical(info.target_calls, whole(3, 3))


def test_a_site_of_several_values_is_offered_another() -> None:
    target = Uneven((0, 2, 5))
    kernel = ChromaticMetropolis(Lattice.for_target(target), target, 0.25)
    start = torch.tensor([[0, 2, 5]])
    draws = Told(
        1,
        {
            "colour0*2other": whole(1, 0),
            "colour0*2change": torch.tensor([True, False]),
            "colour1*1other": whole(1),
            "colour1*1change": torch.tensor([True]),
        },
    )
    state, info = kernel.step(draws, kernel.init(start))
    # Offered are 5 in the place of 0 and 0 in the place of 5; then 0 in the place of 2.
    assert state.position.tolist() == [[5, 0, 5]]
    assert_close(state.log_prob, target.log_prob(state.position), 1e-14)
    there = target.log_prob(torch.tensor([[5, 2, 5], [0, 2, 0]])) - target.log_prob(start)
    assert_close(draws.asked["colour0*2change"][0].exp(), 0.75 * there.clamp(max=0.0).exp(), 1e-14)
    assert_close(info.acceptance_rate, numbers(2 / 3), 1e-15)


class Sloppy(Uneven):
    """Forgets that a difference is a number, where a chain stands at 2."""

    def log_prob_deltas(self, x: Tensor, sites: Tensor) -> Tensor:
        delta = super().log_prob_deltas(x, sites)
        return torch.where((x[:, :1] == 2)[:, :, None], math.nan, delta)


@pytest.mark.parametrize("powers", [1.0, numbers(0.0, 1.0, 0.0, 1.0)])
def test_what_a_target_returns_is_named_by_its_chain(powers: float | Tensor) -> None:
    kernel = gibbs(Sloppy((0, 1, 2)))
    kernel.inverse_temperature = powers
    draws = Told(4, {"colour0*2value": whole(*[0] * 8), "colour1*1value": whole(*[0] * 4)})
    with pytest.raises(NonFiniteEnergyError) as error:
        kernel.step(draws, State(torch.tensor([[0, 0, 0], [0, 1, 0], [0, 2, 1], [2, 1, 0]]), torch.zeros(4).double()))
    assert error.value.row == 3


class Cold(Uneven):
    """Has no density where a chain stands at 2."""

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] == 2, math.nan, super().log_prob(x))


def test_what_a_flat_chain_costs_is_named_by_its_chain() -> None:
    kernel = gibbs(Cold((0, 1, 2)))
    kernel.inverse_temperature = numbers(1.0, 0.0, 1.0, 0.0)
    draws = Told(4, {"colour0*2value": whole(0, 0, 0, 0, 0, 0, 2, 0), "colour1*1value": whole(0, 0, 0, 0)})
    target = kernel.target
    assert isinstance(target, Uneven)
    target.log_prob_deltas = lambda x, sites: torch.zeros(len(x), len(sites), 3).double()  # type: ignore[method-assign]
    with pytest.raises(NonFiniteEnergyError) as error:
        kernel.step(draws, State(torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4).double()))
    assert error.value.row == 3


# By bonds


class ToldCoins(Coins):
    """Coins that fall as they are told, and remember what was asked."""

    def __init__(self, laws: FewLaws, answers: list[list[list[bool]]]) -> None:
        self.laws = laws
        self.answers = list(answers)
        self.asked: list[np.ndarray] = []

    def decide(self, which: np.ndarray) -> np.ndarray:
        self.asked.append(which.copy())
        return np.array(self.answers.pop(0))


class Throwing(Told):
    """Draws with such coins, of one role."""

    def __init__(self, role: str, answers: list[list[list[bool]]]) -> None:
        super().__init__(2, {})
        self.wanted, self.answers, self.thrown = role, answers, []

    def role(self, name: str) -> "Throwing":
        assert name == self.wanted
        return self

    def coins(self, laws: FewLaws, times: int) -> ToldCoins:
        assert times == 4
        self.thrown.append(ToldCoins(laws, self.answers))
        return self.thrown[0]


STRENGTH = 0.6
# A ring of four; the bond between 1 and 2 wants its ends different.
RING = Ising((1, 4), numbers(0.3, -0.3, 0.3, 0.3))
START = torch.tensor([[[1, 1, 1, 1]], [[1, -1, 1, -1]]], dtype=torch.int8)
# Satisfied bonds less those that are not, at the sites 0 and 2, then at 1 and 3 after the flips below.
FLIPS = [[[True, False], [False, True]], [[True, False], [False, True]]]
AFTER_OUTER = [[-1, 1, 1, 1], [1, -1, -1, -1]]
ALIGNED = [[[2, -2], [0, 0]], [[-2, -2], [0, 0]]]
END = [[[-1, -1, 1, 1]], [[1, -1, -1, 1]]]


def aligned(spins: list[int], site: int) -> int:
    wants = {(0, 1): 1, (1, 2): -1, (2, 3): 1, (3, 0): 1}
    return sum(want * spins[a] * spins[b] for (a, b), want in wants.items() if site in (a, b))


def test_the_numbers_of_this_page_are_right() -> None:
    for row in range(2):
        for place, site in enumerate((0, 2)):
            assert ALIGNED[0][place][row] == aligned(START[row, 0].tolist(), site)
        for place, site in enumerate((1, 3)):
            assert ALIGNED[1][place][row] == aligned(AFTER_OUTER[row], site)


@pytest.mark.parametrize("powers", [1.0, 0.5, numbers(0.25, 1.0), numbers(2.0, 2.0)])
@pytest.mark.parametrize("kind", ["value", "change"])
def test_spins_flip_by_their_satisfied_bonds(kind: str, powers: float | Tensor) -> None:
    lattice = Lattice.for_target(RING)
    kernel = gibbs(RING) if kind == "value" else ChromaticMetropolis(lattice, RING, 0.25)
    kernel.inverse_temperature = powers
    draws, cache = Throwing(kind, FLIPS), object()
    before = State(START.clone(), RING.log_prob(START), cache)
    state, info = kernel.step(draws, before)
    assert state.position.tolist() == END and state.position.dtype == torch.int8
    assert torch.equal(before.position, START) and torch.equal(before.log_prob, RING.log_prob(START))
    assert_close(state.log_prob, RING.log_prob(torch.tensor(END, dtype=torch.int8)), 1e-14)
    assert state.cache is cache and info.proposal is state.position
    thrown = draws.thrown[0]
    beta = torch.as_tensor(powers, dtype=torch.float64).expand(2).tolist()
    for which, numbers_of_sites in zip(thrown.asked, ALIGNED, strict=True):
        assert (which >= 0).all()
        for place in range(2):
            for row in range(2):
                change = -STRENGTH * beta[row] * numbers_of_sites[place][row]
                chance = 1 / (1 + math.exp(-change)) if kind == "value" else 0.75 * min(1.0, math.exp(change))
                assert math.exp(thrown.laws.log_probs[int(which[place, row])]) == pytest.approx(chance, abs=1e-15)
    is_gibbs = kind == "value"
    assert_close(info.acceptance_rate, numbers(1.0, 1.0) if is_gibbs else numbers(0.5, 0.5), 0.0)
    assert is_identical(info.target_calls, whole(4, 4)) and is_identical(torch.as_tensor(info.delta_calls), whole(4, 4))


def by_bonds(kernel: Kernel) -> BondSweep:
    quicker = kernel._sweep._quicker  # type: ignore[attr-defined]
    assert isinstance(quicker, BondSweep)
    return quicker


def test_changes_are_counted_for_those_who_want_to_know() -> None:
    state = State(START.clone(), RING.log_prob(START))
    assert by_bonds(gibbs(RING))(Throwing("value", FLIPS), state, 1.0).num_changed is None
    sweep = by_bonds(ChromaticMetropolis(Lattice.for_target(RING), RING))
    counted = sweep(Throwing("change", FLIPS), state, 1.0).num_changed
    assert counted is not None and counted.tolist() == [2, 2] and counted.dtype == np.int16
    # Where a byte cannot hold what a site may add up to, wider numbers do.
    sweep._degree = 100
    moved = sweep(Throwing("change", FLIPS), state, 1.0)
    assert (
        moved.num_changed is not None and moved.num_changed.tolist() == [2, 2] and moved.num_changed.dtype == np.int64
    )
    assert_close(moved.log_prob, RING.log_prob(torch.tensor(END, dtype=torch.int8)), 1e-14)


def test_every_byte_has_its_law() -> None:
    sweep = by_bonds(gibbs(RING))
    numbers_of_bytes = np.arange(256, dtype=np.uint8).view(np.int8).astype(float)
    for power in (1.0, 0.25):
        laws, first = sweep._laws(power)
        assert first is None
        assert_close(laws.log_probs, torch.from_numpy(-np.log1p(np.exp(STRENGTH * power * numbers_of_bytes))), 1e-13)
    laws, first = sweep._laws(numbers(1.0, 0.25, 1.0))
    assert first is not None and first.tolist() == [256, 0, 256]
    for row, power in enumerate((1.0, 0.25, 1.0)):
        found = laws.log_probs[first[row] : first[row] + 256]
        assert_close(found, torch.from_numpy(-np.log1p(np.exp(STRENGTH * power * numbers_of_bytes))), 1e-13)


def test_colours_of_a_potts_model_are_spins() -> None:
    potts = Potts((1, 4), 2, 0.6)
    kernel = gibbs(potts)
    draws = Throwing("value", FLIPS)
    start = torch.tensor([[[1, 1, 1, 1]], [[1, 0, 1, 0]]], dtype=torch.int8)
    state, _ = kernel.step(draws, kernel.init(start))
    assert state.position.tolist() == [[[0, 0, 1, 1]], [[1, 0, 0, 1]]] and state.position.dtype == torch.int8
    assert_close(state.log_prob, potts.log_prob(state.position), 1e-14)
    assert draws.thrown[0].asked[0].view(np.int8).tolist() == [[2, -2], [2, -2]]


def test_a_site_at_the_end_of_a_chain_has_one_bond() -> None:
    chain = Ising((1, 4), -0.3, periodic=False)
    kernel = gibbs(chain)
    draws = Throwing("value", FLIPS)
    state, _ = kernel.step(draws, kernel.init(START))
    assert state.position.tolist() == END
    assert_close(state.log_prob, chain.log_prob(state.position), 1e-14)
    assert draws.thrown[0].asked[0].view(np.int8).tolist() == [[-1, 1], [-2, 2]]


def test_flips_are_added_up_site_by_site() -> None:
    counts = np.array([[1, -3], [2, 5], [-4, 0]], dtype=np.int8)
    assert _sums_over_sites(counts, 5).tolist() == [-1, 2]
    assert _sums_over_sites(counts, 5).dtype == np.int16
    for num_sites, bound in ((3, 127), (40, 4), (1_000, 3), (300, 120), (70_000, 1), (4_096, 8)):
        full = np.full((num_sites, 2), bound, dtype=np.int8)
        full[:, 1] *= -1
        wanted = [num_sites * bound, -num_sites * bound]
        assert _sums_over_sites(full, bound).tolist() == wanted
        assert _sums_over_sites(full, bound).dtype == (np.int16 if num_sites * bound < 32_768 else np.int64)
        assert _sums_over_sites(full.astype(np.int64), 1_000).tolist() == wanted


# Coins


def test_sixteen_bits_decide_and_the_last_of_them_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    laws = FewLaws(numbers(0.0, 0.5, 0.25 + 0.75 / 65536, 1.0).log())
    assert laws.thresholds(np.array([[0, 1], [2, 3]], dtype=np.uint8)).tolist() == [[0, 32768], [16384, 65535]]
    assert laws.thresholds(np.array([0, 1, 2, 3])).tolist() == [0, 32768, 16384, 65535]
    assert laws.thresholds(np.array([3], dtype=np.uint8)).tolist() == [65535]
    three = laws.thresholds(np.array([3, 0, 1], dtype=np.uint8))
    assert three.tolist() == [65535, 0, 32768] and three.dtype == np.uint16
    bits = np.array([[32767, 16383, 65534, 0], [32768, 16384, 65535, 65535]], dtype=np.uint16)
    monkeypatch.setattr(coins, "_bits", lambda *args: bits)
    low, high = int(0.75 * 2**37) - 1, int(0.75 * 2**37)
    opened: list[tuple[str, int, int]] = []
    for number, is_yes in ((low, True), (high, False)):
        monkeypatch.setattr(coins, "_open_bits", lambda *place, number=number: opened.append(place) or number)
        thrown = KeyedCoins(laws, 2, 4, "name")
        which = np.array([[1, 2, 3, 0], [1, 2, 3, 2]], dtype=np.uint8)
        assert thrown.decide(which[:1]).tolist() == [[True, True, True, False]]
        assert thrown.decide(which[1:]).tolist() == [[False, False, True, is_yes]]
        with pytest.raises(OptionError, match="2 decisions a row were ordered, and 3 asked for; order more"):
            thrown.decide(which[:1])
    assert opened == [("name", 1, 2), ("name", 1, 3)] * 2


def test_as_many_numbers_say_yes_as_are_below_the_probability() -> None:
    for probability in (0.3, 2.0**-53, 1.0 - 2.0**-53, 1.0, 0.0, 12345 / 65536):
        laws = FewLaws(numbers(probability).log())
        threshold = int(laws.thresholds(np.array([0]))[0])
        assert not laws.is_yes(0, 2**37)
        # The least number that says no, by bisection.
        least, most = 0, 2**37
        while least < most:
            middle = (least + most) // 2
            least, most = (middle + 1, most) if laws.is_yes(0, middle) else (least, middle)
        assert threshold * 2**37 + least == math.ceil(float(laws.log_probs.exp()) * 2**53)


def test_more_laws_than_a_byte_can_name_are_looked_up_one_by_one() -> None:
    laws = FewLaws((torch.arange(300, dtype=torch.float64) / 300).log())
    which = np.array([[0, 257], [299, 150]])
    assert laws.thresholds(which).tolist() == [[0, 257 * 65536 // 300], [299 * 65536 // 300, 32768]]
    assert laws.thresholds(np.array([150, 0], dtype=np.uint8)).tolist() == [32768, 0]


def test_laws_that_a_byte_can_name_are_looked_up_two_at_once() -> None:
    for num_laws in (4, 256):
        laws = FewLaws((torch.arange(num_laws, dtype=torch.float64) / num_laws).log())
        laws._thresholds = np.zeros(num_laws, dtype=np.uint16)
        assert laws.thresholds(np.array([2, 1], dtype=np.uint8)).tolist() == [2 * 65536 // num_laws, 65536 // num_laws]


# Reports


def test_a_report_says_what_was_asked() -> None:
    position, log_prob = torch.zeros(3, 2), numbers(1.0, 2.0, 3.0)
    everybody = report(Moved(position, log_prob, None, None), None, 7, offers_delta=True)
    some = report(Moved(position, log_prob, torch.tensor([True, False, True]), None), numbers(0.1, 0.2, 0.3), 7,
                  offers_delta=True)  # fmt: skip
    full = report(Moved(position, log_prob, torch.tensor([True, False, True]), None), None, 7, offers_delta=False)
    for info in (everybody, some, full):
        assert info.proposal is position
        assert is_identical(info.is_accepted, torch.ones(3, dtype=torch.bool))
        assert is_identical(info.log_ratio, torch.zeros(3, dtype=torch.float64))
        assert is_identical(info.reason, torch.full((3,), int(Reason.ACCEPTED), dtype=torch.int8))
        for field in (info.num_back_steps, info.num_forward_steps, info.policy_calls):
            assert is_identical(field, torch.zeros(3, dtype=torch.int64))
    assert_close(everybody.acceptance_rate, numbers(1.0, 1.0, 1.0), 0.0)
    assert_close(some.acceptance_rate, numbers(0.1, 0.2, 0.3), 0.0)
    assert is_identical(everybody.target_calls, whole(7, 7, 7)) and is_identical(
        torch.as_tensor(everybody.delta_calls), whole(7, 7, 7)
    )
    for info in (some, full):
        assert is_identical(info.target_calls, whole(7, 1, 7))
    assert is_identical(torch.as_tensor(some.delta_calls), whole(7, 0, 7))
    assert is_identical(torch.as_tensor(full.delta_calls), whole(0, 0, 0))
