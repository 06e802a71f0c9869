"""Every state and every edge of small environments: moves, masks, depths, tokens and single changes agree."""

import collections
import itertools

import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.environments import (
    Direction,
    DiscreteEnvironment,
    GraphBuilding,
    HyperGrid,
    Lattice,
    StateGraph,
    check_environment,
    enumerate_states,
)
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, from_function
from tests.support import Stairs, small_environments

ENVIRONMENTS = small_environments() | {"graph": GraphBuilding(3), "graph of two nodes": GraphBuilding(2)}
NUM_STATES = {  # by hand
    "uniform": 3**3,
    "uniform of three values": 4**2,
    "learned": 3**4,
    "fixed": 1 + 3 + 9 + 27,
    "one site": 3,
    "grid": 16,
    "grid of three": 8,
    "stairs": 6,
    "stairs without exits": 7,
    "graph": 8,
    "graph of two nodes": 2,
}
NUM_OBJECTS = {
    "uniform": 8,
    "uniform of three values": 9,
    "learned": 16,
    "fixed": 27,
    "one site": 2,
    "grid": 16,
    "grid of three": 8,
    "stairs": 6,
    "stairs without exits": 2,
    "graph": 8,
    "graph of two nodes": 2,
}


@pytest.fixture(params=ENVIRONMENTS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def environment(name: str) -> DiscreteEnvironment:
    return ENVIRONMENTS[name]


@pytest.fixture
def graph(environment: DiscreteEnvironment) -> StateGraph:
    return enumerate_states(environment)


def every_pair(graph: StateGraph) -> tuple[Tensor, Tensor]:
    """Every state with every action, allowed or not."""
    num_actions = graph.environment.num_actions
    return graph.states.repeat_interleave(num_actions, 0), torch.arange(num_actions).repeat(graph.num_states)


def multiset(tokens: Tensor) -> collections.Counter[int]:
    return collections.Counter(tokens.tolist())


def test_the_checks_find_nothing(environment: DiscreteEnvironment) -> None:
    check_environment(environment, num_paths=64)


def test_states_and_objects_are_counted_right(name: str, graph: StateGraph) -> None:
    assert graph.num_states == NUM_STATES[name]
    assert graph.states.unique(dim=0).shape == graph.states.shape
    assert len(graph.objects) == NUM_OBJECTS[name]
    assert torch.equal(graph.index(graph.states), torch.arange(graph.num_states))
    assert torch.equal(graph.is_terminal, graph.environment.is_terminal(graph.states))
    assert graph.index(graph.states + 100).tolist() == [-1] * graph.num_states


def test_every_edge_can_be_walked_both_ways(environment: DiscreteEnvironment, graph: StateGraph) -> None:
    above, below = graph.states[graph.parents], graph.states[graph.children]
    assert torch.equal(environment.step(above, graph.actions), below)
    assert torch.equal(environment.unstep(below, graph.actions), above)
    assert environment.step(above, graph.actions).dtype == above.dtype
    forward = {(int(a), int(p)) for p, a in zip(graph.parents, graph.actions, strict=True)}
    mask = environment.mask(graph.states, Direction.FORWARD)
    if environment.exit_action is not None:
        assert torch.equal(mask[:, environment.exit_action], graph.is_terminal)
        mask = mask.clone()
        mask[:, environment.exit_action] = False
    assert forward == {(int(a), int(s)) for s, a in mask.nonzero()}
    # And nothing else may be undone: the backward mask allows exactly the edges that lead into a state.
    backward = {(int(a), int(c)) for c, a in zip(graph.children, graph.actions, strict=True)}
    assert backward == {(int(a), int(s)) for s, a in environment.mask(graph.states, Direction.BACKWARD).nonzero()}
    assert len(backward) == len(graph.parents)


def test_only_the_source_is_the_source(environment: DiscreteEnvironment, graph: StateGraph) -> None:
    source = environment.source(3)
    assert source.shape[0] == 3
    assert source.dtype == graph.states.dtype
    assert environment.is_source(source).all()
    assert environment.is_source(graph.states).sum() == 1
    assert not environment.backward_mask(source).any()
    assert environment.source(0).shape == (0, *source.shape[1:])


def test_moves_that_are_not_allowed_neither_raise_nor_change_their_input(graph: StateGraph) -> None:
    environment = graph.environment
    states, actions = every_pair(graph)
    before = states.clone(), actions.clone()
    assert environment.step(states, actions).shape == states.shape
    assert environment.unstep(states, actions).shape == states.shape
    removed, added = environment.changed_tokens(states, actions)
    assert torch.equal(states, before[0])
    assert torch.equal(actions, before[1])
    # Networks look up the tokens of rows that are thrown away afterwards, so they have to exist.
    for tokens in (removed, added):
        assert int(tokens.min()) >= 0
        assert int(tokens.max()) < environment.vocabulary


def test_depths_are_path_lengths(environment: DiscreteEnvironment, graph: StateGraph) -> None:
    shortest = torch.full((graph.num_states,), 99)
    shortest[environment.is_source(graph.states)] = 0
    longest = torch.where(shortest == 0, 0, -99)
    for _ in range(graph.num_states):
        shortest = shortest.scatter_reduce(0, graph.children, shortest[graph.parents] + 1, "amin")
        longest = longest.scatter_reduce(0, graph.children, longest[graph.parents] + 1, "amax")
    assert environment.is_graded == torch.equal(shortest, longest)
    assert environment.max_depth == int(longest.max())
    if environment.is_graded:
        assert torch.equal(environment.depth(graph.states), longest)
        assert environment.depth(graph.states).dtype == torch.int64
    else:
        with pytest.raises(CapabilityError, match="is_graded = False"):
            environment.depth(graph.states)
    lengths = torch.cat([shortest[graph.is_terminal], longest[graph.is_terminal]])
    assert environment.is_fixed_length == bool((lengths == environment.max_depth).all())
    # Heights fall along every edge, so one pass by height sees every child before its parents.
    assert (graph.heights[graph.children] < graph.heights[graph.parents]).all()


def test_tokens_tell_states_apart(environment: DiscreteEnvironment, graph: StateGraph) -> None:
    tokens = environment.tokens(graph.states)
    assert tokens.shape == (graph.num_states, environment.num_tokens)
    assert tokens.dtype == torch.int64
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) < environment.vocabulary
    # Networks add embeddings up, so only the multiset of tokens counts.
    assert tokens.sort(1).values.unique(dim=0).shape[0] == graph.num_states


