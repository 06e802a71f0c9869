"""Symmetries built into a policy: relabelling a state and its actions changes nothing; a wrong group is told apart."""

import itertools

import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Lattice, enumerate_states
from gfnmc.policies import AveragedPolicy, CanonicalPolicy, DiscretePolicy, MLPPolicy, SymmetrisedPolicy, TabularPolicy
from gfnmc.policies.symmetrised import generated_group
from tests.exact.networks import randomised
from tests.support import assert_close, is_identical, random_numbers

FOUR = tuple(range(4))
SHIFT = Symmetry("shift", (1, 2, 3, 0), (0, 1))
MIRROR = Symmetry("mirror", (3, 2, 1, 0), (0, 1))
FLIP = Symmetry("flip", FOUR, (1, 0))
SWAP = Symmetry("swap the first two", (1, 0, 2, 3), (0, 1))
KINDS = (AveragedPolicy, CanonicalPolicy)
LATTICES = {
    "uniform": (Lattice((4,), (-1, 1), dtype=torch.int8), (SHIFT, FLIP)),
    "learned": (Lattice((2, 2), (-1, 1), dtype=torch.int8, order="learned"), (SHIFT, MIRROR)),
    "fixed": (Lattice((4,), (-1, 1), dtype=torch.int8, order="fixed"), (FLIP,)),
    "three values": (
        Lattice((3,), (0, 1, 2)),
        (Symmetry("shift and go round", (1, 2, 0), (1, 2, 0)), Symmetry("swap", (0, 1, 2), (1, 0, 2))),
    ),
}


def network(environment: DiscreteEnvironment, direction: Direction, **options: object) -> DiscretePolicy:
    options = {"dtype": torch.float64, "direct": True} | options
    return randomised(MLPPolicy(environment, direction, hidden_size=8, **options))


def violation(policy: DiscretePolicy, symmetry: Symmetry) -> float:
    """Largest change of a probability when states and actions are relabelled."""
    environment = policy.environment
    states = enumerate_states(environment).states
    states = states[environment.mask(states, policy.direction).any(-1)]

    def law(at: Tensor) -> Tensor:
        with torch.no_grad():
            return policy.log_probs(policy.begin(at), at).exp()

    relabelled = law(environment.transformed(symmetry, states))
    return float((relabelled[:, environment.transformed_actions(symmetry)] - law(states)).abs().max())


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LATTICES)
def test_a_law_is_relabelled_with_its_states(name: str, kind: type[SymmetrisedPolicy], direction: Direction) -> None:
    environment, symmetries = LATTICES[name]
    plain = network(environment, direction)
    policy = kind(plain, symmetries)
    leaves_choice = name != "fixed" or direction is Direction.FORWARD
    for symmetry in policy.group:
        assert violation(policy, symmetry) < 1e-12
        assert violation(policy.with_exploration(temperature=2.0, epsilon=0.1), symmetry) < 1e-12
    # Negative controls: the plain policy has no symmetry, and one made for a part of the group lacks the rest.
    for symmetry in symmetries:
        assert violation(plain, symmetry) > 0.05 or not leaves_choice
    if len(symmetries) > 1:
        assert violation(kind(plain, symmetries[:1]), symmetries[1]) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_another_group_is_not_the_right_one(kind: type[SymmetrisedPolicy]) -> None:
    environment, _ = LATTICES["uniform"]
    policy = kind(network(environment, Direction.FORWARD), [SHIFT])
    assert violation(policy, SHIFT) < 1e-12
    assert violation(policy, SWAP) > 0.01
    assert violation(policy, FLIP) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_actions_that_go_elsewhere_break_it(kind: type[SymmetrisedPolicy]) -> None:
    class Confused(Lattice):
        def transformed_actions(self, symmetry: Symmetry) -> Tensor:
            return super().transformed_actions(symmetry.inverse())

    right, wrong = (of((4,), (-1, 1), dtype=torch.int8, order="learned") for of in (Lattice, Confused))
    assert violation(kind(network(right, Direction.BACKWARD), [SHIFT]), SHIFT) < 1e-12
    policy = kind(network(wrong, Direction.BACKWARD), [SHIFT])
    policy.environment = right
    # The mask no longer fits the relabelled actions, so what is allowed may get no probability.
    assert not violation(policy, SHIFT) < 1e-3


def test_a_state_with_symmetries_of_its_own_shares_probability_among_what_they_exchange() -> None:
    environment, _ = LATTICES["learned"]
    # Sites 0 and 2 hold the same value, so a shift by two exchanges the open sites 1 and 3 and leaves the state.
    state = torch.tensor([[1, 2, 1, 2]], dtype=torch.int8)
    for kind in KINDS:
        policy = kind(network(environment, Direction.FORWARD), [SHIFT])
        law = policy.log_probs(policy.begin(state), state)[0].exp().detach().reshape(4, 2)
        assert_close(law[1], law[3], 1e-14)
        assert float(law[1].sum()) == pytest.approx(0.5)
    plain = network(environment, Direction.FORWARD)
    law = plain.log_probs(plain.begin(state), state)[0].exp().detach().reshape(4, 2)
    assert not torch.allclose(law[1], law[3], atol=0.01)


