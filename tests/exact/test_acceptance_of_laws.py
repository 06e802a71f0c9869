"""The laws that Gibbs and the cluster kernels draw from, each against numbers worked out by hand.

What they draw is always kept, so these laws are all that makes them exact. Like test_acceptance.py.
"""

import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import NonFiniteEnergyError
from gfnmc.environments import Lattice
from gfnmc.kernels import Gibbs, Reason, State
from gfnmc.kernels.clusters import BondModel, log_active_probability
from gfnmc.kernels.gibbs import _normalised
from gfnmc.kernels.swendsen_wang import SwendsenWang, log_flip_probability
from gfnmc.targets import Ising, Potts, Target, from_function
from tests.exact.test_acceptance_of_many import INF, Told, numbers, whole
from tests.support import CountingTarget, assert_close, is_identical

# Gibbs


def test_scores_are_normalised_row_by_row() -> None:
    law = _normalised(numbers(1.0, 2.0, 5.0, 3.0, 3.0, 0.0).log().reshape(2, 3))
    assert_close(law.exp(), torch.tensor([[1 / 8, 2 / 8, 5 / 8], [1 / 2, 1 / 2, 0.0]]).double(), 1e-15)
    assert law.is_contiguous()


PAIRED = numbers(0.0, 1.0, -2.0, 0.5, -INF, 3.0, 0.25, -0.75, 1.25).reshape(3, 3)


def paired() -> Target:
    return from_function(lambda x: PAIRED[x[:, 0], x[:, 1]], (2,), values=(0, 1, 2), name="paired")


@pytest.mark.parametrize("power", [1.0, 0.3, 0.0, "one a row", "one warm", "none warm"])
def test_a_site_is_drawn_from_its_law_given_the_others(power: float | str) -> None:
    cases = {"one a row": [0.0, 0.5, 1.0, 2.0], "one warm": [0.0, 0.5, 0.0, 0.0], "none warm": [0.0] * 4}
    given = cases[power] if isinstance(power, str) else [power] * 4
    counted = CountingTarget(paired())
    kernel = Gibbs(Lattice((2,), (0, 1, 2)), counted)
    kernel.inverse_temperature = numbers(*given) if isinstance(power, str) else power
    start = torch.tensor([[1, 0] if given[0] == 0.0 else [0, 0], [2, 1], [0, 2], [1, 0]])
    if given[0] == 0.0:
        start[0, 1] = 1
    sites, picked = whole(0, 1, 0, 1), whole(2, 0, 1, 2)
    draws, cache = Told(4, {"site": sites, "value": picked}), object()
    before = State(start.clone(), PAIRED[start[:, 0], start[:, 1]], cache)
    state, info = kernel.step(draws, before)
    assert draws.asked["site"][0].tolist() == [2] * 4
    law = draws.asked["value"][0]
    for row in range(4):
        others = start[row].repeat(3, 1)
        others[:, sites[row]] = torch.arange(3)
        weights = [math.exp(given[row] * float(PAIRED[a, b])) if given[row] else 1.0 for a, b in others]
        assert_close(law[row].exp(), numbers(*weights) / sum(weights), 1e-14)
    moved = start.clone()
    moved[torch.arange(4), sites] = picked
    assert torch.equal(state.position, moved) and torch.equal(before.position, start)
    assert_close(state.log_prob, PAIRED[moved[:, 0], moved[:, 1]], 1e-15)
    assert_close(before.log_prob, PAIRED[start[:, 0], start[:, 1]], 0.0)
    assert state.cache is cache and info.proposal is state.position
    calls = whole(*(2 if b > 0.0 else 1 for b in given))
    assert is_identical(info.target_calls, calls) and not torch.as_tensor(info.delta_calls).any()
    for field in (info.num_back_steps, info.num_forward_steps, info.policy_calls):
        assert is_identical(field, torch.zeros(4, dtype=torch.int64))
    assert info.is_accepted.dtype == torch.bool and info.is_accepted.all()
    assert is_identical(info.log_ratio, torch.zeros(4, dtype=torch.float64))
    assert is_identical(info.acceptance_rate, torch.ones(4, dtype=torch.float64))
    assert is_identical(info.reason, torch.full((4,), int(Reason.ACCEPTED), dtype=torch.int8))


