"""Every rule of the contracts is held: what ships passes, and each broken class is caught, with what breaks it."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import gfnmc
from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, EnergyError, EnvironmentContractError, ObjectError, PolicyError
from gfnmc.core.symmetry import Symmetry
from gfnmc.environments import Direction, DiscreteEnvironment, GraphBuilding, HyperGrid, Lattice, enumerate_states
from gfnmc.policies import DiscretePolicy, GFlowNet, MLPPolicy, Path, TransformerPolicy, UniformPolicy
from gfnmc.targets import ExactSolution, Ising, ModeSet, Potts, Target, TFBinding, from_function
from gfnmc.testing import (
    check_changes,
    check_connected,
    check_environment,
    check_pair,
    check_policy,
    check_target,
)
from tests.exact.cases import Subsets
from tests.support import Stairs, network_pair, random_pair, small_environments

CHANGING = {name: environment for name, environment in small_environments().items() if environment.changes_connect}


# Single changes


@pytest.mark.parametrize("name", CHANGING)
def test_the_changes_of_what_ships_are_right(name: str) -> None:
    environment = CHANGING[name]
    objects = enumerate_states(environment).objects
    check_environment(environment)
    check_changes(environment)
    check_changes(environment, objects)
    check_connected(environment, objects)


def test_larger_environments_are_checked_on_objects_that_are_built() -> None:
    for environment in (GraphBuilding(4), Lattice((6, 6), (-1, 1), order="fixed"), HyperGrid(4, 8)):
        check_changes(environment)
    with pytest.raises(CapabilityError, match="single changes"):
        check_changes(Subsets())


class InPlace(Stairs):
    def change(self, objects: Tensor, changes: Tensor) -> Tensor:
        objects += 1 - 2 * changes[:, None]
        return objects


class WideMask(Stairs):
    def change_mask(self, objects: Tensor) -> Tensor:
        return super().change_mask(objects).to(torch.int64)


class OtherDtype(Stairs):
    def change(self, objects: Tensor, changes: Tensor) -> Tensor:
        return super().change(objects, changes).to(torch.int8)


class Beyond(Stairs):
    """A change leads out of the space."""

    def change_mask(self, objects: Tensor) -> Tensor:
        return torch.ones(len(objects), 2, dtype=torch.bool)

    def states(self, objects: Tensor) -> Tensor:
        return objects.clamp(0, self.top)


class Unfinished(Stairs):
    """A change leads to where the walk has to go on."""

    def change_mask(self, objects: Tensor) -> Tensor:
        return torch.ones(len(objects), 2, dtype=torch.bool)


class Standing(Stairs):
    def change(self, objects: Tensor, changes: Tensor) -> Tensor:
        return objects


class Twice(Stairs):
    num_changes = property(lambda self: 3)

    def change_mask(self, objects: Tensor) -> Tensor:
        mask = super().change_mask(objects)
        return torch.cat([mask, mask[:, :1]], 1)

    def change(self, objects: Tensor, changes: Tensor) -> Tensor:
        return super().change(objects, changes % 2)


class OneWay(Stairs):
    def change_mask(self, objects: Tensor) -> Tensor:
        return super().change_mask(objects) & torch.tensor([True, False])


class Apart(Stairs):
    """Changes keep the parity."""

    def change_mask(self, objects: Tensor) -> Tensor:
        return torch.cat([objects + 2 <= self.highest, objects >= 2], 1)

    def change(self, objects: Tensor, changes: Tensor) -> Tensor:
        return objects + 2 - 4 * changes[:, None]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (InPlace(4), "change changes the objects it is given"),
        (WideMask(4), "change_mask returned torch.int64"),
        (OtherDtype(4), "change returned torch.int8"),
        (Beyond(4), r"objects\(states\(object\)\) is another object"),
        (Unfinished(4, exits=False), "which is not finished"),
        (Standing(4), "which is where it was"),
        (Twice(4), "changes 0 and 2 of .* lead to the same object"),
        (OneWay(4), "0 changes lead back; it must be 1"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Stairs) else "",
)
def test_wrong_changes_are_caught(environment: Stairs, message: str) -> None:
    objects = enumerate_states(Stairs(4, exits=environment.exit_action is not None)).objects
    with pytest.raises(EnvironmentContractError, match=message):
        check_changes(environment, objects)


def test_a_promise_to_connect_is_held() -> None:
    environment = Apart(4)
    objects = enumerate_states(environment).objects
    check_changes(environment, objects)
    with pytest.raises(EnvironmentContractError, match=r"no changes lead from \[0\] to \[1\]"):
        check_connected(environment, objects)
    environment.changes_connect = False
    check_connected(environment, objects)


# Targets


@pytest.mark.parametrize(
    "target",
    [
        Ising((3, 2), 0.5, field=0.1),
        Ising((8, 8), 0.44),
        Potts((3, 3), num_states=3, coupling=0.8),
        gfnmc.targets.EdwardsAnderson((4, 4), beta=1.0, seed=0),
        gfnmc.targets.HyperGrid(2, 6),
        TFBinding("KLF1", beta=40.0),
        from_function(lambda x: x.sum(1).sin(), (4,), values=(0, 1, 5)),
    ],
    ids=lambda target: target.name,
)
def test_targets_that_ship_are_right(target: Target) -> None:
    check_target(target)


def test_objects_come_from_where_there_are_some() -> None:
    target = from_function(lambda x: x.sum(1).double(), (1,), name="places")
    with pytest.raises(CapabilityError, match="give an environment that builds them"):
        check_target(target)
    check_target(target, Stairs(4))
    check_target(target, objects=torch.arange(3)[:, None])
    with pytest.raises(ObjectError):
        check_target(target, HyperGrid(2, 3))
    with pytest.raises(CapabilityError, match="noisy"):
        check_target(gfnmc.targets.NoisyCopy(target, (0.5, 1.5), (0.5, 0.5)))


class Spins(Ising):
    """Four spins, with something wrong."""

    def __init__(self) -> None:
        super().__init__((2, 2), 0.4)
        self.name = "spins"


# Without what an Ising model offers beside its log-density.
PLAIN = {
    name: getattr(Target, name)
    for name in ("log_prob_delta", "log_prob_deltas", "partial_log_prob", "log_prob_relaxed")
}


def broken(**methods: Callable[..., Any]) -> Target:
    return type("Broken", (Spins,), methods)()


def shifted(method: str) -> Callable[..., Any]:
    def wrong(self: Target, *arguments: Any) -> Any:
        return getattr(Spins, method)(self, *arguments) + 1e-3

    return wrong


class FarModes(ModeSet):
    names = ("up", "down")
    examples = torch.tensor([[[1, 1], [1, 1]], [[-1, -1], [-1, -1]]], dtype=torch.int8)

    def __init__(self, up: int, down: int) -> None:
        self._ids = torch.tensor([down, up])

    def assign(self, x: Tensor) -> Tensor:
        return self._ids[(x.flatten(1)[:, 0] > 0).to(torch.int64)]


def exact_with(**wrong: Any) -> Callable[[Target], ExactSolution]:
    def exact(self: Target) -> ExactSolution:
        right = from_function(self.log_prob, (2, 2), values=(-1, 1), dtype=torch.int8).exact()
        assert right is not None and right.log_pmf is not None
        changed = {"log_z": right.log_z, "support": right.support, "log_pmf": right.log_pmf}
        return ExactSolution(**(changed | {name: change(changed[name]) for name, change in wrong.items()}))

    return exact


BROKEN_TARGETS: dict[str, tuple[Callable[[], Target], str]] = {
    "float32": (lambda: broken(log_prob=lambda self, x: Ising.log_prob(self, x).float()), "add .double"),
    "depends on the batch": (
        lambda: broken(log_prob=lambda self, x: Ising.log_prob(self, x) - Ising.log_prob(self, x).max()),
        "log_prob: in a batch .*, alone .* they must be equal",
    ),
    "depends on the place": (
        lambda: broken(log_prob=lambda self, x: Ising.log_prob(self, x) + 0.1 * torch.arange(len(x)).double()),
        "they must be equal",
    ),
    "impossible": (lambda: broken(log_prob=lambda self, x: torch.full((len(x),), -math.inf).double()), "-inf for all"),
    "delta": (lambda: broken(log_prob_delta=shifted("log_prob_delta")), "log_prob_delta for the value -1: by log_prob"),
    "shape of delta": (
        lambda: broken(log_prob_delta=lambda self, x, sites: Ising.log_prob_delta(self, x, sites)[:, :1]),
        "log_prob_delta has shape",
    ),
    "deltas": (
        lambda: broken(log_prob_deltas=shifted("log_prob_deltas")),
        "log_prob_deltas for the value -1 at site 3: by log_prob_delta",
    ),
    "order of deltas": (
        lambda: broken(log_prob_deltas=lambda self, x, sites: Ising.log_prob_deltas(self, x, sites.sort().values)),
        "log_prob_deltas for the value -1 at site 3",
    ),
    "shape of deltas": (
        lambda: broken(log_prob_deltas=lambda self, x, sites: Ising.log_prob_deltas(self, x, sites)[:, :1]),
        "log_prob_deltas has shape",
    ),
    "interactions": (
        lambda: broken(interactions=lambda self: self.bonds[:1]),
        r"at the sites \(0, 1\), which `interactions` does not pair: one by one",
    ),
    "no pairs of sites": (
        lambda: broken(interactions=lambda self: self.bonds + 1),
        r"interactions returned the pair \[\d, 4\]",
    ),
    "partial": (lambda: broken(partial_log_prob=shifted("partial_log_prob")), "partial_log_prob with every site"),
    "relaxed": (lambda: broken(log_prob_relaxed=shifted("log_prob_relaxed")), "log_prob_relaxed at one-hot points"),
    "symmetry": (
        lambda: broken(log_prob=lambda self, x: Ising.log_prob(self, x) + x.flatten(1)[:, 0].double(), **PLAIN),
        "of its image under the symmetry",
    ),
    "symmetry without values": (
        lambda: broken(
            values=None, exact=lambda self: None, symmetries=lambda self: (Symmetry("x", (0,), (0,)),), **PLAIN
        ),
        "no `values` that they could exchange",
    ),
    "shape of a statistic": (
        lambda: broken(statistics=lambda self, x: {"spins": x.flatten(1)}),
        "'spins' of spins has shape",
    ),
    "NaN statistic": (
        lambda: broken(statistics=lambda self, x: {"spins": x.flatten(1)[:, 0] * math.nan}),
        "is not finite",
    ),
    "statistic of the batch": (
        lambda: broken(statistics=lambda self, x: {"spins": torch.arange(len(x)).double()}),
        "'spins' of spins: in a batch",
    ),
    "modes out of range": (lambda: broken(modes=lambda self: FarModes(2, 1)), "outside -1 ... 1"),
    "modes of examples": (lambda: broken(modes=lambda self: FarModes(1, 0)), r"lie in the modes \[1, 0\]"),
    "log_z": (lambda: broken(exact=exact_with(log_z=lambda z: z + 1e-3)), "the exact log_z of spins is"),
    "log_pmf": (lambda: broken(exact=exact_with(log_pmf=lambda p: p.roll(1))), "the exact log_pmf of spins"),
}


@pytest.mark.parametrize("name", BROKEN_TARGETS)
def test_wrong_targets_are_caught(name: str) -> None:
    make, message = BROKEN_TARGETS[name]
    objects = torch.tensor([[[1, 1], [1, 1]], [[1, -1], [1, 1]], [[-1, -1], [-1, 1]]], dtype=torch.int8)
    check_target(Spins(), objects=objects)
    with pytest.raises(EnergyError, match=message):
        check_target(make(), objects=objects)


# Policies and pairs


@pytest.mark.parametrize("name", small_environments())
def test_policies_that_ship_are_right(name: str) -> None:
    environment = small_environments()[name]
    check_pair(random_pair(environment))
    check_pair(network_pair(environment))
    check_pair(GFlowNet(UniformPolicy(environment, Direction.FORWARD)))
    policy = TransformerPolicy(environment, hidden_size=8, num_heads=2)
    check_policy(policy)
    check_policy(policy.with_exploration(temperature=2.0, epsilon=0.1), enumerate_states(environment).states)


class Wrong(MLPPolicy):
    """A network whose law is changed on the way out."""

    change: Callable[[DiscretePolicy, Tensor, Tensor], Tensor]

    def log_probs(self, cache: Any, states: Tensor) -> Tensor:
        return type(self).change(self, super().log_probs(cache, states), states)


class Stale(MLPPolicy):
    def advance(self, cache: Any, states: Tensor, actions: Tensor) -> Any:
        return cache


class Greedy(MLPPolicy):
    """Takes the likeliest action, and says that it drew it."""

    def sample(self, cache: Any, states: Tensor, draws: Draws, active: Tensor) -> tuple[Tensor, Tensor]:
        actions, log_prob = super().sample(cache, states, draws, active)
        return actions, log_prob + 0.1


class Lawless(MLPPolicy):
    def sample(self, cache: Any, states: Tensor, draws: Draws, active: Tensor) -> tuple[Tensor, Tensor]:
        allowed = self.environment.mask(states, self.direction)
        actions = allowed.to(torch.int64).argmin(-1)
        return actions, self.score(cache, states, actions)


def _change(change: Callable[[DiscretePolicy, Tensor, Tensor], Tensor]) -> type[MLPPolicy]:
    return type("Wrong", (Wrong,), {"change": staticmethod(change)})


def _of_batch(policy: DiscretePolicy, law: Tensor, states: Tensor) -> Tensor:
    return (law * (1.0 + 0.01 * len(states))).log_softmax(-1)


WRONG_POLICIES: dict[str, tuple[type[MLPPolicy], str]] = {
    "float32": (_change(lambda policy, law, states: law.float()), "log_probs returned torch.float32"),
    "NaN": (_change(lambda policy, law, states: law * math.nan), "holds NaN"),
    "not normalised": (_change(lambda policy, law, states: law - 0.1), "does not add up to 1"),
    "mask": (_change(lambda policy, law, states: torch.full_like(law, -math.log(law.shape[1]))), "mask forbids a prob"),
    "zero": (
        _change(lambda policy, law, states: torch.where(law == law.amax(-1, True), 0.0, -math.inf).double()),
        "says is_positive",
    ),
    "batch": (_change(_of_batch), "depends on the batch it is in"),
    "cache": (Stale, "the law after `advance`"),
    "score": (Greedy, "another number than sample"),
    "forbidden draw": (Lawless, "draws an action that the mask forbids"),
}


@pytest.mark.parametrize("name", WRONG_POLICIES)
def test_wrong_policies_are_caught(name: str) -> None:
    kind, message = WRONG_POLICIES[name]
    environment = HyperGrid(2, 4)
    policy = kind(environment, hidden_size=8, seed=1)
    with torch.no_grad():
        policy.head.mul_(30.0)
    check_policy(MLPPolicy(environment, hidden_size=8, seed=1))
    with pytest.raises(PolicyError, match=message):
        check_policy(policy)


class TwoFaced(GFlowNet):
    """Samples by one law and scores by another, forward or backward."""

    way = "forward"

    def frozen(self) -> "TwoFaced":
        return self

    def log_forward(self, path: Path) -> Tensor:
        return super().log_forward(path) + (0.01 if self.way == "forward" else 0.0)

    def log_backward(self, path: Path) -> Tensor:
        return super().log_backward(path) + (0.01 if self.way == "backward" else 0.0)


def test_wrong_pairs_are_caught() -> None:
    environment: DiscreteEnvironment = HyperGrid(2, 4)
    right = random_pair(environment).frozen()
    pair = TwoFaced(right.forward, right.backward)
    with pytest.raises(PolicyError, match=r"log_forward of a path differs .* P_F has two laws"):
        check_pair(pair)
    pair.way = "backward"
    with pytest.raises(PolicyError, match=r"log_backward of a path differs .* P_B has two laws"):
        check_pair(pair)
    pair.way = "neither"
    check_pair(pair)
    pair.sample_backward = lambda states, num_steps, draws: right.sample_backward(  # type: ignore[method-assign]
        states, torch.ones(len(states), dtype=torch.int64), draws
    )
    with pytest.raises(PolicyError, match="does not reach the source"):
        check_pair(pair)
    pair.sample_forward = lambda states, draws: GFlowNet.sample_backward(  # type: ignore[method-assign]
        right, environment.states(torch.zeros(len(states), 2, dtype=torch.int64)), None, draws
    )
    with pytest.raises(PolicyError, match="without log_forward"):
        check_pair(pair)
