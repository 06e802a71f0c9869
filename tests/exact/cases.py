"""Tiny environments, branch laws, pairs and targets whose every combination is proved by enumeration."""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from gfnmc.core.draws import Draws, normal
from gfnmc.core.lookup import RowIndex
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Lattice, StateGraph, enumerate_states
from gfnmc.kernels import Kernel
from gfnmc.kernels.branch import BranchLaw, Fixed, FullRestart, Geometric, PrefixTable, PrefixUniform, Table, Uniform
from gfnmc.policies import DiscretePolicy, GFlowNet, MLPPolicy, TabularPolicy, UniformPolicy, solve_forward
from gfnmc.targets import Target
from gfnmc.testing import move_matrix
from tests.support import Stairs


class Subsets(DiscreteEnvironment):
    """All subsets of three items, grown one item at a time, with an exit: variable length, many parents, graded."""

    is_fixed_length = False
    is_graded = True
    max_depth = 3
    num_actions = 4
    exit_action = 3
    num_tokens = 3
    vocabulary = 6

    def source(self, batch: int) -> Tensor:
        return torch.zeros(batch, 3, dtype=torch.int64)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        return states.scatter(1, actions.clamp(max=2)[:, None], 1)

    def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
        return states.scatter(1, actions.clamp(max=2)[:, None], 0)

    def is_source(self, states: Tensor) -> Tensor:
        return (states == 0).all(-1)

    def depth(self, states: Tensor) -> Tensor:
        return states.sum(-1)

    def objects(self, states: Tensor) -> Tensor:
        return states

    def states(self, objects: Tensor) -> Tensor:
        return objects

    def forward_mask(self, states: Tensor) -> Tensor:
        return torch.cat([states == 0, torch.ones(len(states), 1, dtype=torch.bool)], -1)

    def backward_mask(self, states: Tensor) -> Tensor:
        return torch.cat([states == 1, torch.zeros(len(states), 1, dtype=torch.bool)], -1)

    def tokens(self, states: Tensor) -> Tensor:
        return states + 2 * torch.arange(3)


class Words(DiscreteEnvironment):
    """Words over {1, 2} of up to two letters, written from the left, with an exit: a tree of variable length."""

    is_fixed_length = False
    is_graded = True
    max_depth = 2
    num_actions = 3
    exit_action = 2
    num_tokens = 2
    vocabulary = 6

    def source(self, batch: int) -> Tensor:
        return torch.zeros(batch, 2, dtype=torch.int64)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        return states.scatter(1, self.depth(states).clamp(max=1)[:, None], actions[:, None] + 1)

    def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
        return states.scatter(1, (self.depth(states) - 1).clamp(min=0)[:, None], 0)

    def is_source(self, states: Tensor) -> Tensor:
        return (states == 0).all(-1)

    def depth(self, states: Tensor) -> Tensor:
        return (states != 0).sum(-1)

    def objects(self, states: Tensor) -> Tensor:
        return states

    def states(self, objects: Tensor) -> Tensor:
        return objects

    def forward_mask(self, states: Tensor) -> Tensor:
        grows = (self.depth(states) < 2)[:, None]
        return torch.cat([grows, grows, torch.ones_like(grows)], -1)

    def backward_mask(self, states: Tensor) -> Tensor:
        last = states.gather(1, (self.depth(states) - 1).clamp(min=0)[:, None])
        return torch.cat([last == 1, last == 2, last > 2], -1)

    def tokens(self, states: Tensor) -> Tensor:
        return states + 3 * torch.arange(2)


class TableTarget(Target):
    """Log-densities in a table."""

    name = "table"

    def __init__(self, objects: Tensor, log_prob: Tensor) -> None:
        self.event_shape = tuple(objects.shape[1:])
        self.dtype = objects.dtype
        self.objects = objects
        self.table = log_prob
        self._index = RowIndex(objects)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.table[self._index.find(x)]

    @property
    def pmf(self) -> Tensor:
        return self.table.softmax(0)


ENVIRONMENTS: dict[str, Callable[[], DiscreteEnvironment]] = {
    "lattice, any order": lambda: Lattice((3,), (0, 1)),
    "lattice, fixed order (tree)": lambda: Lattice((3,), (-1, 1), order="fixed", site_order=(1, 0, 2)),
    "lattice, learned order": lambda: Lattice((2,), (0, 1, 2), order="learned"),
    "hypergrid": lambda: HyperGrid(2, 3),
    "jumps (not graded)": lambda: Stairs(4),
    "subsets": Subsets,
    "words (tree)": Words,
}

TREES = {"lattice, fixed order (tree)", "words (tree)"}

# Fixed(1) may undo nothing but the last action; the others reach the source now and then.
LAWS: dict[str, BranchLaw] = {
    "uniform": Uniform(),
    "one step": Fixed(1),
    "geometric": Geometric(0.4),
    "table": Table({1: 0.2, 2: 0.5, 9: 0.3}),
    "prefix uniform": PrefixUniform(),
    "prefix table": PrefixTable({0: 0.3, 1: 0.7}),
    "full restart": FullRestart(),
}


