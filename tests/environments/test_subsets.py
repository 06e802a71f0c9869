"""Subsets of items, of any size and of a fixed one: every state, every edge, every single change."""

import math

import pytest
import torch

from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.environments.check import check_environment
from gfnmc.environments.enumeration import enumerate_paths, enumerate_states
from gfnmc.environments.subsets import Subsets
from gfnmc.targets import from_function
from tests.environments import test_spaces as contract
from tests.support import is_identical

FREE, TWO_OF_FOUR = Subsets(3), Subsets(4, size=2)
SUBSETS = {
    "any size": FREE,
    "of one item": Subsets(1, dtype=torch.float32),
    "two of four": TWO_OF_FOUR,
    "one of three": Subsets(3, size=1, dtype=torch.int64),
    "all of three": Subsets(3, size=3),
}
# States and objects, by hand.
COUNTS = {
    "any size": (8, 8),
    "of one item": (2, 2),
    "two of four": (1 + 4 + 6, 6),
    "one of three": (1 + 3, 3),
    "all of three": (8, 1),
}
BY_NAME = pytest.mark.parametrize("name", SUBSETS)


@BY_NAME
def test_keeps_the_contract_of_environments(name: str) -> None:
    environment = SUBSETS[name]
    graph = enumerate_states(environment)
    assert (graph.num_states, len(graph.objects)) == COUNTS[name]
    check_environment(environment, num_paths=64)
    contract.test_every_edge_can_be_walked_both_ways(environment, graph)
    contract.test_only_the_source_is_the_source(environment, graph)
    contract.test_moves_that_are_not_allowed_neither_raise_nor_change_their_input(graph)
    contract.test_depths_are_path_lengths(environment, graph)
    contract.test_tokens_tell_states_apart(environment, graph)
    contract.test_changed_tokens_are_the_difference(environment, graph)
    contract.test_objects_and_states_round_trip(environment, graph)
    assert environment.builds_every_assignment == (environment.size is None)
    assert not environment.builds_every_assignment or contract.is_product(graph.objects)


@pytest.mark.parametrize("name", [name for name in SUBSETS if name != "all of three"])
def test_single_changes_pair_subsets_once_each_way_and_connect_them(name: str) -> None:
    contract.test_single_changes_pair_objects_once_each_way(SUBSETS[name], enumerate_states(SUBSETS[name]))


def test_of_all_items_there_is_one_subset_and_no_change() -> None:
    objects = torch.ones(2, 3, dtype=torch.int8)
    assert not SUBSETS["all of three"].change_mask(objects).any()
    assert torch.equal(SUBSETS["all of three"].change(objects, torch.tensor([0, 2])), objects)


def test_single_changes_are_what_they_are_said_to_be() -> None:
    objects = torch.tensor([[1, 0, 0]], dtype=torch.int8)
    changed, mask = FREE.neighbours(objects)
    assert mask.all() and changed[0].tolist() == [[0, 0, 0], [1, 1, 0], [1, 0, 1]]
    changed, mask = TWO_OF_FOUR.neighbours(torch.tensor([[1, 0, 0, 1]], dtype=torch.int8))
    # Pairs (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3).
    assert mask[0].tolist() == [True, True, False, False, True, True]
    assert changed[0, mask[0]].tolist() == [[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0]]


@BY_NAME
def test_a_subset_is_chosen_in_every_order(name: str) -> None:
    environment = SUBSETS[name]
    graph = enumerate_states(environment)
    ends = graph.is_terminal.nonzero()[:, 0]
    paths = enumerate_paths(graph)
    counted = torch.bincount(paths.states[:, -1], minlength=graph.num_states)[ends]
    by_formula = environment.log_num_paths(graph.states[ends]).exp()
    torch.testing.assert_close(by_formula, counted.double(), rtol=1e-12, atol=0.0)
    # log k! by hand.
    assert float(Subsets(9).log_num_paths(torch.ones(1, 9, dtype=torch.int8))) == pytest.approx(math.log(362_880))


def test_redoing_one_choice_at_a_time_connects_a_fixed_size() -> None:
    graph = enumerate_states(TWO_OF_FOUR)
    assert TWO_OF_FOUR.rebuild_connects == 1 and contract.rebuilding_connects(graph, 1)
    assert FREE.rebuild_connects is None
    # The negative control: redoing nothing connects nothing.
    assert not contract.rebuilding_connects(graph, 0)


def test_when_a_subset_may_end() -> None:
    states = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.int8)
    assert FREE.forward_mask(states).tolist() == [[True] * 4, [False, True, True, True], [False] * 3 + [True]]
    assert FREE.is_terminal(states).all() and (FREE.exit_action, FREE.max_depth) == (3, 3)
    fixed = Subsets(3, size=2)
    states = torch.tensor([[0, 0, 1], [1, 0, 1]], dtype=torch.int8)
    assert fixed.forward_mask(states).tolist() == [[True, True, False], [False] * 3]
    assert fixed.is_terminal(states).tolist() == [False, True]
    assert (fixed.exit_action, fixed.num_actions, fixed.max_depth, fixed.is_fixed_length) == (None, 3, 2, True)