def test_changed_tokens_are_the_difference(environment: DiscreteEnvironment, graph: StateGraph) -> None:
    above, below = graph.states[graph.parents], graph.states[graph.children]
    removed, added = environment.changed_tokens(above, graph.actions)
    assert removed.shape == added.shape
    for edge in range(len(graph.actions)):
        tokens = multiset(environment.tokens(above[edge : edge + 1])[0])
        tokens.subtract(multiset(removed[edge]))
        tokens.update(multiset(added[edge]))
        wanted = multiset(environment.tokens(below[edge : edge + 1])[0])
        assert {token: n for token, n in tokens.items() if n} == wanted


def test_objects_and_states_round_trip(environment: DiscreteEnvironment, graph: StateGraph) -> None:
    finished = graph.states[graph.is_terminal]
    assert torch.equal(environment.states(graph.objects), finished)
    assert environment.states(graph.objects).dtype == graph.states.dtype
    assert torch.equal(environment.objects(environment.states(graph.objects)), graph.objects)
    assert graph.objects.flatten(1).unique(dim=0).shape[0] == len(graph.objects)
    assert graph.objects.dtype == getattr(environment, "dtype", torch.int64)


def test_single_changes_pair_objects_once_each_way(environment: DiscreteEnvironment, graph: StateGraph) -> None:
    objects = graph.objects
    changed, mask = environment.neighbours(objects)
    assert changed.shape == (len(objects), environment.num_changes, *objects.shape[1:])
    assert changed.dtype == objects.dtype
    assert mask.shape == (len(objects), environment.num_changes)
    assert torch.equal(mask, environment.change_mask(objects))
    ids = graph.index(environment.states(changed[mask]))
    terminal = graph.is_terminal.nonzero()[:, 0]
    leads = collections.Counter(zip(terminal[mask.nonzero()[:, 0]].tolist(), ids.tolist(), strict=True))
    assert -1 not in ids
    assert set(leads.values()) == {1}
    assert all(a != b and (b, a) in leads for a, b in leads)
    for change in range(environment.num_changes):
        one = environment.change(objects, torch.full((len(objects),), change))
        assert torch.equal(one[mask[:, change]], changed[:, change][mask[:, change]])
    assert environment.changes_connect == (component(dict.fromkeys(leads), terminal.tolist()) == len(objects))