def table_target(graph: StateGraph, *, scale: float = 1.5) -> TableTarget:
    """A random target on all objects of an environment."""
    objects = graph.objects
    return TableTarget(objects, scale * normal(11, "target", (len(objects),), torch.float64))


def site_target(graph: StateGraph, *, scale: float = 1.5) -> TableTarget:
    """A random target on an environment whose objects are all assignments of values to sites."""
    target = table_target(graph, scale=scale)
    target.values = tuple(graph.objects.unique().tolist())
    assert len(graph.objects) == len(target.values) ** graph.objects[0].numel()
    return target


def tempered_pmf(target: TableTarget, inverse_temperature: float) -> Tensor:
    """The exact law R^beta, on all objects; flat at 0, impossible objects included."""
    if inverse_temperature == 0.0:
        return torch.full_like(target.table, 1.0 / len(target.table))
    return (inverse_temperature * target.table).softmax(0)


def rungs_in_a_batch(
    kernel: Kernel, target: TableTarget, inverse_temperatures: tuple[float, ...]
) -> list[tuple[Tensor, Tensor]]:
    """The transition matrix at each inverse temperature with its law, all enumerated in one batch of tempered rows."""
    ladder = torch.tensor(inverse_temperatures, dtype=torch.float64)
    index = RowIndex(target.objects)
    points = [
        (rung, place)
        for rung, beta in enumerate(inverse_temperatures)
        for place in range(len(target.objects))
        if beta == 0.0 or target.table[place] > -math.inf
    ]
    points = torch.tensor(points)

    def move(draws: Draws, rows: Tensor) -> Tensor:
        rung, place = points[rows].unbind(1)
        tempered = kernel.tempered(ladder[rung])
        state, _ = tempered.step(draws, tempered.init(target.objects[place]))
        found = index.find(state.position)
        # Whatever the temperature, the state keeps the log-density of the target itself.
        torch.testing.assert_close(state.log_prob, target.table[found], rtol=0.0, atol=1e-12)
        return torch.stack([rung, found], 1)

    matrix = move_matrix(move, points)
    blocks = []
    for rung, beta in enumerate(inverse_temperatures):
        here = points[:, 0] == rung
        blocks.append((matrix[here][:, here], tempered_pmf(target, beta)[points[here, 1]]))
    return blocks


def _tabular(graph: StateGraph) -> GFlowNet:
    def policy(direction: Direction) -> TabularPolicy:
        shape = (graph.num_states, graph.environment.num_actions)
        return TabularPolicy(graph, direction, normal(5, direction.value, shape, torch.float64))

    return GFlowNet(policy(Direction.FORWARD), policy(Direction.BACKWARD))


def _mlp(graph: StateGraph, dtype: torch.dtype) -> GFlowNet:
    def policy(direction: Direction) -> MLPPolicy:
        made = MLPPolicy(graph.environment, direction, hidden_size=8, dtype=dtype, seed=7)
        with torch.no_grad():
            made.head.mul_(20.0)
            made.head_bias.copy_(normal(8, direction.value, tuple(made.head_bias.shape), dtype))
        return made

    return GFlowNet(policy(Direction.FORWARD), policy(Direction.BACKWARD))


def _explored(graph: StateGraph, *, temperature: float, epsilon: float) -> GFlowNet:
    pair = _mlp(graph, torch.float64)
    change = {"temperature": temperature, "epsilon": epsilon}
    return GFlowNet(pair.forward.with_exploration(**change), pair.backward.with_exploration(**change))


PAIRS: dict[str, Callable[[StateGraph], GFlowNet]] = {
    "tabular": _tabular,
    "mlp": lambda graph: _mlp(graph, torch.float64),
    "tempered": lambda graph: _explored(graph, temperature=1.7, epsilon=0.0),
    "epsilon-mixed": lambda graph: _explored(graph, temperature=1.0, epsilon=0.15),
}


def mlp_pair(graph: StateGraph, dtype: torch.dtype) -> GFlowNet:
    """A random network pair of either precision."""
    return _mlp(graph, dtype)


def solved_pair(graph: StateGraph, target: TableTarget, backward: DiscretePolicy | None = None) -> GFlowNet:
    """A fully trained pair: P_F solved exactly for a target and a P_B, uniform by default."""
    backward = backward or UniformPolicy(graph.environment, Direction.BACKWARD)
    forward, log_z = solve_forward(graph, target.table, backward)
    return GFlowNet(forward, backward, log_z=log_z)


@functools.cache
def graph_of(name: str) -> StateGraph:
    """The enumerated environment of a name."""
    return enumerate_states(ENVIRONMENTS[name]())


def invariance_error(matrix: Tensor, pmf: Tensor) -> float:
    """Largest change of the target's probabilities after a step."""
    return float((pmf @ matrix - pmf).abs().max())


def balance_error(matrix: Tensor, pmf: Tensor) -> float:
    """Largest violation of detailed balance."""
    flow = pmf[:, None] * matrix
    return float((flow - flow.T).abs().max())


def is_connected(matrix: Tensor) -> bool:
    """Whether every object can be reached from every other."""
    reach = (matrix > 0).double()
    for _ in range(math.ceil(math.log2(len(matrix))) + 1):
        reach = ((reach + reach @ reach) > 0).double()
    return bool((reach > 0).all())
