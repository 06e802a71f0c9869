"""What every network policy promises, whatever is inside: one law, in any batch, by any way to a state."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.environments import Direction, DiscreteEnvironment, GraphBuilding, HyperGrid, Lattice
from gfnmc.policies import (
    AveragedPolicy,
    CanonicalPolicy,
    DiscretePolicy,
    GFlowNet,
    MessagePassingPolicy,
    MLPPolicy,
    Path,
    TransformerPolicy,
    UniformPolicy,
)
from tests.exact.networks import randomised
from tests.support import Stairs, assert_close, is_identical, random_actions, random_numbers, sample_paths

SPACES = {
    "uniform": Lattice((3, 4), (-1, 1), dtype=torch.int8),
    "fixed": Lattice((8,), (0, 1), order="fixed"),
    "learned": Lattice((2, 3), (0, 1, 2), order="learned"),
    "grid": HyperGrid(3, 4),
    "graph": GraphBuilding(5),
    "stairs": Stairs(9),
}
FLIP = Symmetry("flip", tuple(range(12)), (1, 0))
SHIFT = Symmetry("shift", (1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8), (0, 1))

Make = Callable[..., DiscretePolicy]


def small(kind: type[DiscretePolicy], **sizes: object) -> Make:
    return lambda space, direction, **options: randomised(kind(SPACES[space], direction, **sizes, **options))


def symmetrised(kind: type[AveragedPolicy] | type[CanonicalPolicy], inner: Make) -> Make:
    def make(space: str, direction: Direction, **options: object) -> DiscretePolicy:
        return kind(inner(space, direction, **options), [FLIP, SHIFT])

    return make


MLP = small(MLPPolicy, hidden_size=16, num_layers=2)
DIRECT = small(MLPPolicy, hidden_size=16, direct=True)
NARROW = small(MLPPolicy, hidden_size=4, direct=True)
TRANSFORMER = small(TransformerPolicy, hidden_size=8, num_heads=2)
MESSAGES = small(MessagePassingPolicy, hidden_size=8, num_layers=2)

POLICIES: dict[str, tuple[Make, str]] = {
    **{f"mlp, {space}": (MLP, space) for space in ("uniform", "graph")},
    **{f"direct mlp, {space}": (DIRECT, space) for space in SPACES},
    **{f"direct mlp, head by position, {space}": (NARROW, space) for space in ("uniform", "fixed")},
    **{f"transformer, {space}": (TRANSFORMER, space) for space in SPACES},
    **{f"messages, {space}": (MESSAGES, space) for space in ("uniform", "fixed", "learned", "graph")},
    "averaged mlp": (symmetrised(AveragedPolicy, DIRECT), "uniform"),
    "canonical mlp": (symmetrised(CanonicalPolicy, DIRECT), "uniform"),
    "canonical transformer": (symmetrised(CanonicalPolicy, TRANSFORMER), "uniform"),
}


@pytest.fixture(params=POLICIES)
def make(request: pytest.FixtureRequest) -> Make:
    kind, space = POLICIES[request.param]
    return lambda direction, **options: kind(space, direction, **options)


def walks(environment: DiscreteEnvironment, num_rows: int, seed: int = 0) -> Path:
    return sample_paths(GFlowNet(UniformPolicy(environment, Direction.FORWARD)), num_rows, seed)


def visited(environment: DiscreteEnvironment, direction: Direction, num_states: int) -> Tensor:
    """Different states of random walks, in a random order, that leave something to do in a direction."""
    states = walks(environment, num_states).states.flatten(0, 1).unique(dim=0)
    states = states[environment.mask(states, direction).any(-1)]
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(states)))
    return states[order][:num_states]


def law(policy: DiscretePolicy, states: Tensor) -> Tensor:
    with torch.no_grad():
        return policy.log_probs(policy.begin(states), states)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("exploration", [{}, {"temperature": 2.5, "epsilon": 0.3}], ids=str)
def test_it_is_a_law_on_what_is_allowed(make: Make, direction: Direction, exploration: dict[str, float]) -> None:
    policy = make(direction)
    states = visited(policy.environment, direction, 60)
    mask = policy.environment.mask(states, direction)
    plain = law(policy, states)
    explored = law(policy.with_exploration(**exploration), states)
    for log_probs in (plain, explored):
        assert log_probs.dtype == torch.float64
        assert_close(log_probs.exp().sum(-1), torch.ones(len(states)), 1e-12)
        assert torch.equal(log_probs > -math.inf, mask)
    assert torch.equal(plain, explored) == (not exploration) or not (mask.sum(-1) > 1).any()
    # Far from uniform, or the tests of this file would test little.
    if (mask.sum(-1) > 1).any():
        assert float(plain[mask].std()) > 0.2
    assert policy.is_positive


@pytest.mark.parametrize("direction", Direction)
def test_what_is_sampled_is_scored_by_the_same_number(make: Make, direction: Direction) -> None:
    policy = make(direction).frozen()
    states = visited(policy.environment, direction, 100)
    everyone = torch.ones(len(states), dtype=torch.bool)
    cache = policy.begin(states)
    actions, log_prob = policy.sample(cache, states, PhiloxDraws(0, "x", len(states)), everyone)
    assert is_identical(policy.score(cache, states, actions), log_prob)
    assert_close(law(policy, states).gather(1, actions[:, None])[:, 0], log_prob, 1e-5)


@pytest.mark.parametrize("direction", Direction)
def test_a_frozen_row_is_the_same_in_any_batch(make: Make, direction: Direction) -> None:
    policy = make(direction).frozen()
    states = visited(policy.environment, direction, 150)
    whole = law(policy, states)
    for size in (1, 7, 64):
        assert is_identical(torch.cat([law(policy, some) for some in states.split(size)]), whole), size
    order = torch.from_numpy(np.random.default_rng(5).permutation(len(states)))
    assert is_identical(law(policy, states[order]), whole[order])
    assert law(policy, states[:0]).shape == (0, policy.num_actions)


@pytest.mark.parametrize("num_conditions", [0, 2])
@pytest.mark.parametrize("direction", Direction)
def test_a_frozen_law_does_not_depend_on_the_way_to_a_state(
    make: Make, direction: Direction, num_conditions: int
) -> None:
    policy = make(direction, num_conditions=num_conditions).frozen()
    environment = policy.environment
    path = walks(environment, 30)
    if num_conditions:
        policy = policy.given(random_numbers(3, 30, 2))
    # Along a path, and step by step in the policy's own direction: the law is that of the state alone, to the bit.
    place = torch.arange(path.states.shape[1])
    select = place <= path.lengths[:, None]
    states = path.states[select]
    begun = policy.for_rows(select.nonzero()[:, 0])
    wanted = law(begun, states)
    with torch.no_grad():
        along = policy.log_probs(policy.along(path.states, path.actions, select), states)
    assert is_identical(along, wanted)
    table = torch.full((*select.shape, policy.num_actions), math.nan, dtype=torch.float64)
    table[select] = wanted
    forward = direction is Direction.FORWARD
    here = path.states[:, 0] if forward else path.end
    reached = torch.zeros_like(path.lengths) if forward else path.lengths.clone()
    cache = policy.begin(here)
    for step in range(path.actions.shape[1]):
        moves = step < path.lengths
        at = torch.full_like(path.lengths, step) if forward else path.lengths - 1 - step
        action = path.actions.gather(1, at.clamp(min=0)[:, None])[:, 0]
        move = environment.step if forward else environment.unstep
        cache = policy.advance(cache, here, action)
        there = move(here, action)
        reached = reached + (1 if forward else -1)
        here = torch.where(moves.reshape(-1, *[1] * (here.dim() - 1)), there, here)
        found = policy.log_probs(cache, here)
        # Rows that have ended carry a cache that nobody reads.
        rows = moves.nonzero()[:, 0]
        assert is_identical(found[rows], table[rows, reached[rows]])


@pytest.mark.parametrize("direction", Direction)
def test_conditions_a_row_are_conditions_one_at_a_time(make: Make, direction: Direction) -> None:
    policy = make(direction, num_conditions=2).frozen()
    states = visited(policy.environment, direction, 20)
    condition = random_numbers(2, len(states), 2)
    by_row = law(policy.given(condition), states)
    for row in range(len(states)):
        one = states[row : row + 1]
        assert is_identical(law(policy.given(condition[row]), one), by_row[row : row + 1])
    # A single condition for all is that condition in every row.
    shared = law(policy.given(condition[0]), states)
    assert is_identical(shared, law(policy.given(condition[:1].expand(len(states), -1)), states))
    # Negative control: conditions matter, and so does their order, where anything is left to choose.
    if (policy.environment.mask(states, direction).sum(-1) > 1).any():
        assert not torch.allclose(by_row, shared, atol=1e-3)
        assert not torch.allclose(law(policy.given(condition.flip(0)), states), by_row, atol=1e-3)


def test_weights_are_named_by_the_seed_and_gradients_reach_them_all(make: Make) -> None:
    for direction in Direction:
        one, same = make(direction, num_conditions=2), make(direction, num_conditions=2)
        other = make(direction, num_conditions=2, seed=1)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
        states = visited(one.environment, direction, 60)
        bound = one.given(random_numbers(0, len(states), 2))
        actions = random_actions(one.environment.mask(states, direction), np.random.default_rng(0))
        bound.score(bound.begin(states), states, actions).sum().backward()
        leaves_choice = bool((one.environment.mask(states, direction).sum(-1) > 1).any())
        for name, parameter in one.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # Backward there is no exit, which is all that the mean alone is read for.
            is_read = leaves_choice and (direction is Direction.FORWARD or "mean_head" not in name)
            assert bool(parameter.grad.any()) or not is_read, name


def test_forward_and_backward_networks_start_apart() -> None:
    lattice = SPACES["uniform"]
    for kind in (MLPPolicy, TransformerPolicy, MessagePassingPolicy):
        forward, backward = (kind(lattice, direction, hidden_size=8) for direction in Direction)
        assert not torch.equal(forward.get_parameter("embedding"), backward.get_parameter("embedding"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_has_the_dtype_it_was_given(dtype: torch.dtype) -> None:
    for kind in (MLPPolicy, TransformerPolicy, MessagePassingPolicy):
        policy = kind(SPACES["uniform"], hidden_size=8, dtype=dtype, num_conditions=1)
        assert {parameter.dtype for parameter in policy.parameters()} == {dtype}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (TransformerPolicy, {"hidden_size": 0}),
        (TransformerPolicy, {"num_layers": 0}),
        (TransformerPolicy, {"num_heads": 0}),
        (TransformerPolicy, {"hidden_size": 6, "num_heads": 4}),
        (TransformerPolicy, {"num_conditions": -1}),
        (MessagePassingPolicy, {"hidden_size": 0}),
        (MessagePassingPolicy, {"num_layers": 0}),
        (MLPPolicy, {"num_conditions": -1}),
    ],
    ids=str,
)
def test_sizes_that_cannot_work_are_refused(kind: type[DiscretePolicy], options: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=next(reversed(options))):
        kind(SPACES["uniform"], Direction.FORWARD, **options)


def test_messages_need_edges() -> None:
    with pytest.raises(CapabilityError, match="HyperGrid joins no nodes by edges"):
        MessagePassingPolicy(SPACES["grid"])


def test_messages_tell_graphs_of_the_same_degrees_apart() -> None:
    graphs = GraphBuilding(4)
    states = torch.tensor([[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0]], dtype=torch.int8)
    assert torch.equal(graphs.nodes(states)[0], graphs.nodes(states)[1])
    policy = randomised(MessagePassingPolicy(graphs, hidden_size=8))
    one, other = policy.logits(policy.read(states), None).detach()
    assert not torch.allclose(one, other, atol=1e-2)


def test_a_logit_is_read_where_its_action_is() -> None:
    """With one round of messages, a site's law does not depend on sites out of hearing, but for the mean of all."""
    ring = Lattice((8,), (0, 1))
    policy = randomised(MessagePassingPolicy(ring, hidden_size=8, num_layers=1, dtype=torch.float64))
    with torch.no_grad():
        policy.read_out.from_mean.zero_()
    states = ring.source(3)
    states[1, 4] = 1
    states[2, 1] = 1
    logits = policy.logits(policy.read(states), None).reshape(3, 8, 2).detach()
    assert_close(logits[1, 0], logits[0, 0], 1e-12)
    assert not torch.allclose(logits[2, 0], logits[0, 0], atol=1e-3)


