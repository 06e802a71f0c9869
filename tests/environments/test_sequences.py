"""Words written from the left: every state, every edge, every single change."""

import pytest
import torch

from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.environments.check import check_environment
from gfnmc.environments.enumeration import enumerate_paths, enumerate_states
from gfnmc.environments.sequences import Sequences
from gfnmc.targets import from_function
from tests.environments import test_spaces as contract
from tests.support import is_identical

DNA = Sequences(4, 3, min_length=2)
SEQUENCES = {
    "bits": Sequences(2, 3),
    "not empty": Sequences(3, 2, min_length=1, dtype=torch.int64),
    "of two lengths": DNA,
    "of one length": Sequences(2, 3, min_length=3),
    "tallies": Sequences(1, 4, dtype=torch.int32),
    "one letter": Sequences(3, 1, min_length=1, dtype=torch.uint8),
}
# States and objects, by hand.
COUNTS = {
    "bits": (1 + 2 + 4 + 8, 15),
    "not empty": (1 + 3 + 9, 12),
    "of two lengths": (1 + 4 + 16 + 64, 80),
    "of one length": (15, 8),
    "tallies": (5, 5),
    "one letter": (4, 3),
}
BY_NAME = pytest.mark.parametrize("name", SEQUENCES)


@BY_NAME
def test_keeps_the_contract_of_environments(name: str) -> None:
    environment = SEQUENCES[name]
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


@BY_NAME
def test_single_changes_pair_words_once_each_way_and_connect_them(name: str) -> None:
    contract.test_single_changes_pair_objects_once_each_way(SEQUENCES[name], enumerate_states(SEQUENCES[name]))


@BY_NAME
def test_single_changes_are_all_words_one_letter_away(name: str) -> None:
    """Two words are one change apart where one position differs: a blank there means that one has the other's start."""
    environment = SEQUENCES[name]
    words = enumerate_states(environment).objects
    is_near = (words[:, None] != words).sum(-1) == 1
    changed, mask = environment.neighbours(words)
    for word, near in enumerate(is_near):
        wanted = sorted(words[near].tolist())
        assert sorted(changed[word, mask[word]].tolist()) == wanted


@BY_NAME
def test_a_word_is_written_in_one_way(name: str) -> None:
    graph = enumerate_states(SEQUENCES[name])
    counted = torch.bincount(enumerate_paths(graph).states[:, -1], minlength=graph.num_states)
    assert torch.equal(counted, graph.is_terminal.to(torch.int64))
    assert not SEQUENCES[name].log_num_paths(graph.states).any()


def test_when_a_word_may_end() -> None:
    states = torch.tensor([[4, 4, 4], [2, 4, 4], [2, 0, 4], [2, 0, 3]], dtype=torch.int8)
    assert DNA.forward_mask(states)[:, :4].all(1).tolist() == [True, True, True, False]
    assert DNA.forward_mask(states)[:, 4].tolist() == DNA.is_terminal(states).tolist() == [False, False, True, True]
    assert (DNA.blank, DNA.exit_action, DNA.num_actions) == (4, 4, 5)
    assert DNA.backward_mask(states).nonzero().tolist() == [[1, 2], [2, 0], [3, 3]]
    assert DNA.step(states[:3], torch.tensor([1, 1, 1])).tolist() == [[1, 4, 4], [2, 1, 4], [2, 0, 1]]


def test_single_changes_are_what_they_are_said_to_be() -> None:
    words = Sequences(3, 2)
    changed, mask = words.neighbours(torch.tensor([[1, 3]], dtype=torch.int8))
    # Substitutions at the first and at the second position, letters to append, the deletion.
    assert mask[0].tolist() == [True, True, False, False, True, True, True, True]
    assert changed[0, mask[0]].tolist() == [[2, 3], [0, 3], [1, 0], [1, 1], [1, 2], [3, 3]]
    # No append at full length, no deletion at the least.
    assert words.change_mask(torch.tensor([[1, 2]]))[0].tolist() == [True] * 4 + [False] * 3 + [True]
    shortest = Sequences(3, 2, min_length=1).change_mask(torch.tensor([[1, 3]]))
    assert shortest[0].tolist() == [True, True, False, False, True, True, True, False]


def test_words_and_states_are_the_same_apart_from_dtype() -> None:
    words = torch.tensor([[2, 0, 4], [1, 1, 1]], dtype=torch.int64)
    assert is_identical(DNA.states(words), words.to(torch.int8))
    objects, is_assigned = DNA.assigned(DNA.source(2))
    assert objects.tolist() == [[4, 4, 4]] * 2 and is_assigned.all()


@pytest.mark.parametrize(
    "stranger", [[0, 4, 1], [4, 1, 1], [1, 1, 5], [1, 1, -1], [1, 4, 4], [4, 4, 4], [1, 0.5, 4], [1, 1, 260]], ids=str
)
def test_what_is_no_word_is_refused(stranger: list[float]) -> None:
    with pytest.raises(ObjectError, match=r"object 1, .* is not a word: it holds 2 letters or more out of 0 ... 3"):
        DNA.states(torch.tensor([[1, 2, 4], stranger]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3, 0), "no words of 0 ... 3 letters out of 0"),
        ((2, 0, 0), "no words"),
        ((2, 3, 4), "no words of 4 ... 3"),
        ((2, 3, -1), "no words"),
        ((1, 3, 3), "a single word"),
    ],
)
def test_sequences_that_cannot_work_are_refused(arguments: tuple[int, int, int], message: str) -> None:
    num_letters, max_length, min_length = arguments
    with pytest.raises(OptionError, match=message):
        Sequences(num_letters, max_length, min_length=min_length)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int8])
def test_a_dtype_holds_the_blank(dtype: torch.dtype) -> None:
    with pytest.raises(OptionError, match="an integer dtype that holds 128"):
        Sequences(128, 3, dtype=dtype)
    assert Sequences(127, 3).source(1).tolist() == [[127] * 3]


def test_small_spaces_are_known_to_be_small() -> None:
    assert Sequences(2, 19).is_enumerable and not Sequences(2, 20).is_enumerable
    # A tally of 63 has few states, but does not fit the codes by which states are found.
    assert Sequences(1, 62).is_enumerable and not Sequences(1, 63).is_enumerable
    assert enumerate_states(Sequences(1, 62)).num_states == 63
    assert not Sequences(20, 1_000).is_enumerable


def test_sequences_are_built_for_targets_on_vectors() -> None:
    target = from_function(lambda x: -x.sum(1).double(), (7,), dtype=torch.int16, name="light letters")
    built = Sequences.for_target(target, 4, min_length=1)
    assert (built.num_letters, built.max_length, built.min_length, built.dtype) == (4, 7, 1, torch.int16)
    mine = {"name": "Sequences", "num_actions": 5, "max_depth": 7, "num_letters": 4, "max_length": 7, "min_length": 1}
    assert built.describe() == mine
    for shape in ((2, 2), (1, 1, 1)):
        other = from_function(lambda x: x.flatten(1).sum(1).double(), shape, name="other")
        with pytest.raises(CapabilityError, match="other is not defined on words"):
            Sequences.for_target(other, 4)