@pytest.mark.parametrize("direction", Direction)
def test_an_average_of_an_equivariant_policy_is_that_policy(direction: Direction) -> None:
    environment, symmetries = LATTICES["uniform"]
    states = enumerate_states(environment).states
    states = states[environment.mask(states, direction).any(-1)]
    once = AveragedPolicy(network(environment, direction), symmetries)
    for kind in KINDS:
        twice = kind(once, symmetries)
        law = twice.log_probs(twice.begin(states), states)
        assert_close(law, once.log_probs(once.begin(states), states), 1e-12)


def test_an_average_follows_its_walk_in_every_frame() -> None:
    environment, symmetries = LATTICES["three values"]
    graph = enumerate_states(environment)
    above, below = graph.states[graph.parents], graph.states[graph.children]
    forward, backward = (AveragedPolicy(network(environment, direction), symmetries) for direction in Direction)
    assert_close(forward.advance(forward.begin(above), above, graph.actions), forward.begin(below), 1e-12)
    assert_close(backward.advance(backward.begin(below), below, graph.actions), backward.begin(above), 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_reach_the_policy_inside(kind: type[SymmetrisedPolicy]) -> None:
    environment, symmetries = LATTICES["uniform"]
    policy = kind(network(environment, Direction.FORWARD, num_conditions=1), symmetries)
    # Nothing that the group exchanges: at the source every condition has the same law.
    states = torch.tensor([[1, 0, 2, 2]], dtype=torch.int8).expand(3, -1)
    condition = random_numbers(0, 3, 1)
    bound = policy.given(condition)
    laws = bound.log_probs(bound.begin(states), states)
    for row in range(3):
        one = policy.given(condition[row])
        assert_close(one.log_probs(one.begin(states[:1]), states[:1]), laws[row : row + 1], 1e-12)
    assert not torch.allclose(laws[0].exp(), laws[1].exp(), atol=1e-3)
    # The view's own: neither the policy nor what is inside is bound.
    assert policy.condition is None and policy.policy.condition is None


def test_what_is_inside_is_frozen_and_learns() -> None:
    environment, symmetries = LATTICES["uniform"]
    for kind in KINDS:
        policy = kind(network(environment, Direction.FORWARD, dtype=torch.float32), symmetries)
        frozen = policy.frozen()
        assert frozen.environment is environment and frozen.policy.environment is environment
        assert not any(parameter.requires_grad for parameter in frozen.parameters())
        assert all(parameter.requires_grad for parameter in policy.parameters())
        assert is_identical(frozen.policy.embedding, policy.policy.frozen().embedding)
        assert not is_identical(frozen.policy.embedding, policy.policy.embedding)


def test_a_policy_that_forbids_stays_one_that_does() -> None:
    lattice = Lattice((2,), (0, 1), order="learned")
    graph = enumerate_states(lattice)
    swap = Symmetry("swap", (1, 0), (0, 1))
    logits = random_numbers(0, graph.num_states, 4)
    source = int(graph.index(lattice.source(1))[0])
    logits[source, 0] = -torch.inf
    plain = TabularPolicy(graph, Direction.FORWARD, logits)
    for kind in KINDS:
        policy = kind(plain, [swap])
        assert not policy.is_positive
        assert policy.with_exploration(epsilon=0.1).is_positive
        law = policy.log_probs(policy.begin(lattice.source(1)), lattice.source(1))[0].exp()
        law[1].backward()
        # The average forbids what is forbidden in any frame.
        assert_close(law[[0, 2]], torch.zeros(2), 0.0)
        assert_close(law[1], law[3], 1e-14)
        assert plain.logits.grad is not None and plain.logits.grad.isfinite().all()
        plain.logits.grad = None


def test_products_complete_a_group() -> None:
    assert len(generated_group([SHIFT])) == 4
    assert len(generated_group([SHIFT, FLIP])) == 8
    assert len(generated_group([FLIP, MIRROR, SHIFT, SHIFT])) == 16
    group = generated_group([SHIFT, MIRROR])
    assert group[0].is_identity and len(set(group)) == 8
    assert {one.after(other) for one, other in itertools.product(group, group)} == set(group)
    assert {one.inverse() for one in group} == set(group)
    # A whole group is taken as it is.
    assert set(generated_group(group)) == set(group)


def test_groups_that_cannot_work_are_refused() -> None:
    policy = network(LATTICES["uniform"][0], Direction.FORWARD)
    for kind in KINDS:
        with pytest.raises(OptionError, match="there is no symmetry"):
            kind(policy, [])
        with pytest.raises(CapabilityError, match="acts on 3 sites with 2 values"):
            kind(policy, [Symmetry("small", (1, 2, 0), (0, 1))])
        with pytest.raises(CapabilityError, match="HyperGrid does not relabel its actions"):
            kind(network(HyperGrid(2, 3), Direction.FORWARD), [Symmetry("swap", (1, 0), (0, 1, 2))])
        with pytest.raises(CapabilityError, match="does not keep a fixed order"):
            kind(network(LATTICES["fixed"][0], Direction.FORWARD), [SHIFT])
    nine = tuple(range(9))
    exchanges = [Symmetry("", (1, 0, *nine[2:]), (0, 1)), Symmetry("", (*nine[1:], 0), (0, 1))]
    with pytest.raises(OptionError, match="more than 4096 elements"):
        generated_group(exchanges)
