"""Every check that applies to a user's object, one finding a check: what `gfnmc check` prints.

an environment     walks, every edge where it is small, single changes
a target           its log-density, and everything it offers beside
a policy, a pair   one law, for sampling and scoring
a kernel           leaves its target invariant, with broken twins that do not
both an environment and a target: kernels that are made of them, a random walk and suffix resampling by a pair that
was not trained, leave the target invariant
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from gfnmc.core.draws import normal
from gfnmc.core.errors import CapabilityError, GfnmcError, OptionError
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.environments.check import check_environment
from gfnmc.environments.enumeration import StateGraph, enumerate_states
from gfnmc.kernels.base import Kernel
from gfnmc.kernels.random_walk import RandomWalk
from gfnmc.kernels.suffix import SuffixResampling
from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.pair import GFlowNet, ProposalPair
from gfnmc.policies.tabular import TabularPolicy
from gfnmc.policies.uniform import UniformPolicy
from gfnmc.targets.base import Target
from gfnmc.testing.environment_checks import check_changes, check_connected
from gfnmc.testing.invariance import assert_invariant
from gfnmc.testing.policy_checks import check_pair, check_policy
from gfnmc.testing.target_checks import check_target

MAX_STATES = 2**13
"""Most states of an environment whose every edge is checked."""

_MAX_CHANGED = 2**9


class Finding(NamedTuple):
    """What a check found.

    Attributes:
        is_ok: Whether it passed; None where it could not be made.
        text: What was checked and what came out, one line.
    """

    is_ok: bool | None
    text: str

    def __str__(self) -> str:
        word = {True: "ok", False: "FAIL", None: "skip"}[self.is_ok]
        return f"{word:<4} {self.text}"


def checked(value: Any) -> Iterator[Finding]:
    """Check an object, or a tuple, list or dict of objects, and yield what is found as soon as it is.

    Args:
        value: An environment, target, policy, pair or kernel, or some of them.

    Raises:
        OptionError: If there is nothing that can be checked.
    """
    things = list(_things(value))
    environments = [thing for thing in things if isinstance(thing, DiscreteEnvironment)]
    targets = [thing for thing in things if isinstance(thing, Target)]
    pairs = [thing for thing in things if isinstance(thing, GFlowNet)]
    if not things:
        raise OptionError(
            f"there is nothing to check in an object of type {type(value).__name__}; give a kernel, environment, "
            "target, policy or pair, or a function that returns some of them"
        )
    for thing in things:
        yield from _of_one(thing, environments)
    for environment in environments:
        for target in targets:
            yield from _of_both(environment, target, pairs)


def _things(value: Any) -> Iterator[Any]:
    """Yield what can be checked, however it was packed."""
    if isinstance(value, Kernel | DiscreteEnvironment | Target | DiscretePolicy | ProposalPair):
        yield value
    elif isinstance(value, Mapping):
        yield from _things(list(value.values()))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from _things(part)


def _of_one(thing: Any, environments: Sequence[DiscreteEnvironment]) -> Iterator[Finding]:
    if isinstance(thing, Kernel):
        yield _finding(thing.name, lambda: str(assert_invariant(thing)))
    elif isinstance(thing, DiscreteEnvironment):
        yield from _of_environment(thing)
    elif isinstance(thing, Target):
        around = next(iter(environments), None)
        yield _finding(
            f"target {thing.name}", lambda: _said(check_target(thing, around), "log-density and what it offers")
        )
    elif isinstance(thing, DiscretePolicy):
        name = f"{thing.direction.value} {type(thing).__name__}"
        yield _finding(
            name, lambda: _said(check_policy(thing), "one law for sampling and scoring, alone and in a batch")
        )
    else:
        yield _finding(
            type(thing).__name__, lambda: _said(check_pair(thing), "policies agree with the paths they walk")
        )


def _of_environment(environment: DiscreteEnvironment) -> Iterator[Finding]:
    name = type(environment).__name__

    def every_edge() -> str:
        graph = enumerate_states(environment, max_states=MAX_STATES)
        return f"{len(graph.actions):,} edges of {graph.num_states:,} states, {len(graph.objects):,} objects"

    def changes() -> str:
        # Asked first, so that an environment without single changes is not blamed for having none.
        number = environment.num_changes
        graph = _graph(environment)
        objects = None if graph is None else graph.objects
        check_changes(environment, None if objects is None else objects[:_MAX_CHANGED])
        if objects is None:
            return f"{number} single changes of objects that were built at random"
        check_connected(environment, objects)
        return f"{number} single changes, each with a way back"

    yield _finding(name, lambda: _said(check_environment(environment), "random walks up and down"))
    yield _finding(name, every_edge)
    yield _finding(name, changes)


def _of_both(environment: DiscreteEnvironment, target: Target, pairs: Sequence[GFlowNet]) -> Iterator[Finding]:
    """Judge kernels that are made of an environment and a target; pairs that were given, or else a random one."""

    def walk() -> str:
        return str(assert_invariant(RandomWalk(environment, target)))

    fitting = [pair for pair in pairs if pair.environment is environment] or [_untrained(environment)]
    yield _finding(f"random walk on {target.name}", walk)
    for pair in fitting:
        yield _finding(
            f"suffix resampling on {target.name}",
            lambda pair=pair: str(assert_invariant(SuffixResampling(pair, target))),
        )


def _untrained(environment: DiscreteEnvironment) -> GFlowNet:
    """Return a pair with random tables where the environment is small, and a uniform one elsewhere."""
    graph = _graph(environment)
    if graph is None:
        return GFlowNet(UniformPolicy(environment, Direction.FORWARD))
    size = (graph.num_states, environment.num_actions)
    policies = [TabularPolicy(graph, way, normal(0, f"check/{way.value}", size, torch.float64)) for way in Direction]
    return GFlowNet(*policies)


def _graph(environment: DiscreteEnvironment) -> StateGraph | None:
    try:
        return enumerate_states(environment, max_states=MAX_STATES)
    except CapabilityError:
        return None


def _finding(name: str, check: Callable[[], str]) -> Finding:
    """Run a check; what it cannot do is skipped, what it raises is found, and nothing else is hidden."""
    try:
        return Finding(True, f"{name}: {check()}")
    except CapabilityError as error:
        return Finding(None, f"{name}: not checked: {error}")
    except (AssertionError, GfnmcError) as error:
        return Finding(False, f"{name}: {error}")
    except Exception as error:
        # Raised by the user's own code.
        return Finding(False, f"{name}: {type(error).__name__}: {error}")


def _said(done: None, text: str) -> str:
    return text