def test_a_sweep_draws_each_site_given_those_before_it() -> None:
    ising = Ising((1, 2), 0.5, field=0.25)
    kernel = Gibbs(Lattice.for_target(ising), ising, scan="systematic")
    start = -torch.ones(1, 1, 2, dtype=ising.dtype)
    draws = Told(1, {"value": whole(1)})
    state, info = kernel.step(draws, kernel.init(start))
    assert state.position.tolist() == [[[1, 1]]]
    # The second site's law, its neighbour being up by then.
    neighbour = 0.5 * len(ising.bonds)
    assert_close(draws.asked["value"][0].exp()[:, 1], numbers(1 / (1 + math.exp(-2 * (neighbour + 0.25)))), 1e-15)
    assert_close(state.log_prob, ising.log_prob(state.position), 1e-15)
    assert int(info.target_calls) == int(info.delta_calls) == 2


def test_a_site_of_an_object_that_lies_otherwise_in_memory_is_drawn() -> None:
    ising = Ising((2, 2), 0.5)
    start = torch.tensor([[[-1, -1], [1, -1]]], dtype=ising.dtype).transpose(1, 2)
    kernel = Gibbs(Lattice.for_target(ising), ising)
    state, _ = kernel.step(Told(1, {"site": whole(2), "value": whole(1)}), kernel.init(start))
    assert state.position.tolist() == [[[-1, 1], [1, -1]]]


def test_differences_are_where_the_objects_are() -> None:
    position, sites = torch.zeros(4, 2, dtype=torch.int64, device="meta"), torch.zeros(4, dtype=torch.int64)
    delta = Gibbs(Lattice((2,), (0, 1, 2)), paired())._delta(position, sites, whole())
    assert delta.device.type == "meta" and delta.shape == (4, 3)


class Sloppy(Target):
    """Forgets that a difference is a number."""

    name, event_shape, dtype, values = "sloppy", (2,), torch.int64, (0, 1, 2)

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.float64)

    def log_prob_delta(self, x: Tensor, sites: Tensor) -> Tensor:
        return torch.where(x[:, :1] == 2, math.nan, torch.zeros(len(x), 3, dtype=torch.float64))


@pytest.mark.parametrize("powers", [1.0, numbers(0.0, 1.0, 0.0, 1.0)])
def test_what_a_target_returns_to_gibbs_is_named_by_its_chain(powers: float | Tensor) -> None:
    kernel = Gibbs(Lattice((2,), (0, 1, 2)), Sloppy())
    kernel.inverse_temperature = powers
    draws = Told(4, {"site": whole(1, 1, 1, 1), "value": whole(0, 0, 0, 0)})
    with pytest.raises(NonFiniteEnergyError) as error:
        kernel.step(draws, State(torch.tensor([[0, 0], [0, 1], [0, 2], [2, 1]]), torch.zeros(4).double()))
    assert error.value.row == 3


def test_what_a_cold_chain_costs_gibbs_is_named_by_its_chain() -> None:
    trapped = CountingTarget(paired(), trap_at=1, trap=lambda x, value: torch.where(x[:, 0] == 2, math.nan, value))
    kernel = Gibbs(Lattice((2,), (0, 1, 2)), trapped)
    kernel.inverse_temperature = numbers(1.0, 0.0, 1.0, 0.0)
    draws = Told(4, {"site": whole(0, 0, 0, 0), "value": whole(0, 0, 0, 2)})
    with pytest.raises(NonFiniteEnergyError) as error:
        kernel.step(draws, State(torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4).double()))
    assert error.value.row == 3


# Clusters


