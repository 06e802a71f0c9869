"""What the tests of several layers share: a small environment that is not graded, counted energies, random pairs."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Lattice, enumerate_states
from gfnmc.policies import DiscretePolicy, GFlowNet, MLPPolicy, Path, TabularPolicy, solve_forward, walk_forward
from gfnmc.targets import Target, from_function

FALSE_ALARM = 1e-6
"""Probability that a correct package fails one statistical test, were its seed drawn at random."""

LAST_UNIFORM = 1.0 - 2.0**-53
"""The largest number that a uniform draw can be."""


class Stairs(DiscreteEnvironment):
    """Climb from 0, one step (action 0) or two (action 1) at a time; several lengths of path lead to a place.

    With exits, every place 0 ... top is an object. Without, a path ends where it first reaches `top` or jumps past it,
    so there are two objects. Tokens are left to the defaults, as in a user's first environment.
    """

    is_fixed_length = False
    is_graded = False
    is_enumerable = True
    changes_connect = True
    num_tokens = 1

    def __init__(self, top: int, *, exits: bool = True) -> None:
        self.top = top
        self.highest = top if exits else top + 1
        self.max_depth = top
        self.num_actions = 3 if exits else 2
        self.exit_action = 2 if exits else None
        self.vocabulary = self.highest + 1

    def source(self, batch: int) -> Tensor:
        return torch.zeros(batch, 1, dtype=torch.int64)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        return states + 1 + actions[:, None]

    def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
        return states - 1 - actions[:, None]

    def is_source(self, states: Tensor) -> Tensor:
        return states[:, 0] == 0

    def objects(self, states: Tensor) -> Tensor:
        return states

    def states(self, objects: Tensor) -> Tensor:
        return objects

    def forward_mask(self, states: Tensor) -> Tensor:
        if self.exit_action is None:
            return (states < self.top).expand(-1, 2)
        return torch.cat([states + 1 <= self.top, states + 2 <= self.top, torch.ones_like(states, dtype=torch.bool)], 1)

    def backward_mask(self, states: Tensor) -> Tensor:
        by_one = (states >= 1) & (states <= self.top)
        by_two = states >= 2
        masks = [by_one, by_two] if self.exit_action is None else [by_one, by_two, torch.zeros_like(by_one)]
        return torch.cat(masks, 1)

    def tokens(self, states: Tensor) -> Tensor:
        return states

    @property
    def num_changes(self) -> int:
        return 2

    def change_mask(self, objects: Tensor) -> Tensor:
        lowest = 0 if self.exit_action is not None else self.top
        return torch.cat([objects < self.highest, objects > lowest], 1)

    def change(self, objects: Tensor, changes: Tensor) -> Tensor:
        return objects + 1 - 2 * changes[:, None]


class CountingTarget(Target):
    """Another target, with its evaluations counted and, if wanted, something done at one of them.

    Attributes:
        num_rows: Objects evaluated so far.
        num_calls: Batches evaluated so far.
        trap: Called with the objects and their log-densities at call `trap_at` (the first is 0) and returns what to
            return instead.
    """

    def __init__(self, target: Target, *, trap_at: int = -1, trap: Callable[[Tensor, Tensor], Tensor] | None = None):
        self.inner = target
        self.name = target.name
        self.event_shape = target.event_shape
        self.dtype = target.dtype
        self.values = target.values
        self.num_rows = 0
        self.num_calls = 0
        self.trap_at = trap_at
        self.trap = trap

    def log_prob(self, x: Tensor) -> Tensor:
        value = self.inner.log_prob(x)
        self.num_rows += len(x)
        self.num_calls += 1
        if self.trap is not None and self.num_calls - 1 == self.trap_at:
            value = self.trap(x, value)
        return value


def stairs_target(environment: Stairs) -> Target:
    """A bumpy law on the places of some stairs."""
    values = tuple(range(environment.highest + 1))
    return from_function(lambda x: torch.sin(3.0 * x[:, 0].double()), (1,), values=values, name="stairs")


def small_environments() -> dict[str, DiscreteEnvironment]:
    """One small environment of every kind: with and without exits, graded and not, fixed and variable length."""
    return {
        "uniform": Lattice((3,), (-1, 1), dtype=torch.int8),
        "uniform of three values": Lattice((2, 1), (0, 2, 5)),
        "learned": Lattice((2, 2), (-1, 1), dtype=torch.int8, order="learned"),
        "fixed": Lattice((3,), (0, 1, 2), order="fixed", site_order=(2, 0, 1)),
        "one site": Lattice((1,), (-1, 1), order="fixed", dtype=torch.float32),
        "grid": HyperGrid(2, 4),
        "grid of three": HyperGrid(3, 2, dtype=torch.int32),
        "stairs": Stairs(5),
        "stairs without exits": Stairs(5, exits=False),
    }


def random_numbers(seed: int, *shape: int) -> Tensor:
    """Standard normal float64 numbers."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def random_actions(mask: Tensor, rng: np.random.Generator) -> Tensor:
    """A uniformly drawn allowed action a row; 0 where none is."""
    scores = torch.from_numpy(rng.random(mask.shape)).masked_fill(~mask, -1.0)
    return torch.where(mask.any(-1), scores.argmax(-1), 0)