def test_the_same_values_have_the_same_weights_at_every_site() -> None:
    """But for the vocabulary and one bias an action: tie those, and a shift of the ring shifts the logits."""
    ring = Lattice((4,), (0, 1), order="learned")
    for kind in (TransformerPolicy, MessagePassingPolicy):
        policy = randomised(kind(ring, hidden_size=8, dtype=torch.float64))
        with torch.no_grad():
            policy.embedding.copy_(policy.embedding[:3].repeat(4, 1))
            policy.read_out.action_bias.zero_()
        states = torch.tensor([[0, 1, 2, 2]], dtype=torch.int8)
        logits = policy.logits(policy.read(torch.cat([states, states.roll(1, 1)])), None).reshape(2, 4, 2)
        assert_close(logits[0].roll(1, 0), logits[1], 1e-12)
        assert not torch.allclose(logits[0], logits[1], atol=1e-3)


def test_the_direct_path_is_a_first_order_term() -> None:
    lattice = SPACES["uniform"]
    plain, direct = (MLPPolicy(lattice, hidden_size=8, direct=way, dtype=torch.float64) for way in (False, True))
    states = visited(lattice, Direction.FORWARD, 40)
    # It starts at zero, beside the same first weights.
    assert_close(law(direct, states), law(plain, states), 1e-12)
    table = random_numbers(0, lattice.vocabulary, lattice.num_actions)
    with torch.no_grad():
        direct.head.zero_()
        direct.embedding[:, 8:] = table
    logits = table[lattice.tokens(states)].sum(1)
    wanted = logits.unflatten(-1, (12, 2)).log_softmax(-1)
    found = law(direct, states).unflatten(-1, (12, 2)) - lattice.position_log_probs(states)[:, :, None]
    open_sites = lattice.forward_mask(states).unflatten(-1, (12, 2))
    assert_close(found[open_sites], wanted[open_sites], 1e-12)