@pytest.mark.parametrize("name", [name for name, environment in ENVIRONMENTS.items() if environment.is_fixed_length])
def test_rebuilding_connects_what_it_says(name: str) -> None:
    environment = ENVIRONMENTS[name]
    for steps in range(1, environment.max_depth + 1):
        # A fixed order is the negative control: only a restart from the source connects its objects.
        says = environment.rebuild_connects is not None or steps == environment.max_depth
        assert rebuilding_connects(enumerate_states(environment), steps) == says


def rebuilding_connects(graph: StateGraph, steps: int) -> bool:
    """Objects that share a state so many actions back are one move apart: do moves connect them all?"""
    parents_of = collections.defaultdict(set)
    for parent, child in zip(graph.parents.tolist(), graph.children.tolist(), strict=True):
        parents_of[child].add(parent)
    terminal = graph.is_terminal.nonzero()[:, 0].tolist()
    sharing = collections.defaultdict(set)
    for place in terminal:
        level = {place}
        for _ in range(steps):
            level = set().union(*(parents_of[state] for state in level))
        for state in level:
            sharing[state].add(place)
    moves = {pair: None for group in sharing.values() for pair in itertools.permutations(group, 2)}
    return component(moves, terminal) == len(terminal)


def component(edges: dict[tuple[int, int], None], nodes: list[int]) -> int:
    """Return how many nodes can be reached from the first."""
    reached, frontier = {nodes[0]}, [nodes[0]]
    while frontier:
        here = frontier.pop()
        for a, b in edges:
            if a == here and b not in reached:
                reached.add(b)
                frontier.append(b)
    return len(reached)


def test_positions_are_drawn_where_the_mask_is_open(environment: DiscreteEnvironment, graph: StateGraph) -> None:
    if environment.positions is None:
        with pytest.raises(CapabilityError, match="leaves the position to the policy"):
            DiscreteEnvironment.position_log_probs(environment, graph.states)
        return
    open_states = graph.states[~graph.is_terminal]
    law = environment.position_log_probs(open_states)
    assert law.shape == (len(open_states), environment.positions)
    assert torch.allclose(law.exp().sum(-1), torch.ones(len(open_states), dtype=torch.float64))
    by_position = environment.forward_mask(open_states).unflatten(-1, (environment.positions, -1))
    # Every value of a position that can be drawn is allowed, and none of the others.
    assert torch.equal(by_position, (law > -torch.inf)[:, :, None].expand_as(by_position))


def test_a_lattice_stands_for_objects_of_its_shape_values_and_dtype() -> None:
    lattice = Lattice((2, 3), (-1, 1), dtype=torch.int8)
    objects = torch.tensor([[[-1, 1, 1], [1, -1, -1]]], dtype=torch.int8)
    assert lattice.states(objects).tolist() == [[0, 1, 1, 1, 0, 0]]
    assert lattice.objects(lattice.states(objects)).dtype == torch.int8
    assert torch.equal(lattice.objects(lattice.states(objects)), objects)
    # Action `site * values + index`: site 4 gets the second value.
    assert lattice.step(lattice.source(1), torch.tensor([9])).tolist() == [[2, 2, 2, 2, 1, 2]]
    floats = Lattice((2,), (0, 3), dtype=torch.float64)
    assert floats.objects(torch.tensor([[1, 0]])).tolist() == [[3.0, 0.0]]
    many = Lattice((2,), range(300))
    assert many.states(torch.tensor([[299, 0]])).tolist() == [[299, 0]]
    assert many.source(1).tolist() == [[300, 300]]


def test_a_lattice_refuses_values_it_does_not_know() -> None:
    lattice = Lattice((2,), (-1, 1), dtype=torch.int8)
    for stranger in (0, 2, -2, 127, -128):
        objects = torch.tensor([[1, 1], [1, stranger]], dtype=torch.int8)
        with pytest.raises(ObjectError, match=r"object 1.*not one of \(-1, 1\)"):
            lattice.states(objects)