def random_pair(environment: DiscreteEnvironment, seed: int = 0, scale: float = 1.0) -> GFlowNet:
    """A tabular pair with random logits in both directions."""
    graph = enumerate_states(environment)
    policies = [
        TabularPolicy(graph, way, scale * random_numbers(seed + place, graph.num_states, environment.num_actions))
        for place, way in enumerate((Direction.FORWARD, Direction.BACKWARD))
    ]
    return GFlowNet(*policies)


def solved_pair(environment: DiscreteEnvironment, target: Target) -> GFlowNet:
    """The exact pair of a target, with uniform P_B."""
    graph = enumerate_states(environment)
    backward = TabularPolicy(graph, Direction.BACKWARD)
    forward, log_z = solve_forward(graph, target.log_prob(graph.objects), backward)
    return GFlowNet(forward, backward, log_z=log_z)


def network_pair(
    environment: DiscreteEnvironment,
    *,
    seed: int = 0,
    scale: float = 3.0,
    dtype: torch.dtype = torch.float32,
    hidden_size: int = 16,
) -> GFlowNet:
    """A pair of small networks that are far from uniform, as trained ones are."""
    policies = []
    for direction in Direction:
        policy = MLPPolicy(environment, direction, hidden_size=hidden_size, num_layers=2, seed=seed, dtype=dtype)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(scale)
            policy.head_bias.copy_(random_numbers(seed, *policy.head_bias.shape))
        policies.append(policy)
    return GFlowNet(*policies)


def sample_paths(pair: GFlowNet, num_rows: int, seed: int = 0) -> Path:
    """Complete paths by P_F."""
    draws = PhiloxDraws(seed, "paths", num_rows)
    return walk_forward(pair.forward, pair.environment, pair.environment.source(num_rows), draws)


def terminal_law(forward: DiscretePolicy) -> Tensor:
    """The exact probability of each object of `enumerate_states`, by one pass down the graph."""
    graph = enumerate_states(forward.environment)
    with torch.no_grad():
        step = forward.log_probs(forward.begin(graph.states), graph.states).exp()
    mass = torch.zeros(graph.num_states, dtype=torch.float64)
    mass[graph.index(forward.environment.source(1))] = 1.0
    for height in range(int(graph.heights.max()), 0, -1):
        edges = graph.heights[graph.parents] == height
        parents, actions = graph.parents[edges], graph.actions[edges]
        mass.index_add_(0, graph.children[edges], mass[parents] * step[parents, actions])
    exit_action = forward.environment.exit_action
    if exit_action is not None:
        mass = mass * step[:, exit_action]
    return mass[graph.is_terminal]


def chi_square(counts: Iterable[float] | Tensor, probabilities: Iterable[float] | Tensor) -> tuple[float, float]:
    """Pearson's statistic, and the limit that it exceeds with probability `FALSE_ALARM` under the law."""
    from scipy.stats import chi2

    counts = torch.as_tensor(counts, dtype=torch.float64)
    wanted = counts.sum() * torch.as_tensor(probabilities, dtype=torch.float64)
    possible = wanted > 0
    assert not counts[~possible].any(), "an outcome of probability zero was drawn"
    assert possible.sum() > 1, "a law with one outcome cannot be tested"
    statistic = float(((counts - wanted)[possible] ** 2 / wanted[possible]).sum())
    return statistic, float(chi2.isf(FALSE_ALARM, int(possible.sum()) - 1))


def is_identical(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree in dtype, shape and every bit (two NaN agree, 0 and -0 do not)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.detach().contiguous().numpy().tobytes() == b.detach().contiguous().numpy().tobytes()


def assert_close(a: Tensor | float, b: Tensor | float, atol: float = 1e-12) -> None:
    """Agreement of float64 numbers to an absolute tolerance, infinities included."""
    a, b = (torch.as_tensor(value, dtype=torch.float64).detach() for value in (a, b))
    infinite = a.isinf() | b.isinf()
    assert torch.equal(a[infinite], b[infinite])
    assert not a.isnan().any() and not b.isnan().any()
    largest = float((a[~infinite] - b[~infinite]).abs().max()) if (~infinite).any() else 0.0
    assert largest <= atol, f"differs by {largest}, more than {atol}"
    assert math.isfinite(largest)