def test_an_action_is_about_its_item() -> None:
    for environment in SUBSETS.values():
        assert environment.action_tokens is not None
        for action, (token,) in enumerate(environment.action_tokens.tolist()):
            source = environment.source(1)
            stepped = environment.step(source, torch.tensor([action]))
            assert (environment.tokens(stepped) != environment.tokens(source))[0].nonzero().tolist() == [[token]]


def test_every_unfinished_subset_is_an_object_too() -> None:
    states = enumerate_states(TWO_OF_FOUR).states
    objects, is_assigned = Subsets(4, size=2, dtype=torch.int64).assigned(states)
    assert is_identical(objects, states.to(torch.int64)) and is_assigned.all() and is_assigned.shape == (11, 4)


@pytest.mark.parametrize("stranger", [[0, 2, 0, 0], [0, -1, 1, 0], [0.5, 1, 1, 0], [math.nan, 1, 1, 0]])
def test_other_vectors_are_refused(stranger: list[float]) -> None:
    objects = torch.tensor([[1, 1, 0, 0], stranger])
    for environment in (Subsets(4), TWO_OF_FOUR):
        with pytest.raises(ObjectError, match=r"object 1, .* is not a subset of 4 items: it holds 0 and 1"):
            environment.states(objects)


@pytest.mark.parametrize("size", [0, 1, 3, 4])
def test_subsets_of_another_size_are_refused(size: int) -> None:
    objects = torch.tensor([[1, 1, 0, 0], [1] * size + [0] * (4 - size)])
    with pytest.raises(ObjectError, match=r"object 1, .* holds 0 and 1, 2 of them 1"):
        TWO_OF_FOUR.states(objects)
    assert Subsets(4).states(objects).dtype == torch.int8


@pytest.mark.parametrize("environment", [FREE, Subsets(3, size=2)], ids=["any size", "two of three"])
def test_moving_and_renaming_items_commute(environment: Subsets) -> None:
    graph = enumerate_states(environment)
    above, below = graph.states[graph.parents], graph.states[graph.children]
    turn = Symmetry("turn", (1, 2, 0), (0, 1))
    for symmetry in (turn, Symmetry("swap", (0, 2, 1), (0, 1))):
        actions = environment.transformed_actions(symmetry)
        assert actions.sort().values.tolist() == list(range(environment.num_actions))
        assert is_identical(environment.transformed(symmetry, graph.states), symmetry.apply(graph.states))
        become = environment.step(environment.transformed(symmetry, above), actions[graph.actions])
        assert is_identical(become, environment.transformed(symmetry, below))
        for mask in (environment.forward_mask, environment.backward_mask):
            renamed = mask(environment.transformed(symmetry, graph.states))
            assert torch.equal(renamed[:, actions], mask(graph.states))
    # The negative control: another permutation than its own does not commute.
    wrong = environment.step(environment.transformed(turn, above), graph.actions)
    assert not torch.equal(wrong, environment.transformed(turn, below))


def test_symmetries_that_do_not_keep_paths_are_refused() -> None:
    for stranger in (Symmetry("flip", (0, 1, 2), (1, 0)), Symmetry("small", (1, 0), (0, 1))):
        for relabel in (lambda s: FREE.transformed(s, FREE.source(1)), FREE.transformed_actions):
            with pytest.raises(CapabilityError, match="by permutations of the 3 items alone"):
                relabel(stranger)


@pytest.mark.parametrize(("num_items", "size"), [(0, None), (1, 1), (4, 0), (4, 5), (4, -1)])
def test_subsets_that_cannot_work_are_refused(num_items: int, size: int | None) -> None:
    with pytest.raises(OptionError, match=r"num_items|size"):
        Subsets(num_items, size=size)
    with pytest.raises(OptionError, match="integer dtype"):
        Subsets(4, dtype=torch.bool)


def test_small_spaces_are_known_to_be_small() -> None:
    assert Subsets(20).is_enumerable and not Subsets(21).is_enumerable
    # 1 + 62 + 1891 + 37820 states; a 63rd item would not fit the codes by which they are found.
    assert Subsets(62, size=3).is_enumerable and not Subsets(63, size=3).is_enumerable
    assert enumerate_states(Subsets(62, size=2)).num_states == 1 + 62 + 1891
    assert not Subsets(40, size=10).is_enumerable


def test_subsets_are_built_for_targets_on_bits() -> None:
    target = from_function(lambda x: x.sum(1).double(), (5,), values=(0, 1), dtype=torch.int16, name="count")
    assert Subsets.for_target(target).describe() == {
        "name": "Subsets",
        "num_actions": 6,
        "max_depth": 5,
        "num_items": 5,
        "size": None,
    }
    built = Subsets.for_target(target, size=2)
    assert (built.num_items, built.size, built.dtype, built.describe()["size"]) == (5, 2, torch.int16, 2)
    for shape, values in (((5,), (-1, 1)), ((5,), (0, 1, 2)), ((5,), None), ((2, 2), (0, 1))):
        other = from_function(lambda x: x.flatten(1).sum(1).double(), shape, values=values, name="other")
        with pytest.raises(CapabilityError, match="other is not defined on subsets"):
            Subsets.for_target(other)