def test_a_fixed_order_is_followed() -> None:
    lattice = Lattice((3,), (0, 1), order="fixed", site_order=(2, 0, 1))
    states, sites = lattice.source(1), []
    for _ in range(3):
        allowed = lattice.forward_mask(states)[0].nonzero()[:, 0].tolist()
        sites.append(allowed[0] // 2)
        assert allowed == [2 * sites[-1], 2 * sites[-1] + 1]
        states = lattice.step(states, torch.tensor(allowed[1:]))
        assert lattice.backward_mask(states)[0].nonzero()[:, 0].tolist() == allowed[1:]
    assert sites == [2, 0, 1]
    assert not lattice.forward_mask(states).any()


@pytest.mark.parametrize(
    ("shape", "values", "options", "message"),
    [
        ((), (), {}, "nothing to choose"),
        ((2, 0), (0, 1), {}, "nothing to choose"),
        ((2,), (1,), {}, "nothing to choose"),
        ((2,), (1, 0), {}, "distinct and increasing"),
        ((2,), (0, 0, 1), {}, "distinct and increasing"),
        ((2,), (0, 1), {"site_order": (1, 0)}, "goes with order='fixed'"),
        ((2,), (0, 1), {"order": "fixed", "site_order": (1, 1)}, "permutation"),
        ((2,), (0, 1), {"order": "fixed", "site_order": (1,)}, "permutation"),
    ],
    ids=str,
)
def test_lattices_that_cannot_work_are_refused(shape: tuple, values: tuple, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Lattice(shape, values, **options)


@pytest.mark.parametrize(("num_dims", "side"), [(0, 4), (-1, 4), (2, 1), (2, 0)])
def test_grids_that_cannot_work_are_refused(num_dims: int, side: int) -> None:
    with pytest.raises(OptionError, match="single cell"):
        HyperGrid(num_dims, side)


def test_environments_are_made_for_targets() -> None:
    ising = Ising((2, 3), 0.4)
    lattice = Lattice.for_target(ising, order="fixed", site_order=(5, 4, 3, 2, 1, 0))
    assert (lattice.event_shape, lattice.values, lattice.dtype, lattice.order) == ((2, 3), (-1, 1), torch.int8, "fixed")
    assert lattice.site_order.tolist() == [5, 4, 3, 2, 1, 0]
    grid = HyperGrid.for_target(HyperGridTarget(3, 5))
    assert (grid.num_dims, grid.side, grid.dtype) == (3, 5, torch.int64)
    with pytest.raises(CapabilityError, match="declares no `values`"):
        Lattice.for_target(from_function(lambda x: x.sum(1).double(), (2,), name="free"))
    with pytest.raises(CapabilityError, match="ising-2x3 is not defined on cells"):
        HyperGrid.for_target(ising)
    with pytest.raises(CapabilityError, match="not defined on cells"):
        HyperGrid.for_target(from_function(lambda x: x.sum(1).double(), (2,), values=(1, 2, 3)))
    with pytest.raises(CapabilityError, match="not defined on cells"):
        HyperGrid.for_target(from_function(lambda x: x.sum(1).double(), (2,)))


def test_what_an_environment_does_not_offer_is_said() -> None:
    class Bare(Stairs):
        tokens = DiscreteEnvironment.tokens
        change = DiscreteEnvironment.change
        num_changes = DiscreteEnvironment.num_changes

    bare = Bare(3)
    source = bare.source(1)
    with pytest.raises(CapabilityError, match="Bare has no tokens"):
        bare.tokens(source)
    with pytest.raises(CapabilityError, match="Bare has no single changes"):
        bare.change(source, torch.tensor([0]))
    with pytest.raises(CapabilityError, match="Bare has no single changes"):
        bare.neighbours(source)


def test_too_many_states_are_refused() -> None:
    with pytest.raises(CapabilityError, match="Lattice has more than 1000 states"):
        enumerate_states(Lattice((8,), (0, 1)), max_states=1_000)
    assert not Lattice((13,), (-1, 1)).is_enumerable
    assert Lattice((12,), (-1, 1)).is_enumerable
    assert not HyperGrid(21, 2).is_enumerable


def is_product(objects: Tensor) -> bool:
    """Whether objects are all assignments of their values to their sites."""
    num_sites = objects[0].numel()
    return len(objects.unique(dim=0)) == len(objects) == len(objects.unique()) ** num_sites


def test_what_builds_every_assignment_says_so_and_does(environment: DiscreteEnvironment, graph: StateGraph) -> None:
    assert environment.builds_every_assignment == isinstance(environment, Lattice | HyperGrid)
    if environment.builds_every_assignment:
        assert is_product(graph.objects)


def test_what_does_not_build_every_assignment() -> None:
    """The negative control: adjacency matrices are symmetric, and one object less is not every one."""
    assert not GraphBuilding(3).builds_every_assignment
    assert not is_product(enumerate_states(GraphBuilding(3)).objects)
    assert not is_product(enumerate_states(HyperGrid(2, 3)).objects[1:])
    assert not DiscreteEnvironment.builds_every_assignment