def test_a_bond_is_active_by_its_strength() -> None:
    found = log_active_probability(numbers(0.0, 0.5, 2.0), numbers(1.0, 0.25))
    by_hand = [[0.0, 1 - math.exp(-0.5), 1 - math.exp(-2.0)], [0.0, 1 - math.exp(-0.125), 1 - math.exp(-0.5)]]
    assert_close(found.exp(), torch.tensor(by_hand, dtype=torch.float64), 1e-15)
    assert found[:, 0].tolist() == [-INF, -INF]


BOND_MODEL = BondModel(
    torch.tensor([[0, 1], [1, 2], [2, 3]]), numbers(0.5, 0.0, 2.0), torch.tensor([True, True, False]), torch.zeros(4)
)


def clusters(target: Target) -> SwendsenWang:
    return SwendsenWang(Lattice.for_target(target), target)


def test_only_satisfied_bonds_may_be_active() -> None:
    kernel = clusters(Ising((1, 4), 0.5))
    kernel._model = BOND_MODEL
    values, power = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0]]), numbers(1.0, 0.5, 2.0)
    draws = Told(3, {"bonds*3": torch.tensor([True, True, True, False, True, True, True, True, True])})
    found = kernel._draw_active(draws, values, power)
    assert found.tolist() == [[True, False, False], [False, False, True], [False, False, True]]
    asked, active = draws.asked["bonds*3"]
    assert active.tolist() == [True, False, False, True, False, True, False, False, True]
    assert_close(asked.reshape(3, 3), log_active_probability(BOND_MODEL.strength, power), 0.0)
    kernel._model = BOND_MODEL._replace(bonds=torch.zeros(0, 2, dtype=torch.int64))
    none = kernel._draw_active(Told(3, {}), values, power)
    assert is_identical(none, torch.zeros(3, 0, dtype=torch.bool))


def test_a_cluster_is_flipped_by_its_field() -> None:
    field, labels = numbers(0.5, -1.0, 0.25, 2.0), torch.tensor([[0, 0, 2, 0], [0, 1, 1, 3]])
    values = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 1]])
    found = log_flip_probability(field, values, labels, numbers(1.0, 0.5))
    on_cluster = torch.tensor([[1.5, 0.0, -0.25, 0.0], [-0.5, -1.25, 0.0, 2.0]]).double()
    by_hand = 1 / (1 + (2 * numbers(1.0, 0.5)[:, None] * on_cluster).exp())
    assert_close(found.exp(), by_hand, 1e-15)


def test_the_sites_of_a_cluster_turn_together() -> None:
    labels, values = torch.tensor([[0, 0, 2, 0], [0, 1, 1, 3]]), torch.tensor([[1, 1, 0, 1], [0, 1, 0, 1]])
    is_root, power = [True, False, True, False, True, True, False, True], numbers(1.0, 0.5)
    with_field = clusters(Ising((1, 4), 0.5, field=numbers(0.5, -1.0, 0.25, 2.0)[None]))
    draws = Told(2, {"clusters*4": torch.tensor([True, True, False, True, False, True, True, True])})
    turns, extras = with_field._turns(draws, values, labels, power)
    assert is_identical(turns, torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1]]))
    assert {name: number.tolist() for name, number in extras.items()} == {"num_clusters": [2, 3]}
    asked, active = draws.asked["clusters*4"]
    assert active.tolist() == is_root
    log_flip = log_flip_probability(numbers(0.5, -1.0, 0.25, 2.0), values, labels, power)
    assert_close(asked, log_flip.flatten(), 0.0)
    # Without a field every value is as likely as any other.
    draws = Told(2, {"clusters*4": whole(2, 1, 0, 1, 1, 2, 0, 1)})
    turns, extras = clusters(Potts((1, 4), 3, 0.5))._turns(draws, values, labels, power)
    assert is_identical(turns, torch.tensor([[2, 2, 0, 2], [1, 2, 2, 1]]))
    assert extras["num_clusters"].tolist() == [2, 3]
    asked, active = draws.asked["clusters*4"]
    assert asked.tolist() == [3] * 8 and active.tolist() == is_root
