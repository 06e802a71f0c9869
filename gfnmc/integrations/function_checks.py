"""A quick walk that catches functions which do not fit together, before any chain believes them.

It follows a few dozen paths up and down, as kernels walk them: only actions that are allowed are done or undone.
"""

import torch
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import EnvironmentContractError, PolicyError
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.policies.base import DiscretePolicy

NUM_PATHS = 32
_ROWS_ALONE = 16
"""Most rows that are looked at one by one, to see whether a batch treats them so."""


@torch.no_grad()
def check_functions(
    environment: DiscreteEnvironment, forward: DiscretePolicy, backward: DiscretePolicy, *, both_ways: bool
) -> None:
    """Build objects by P_F, half of the actions at random, and hold every step to the contract.

    Args:
        environment: Where the policies act.
        forward: P_F.
        backward: P_B.
        both_ways: Whether P_B has to undo all that P_F does.

    Raises:
        EnvironmentContractError: At the first contradiction of the moves, with the state and the action that show it.
        PolicyError: If P_B does not undo what P_F does, though it should.
    """
    states = environment.source(NUM_PATHS)
    _require(environment.is_source(states), states, "is_source denies that `source` is the empty state")
    forward = forward.with_exploration(epsilon=0.5)
    draws = PhiloxDraws(0, "check_functions", NUM_PATHS)
    rows = torch.arange(NUM_PATHS, device=states.device)
    edges: list[tuple[Tensor, Tensor, Tensor]] = []
    assert environment.max_depth is not None
    for depth in range(environment.max_depth + 1):
        rows, actions = _going_on(environment, forward, draws.for_rows(rows), states, rows, depth)
        if len(rows) == 0:
            _check_batches(environment, edges)
            _check_objects(environment, states)
            return
        edge = (states[rows], actions, _stepped(environment, states[rows], actions, depth))
        _check_undone(environment, backward, *edge, both_ways=both_ways)
        if both_ways:
            _check_done_again(environment, forward, backward, draws.for_rows(rows), edge[2])
        edges.append(edge)
        states = states.index_copy(0, rows, edge[2])
    raise EnvironmentContractError(
        f"a path of more than {environment.max_depth} actions has not ended; correct max_depth, or what says that a "
        f"path ends (state {states[rows[0]].tolist()})"
    )


def _going_on(
    environment: DiscreteEnvironment, forward: DiscretePolicy, draws: Draws, states: Tensor, rows: Tensor, depth: int
) -> tuple[Tensor, Tensor]:
    """Return the rows whose paths do not end here, and what they do."""
    here = states[rows]
    if environment.exit_action is None:
        ended = environment.is_terminal(here)
        _check_length(environment, here[ended], depth)
        left = (~ended).nonzero()[:, 0]
        rows, here, draws = rows[left], here[left], draws.for_rows(left)
        return rows, _sampled(forward, here, draws)
    actions = _sampled(forward, here, draws)
    ended = actions == environment.exit_action
    _check_length(environment, here[ended], depth)
    return rows[~ended], actions[~ended]


def _sampled(policy: DiscretePolicy, states: Tensor, draws: Draws) -> Tensor:
    if len(states) == 0:
        return torch.zeros(0, dtype=torch.int64, device=states.device)
    active = torch.ones(len(states), dtype=torch.bool, device=states.device)
    return policy.sample(policy.begin(states), states, draws, active)[0]


def _stepped(environment: DiscreteEnvironment, states: Tensor, actions: Tensor, depth: int) -> Tensor:
    before = states.clone()
    children = environment.step(states, actions)
    _require(_same(states, before), before, "step changes the states it is given; return new ones")
    if children.shape != states.shape or children.dtype != states.dtype:
        raise EnvironmentContractError(
            f"step returned {children.dtype} of shape {tuple(children.shape)} for states that are {states.dtype} of "
            f"shape {tuple(states.shape)}"
        )
    _require(~environment.is_source(children), children, "is_source calls a state after a step the empty one")
    if environment.is_graded:
        deep = environment.depth(children) == depth + 1
        _require(deep, children, f"depth is not {depth + 1} after as many actions; leave it out if paths differ")
    return children


def _check_undone(
    environment: DiscreteEnvironment,
    backward: DiscretePolicy,
    states: Tensor,
    actions: Tensor,
    children: Tensor,
    *,
    both_ways: bool,
) -> None:
    before = children.clone()
    returned = _same(environment.unstep(children, actions), states)
    _require(returned, children, "unstep does not return to the state that step left")
    _require(_same(children, before), before, "unstep changes the states it is given; return new ones")
    undone = backward.score(backward.begin(children), children, actions) > -torch.inf
    if both_ways and not bool(undone.all()):
        row = int((~undone).nonzero()[0, 0])
        raise PolicyError(
            f"log_pb forbids undoing the action {int(actions[row])} that led to the state {children[row].tolist()}, so "
            "chains cannot go back; let P_B undo whatever P_F does (-inf means forbidden), or say "
            "is_positive=False"
        )


def _check_done_again(
    environment: DiscreteEnvironment, forward: DiscretePolicy, backward: DiscretePolicy, draws: Draws, states: Tensor
) -> None:
    """Undo another action of each state, half of them at random, and see that P_F may do it."""
    actions = _sampled(backward.with_exploration(epsilon=0.5), states, draws)
    parents = environment.unstep(states, actions)
    returned = _same(environment.step(parents, actions), states)
    _require(returned, states, "step does not return to the state that unstep left")
    done = forward.score(forward.begin(parents), parents, actions) > -torch.inf
    if not bool(done.all()):
        row = int((~done).nonzero()[0, 0])
        raise PolicyError(
            f"log_pb undoes the action {int(actions[row])} of the state {states[row].tolist()}, which log_pf forbids "
            f"in {parents[row].tolist()}, so chains cannot come back; let both forbid the same edges (-inf means "
            "forbidden), or say is_positive=False"
        )


def _check_length(environment: DiscreteEnvironment, ended: Tensor, depth: int) -> None:
    if environment.is_fixed_length and depth != environment.max_depth:
        _require(
            torch.zeros(len(ended), dtype=torch.bool),
            ended,
            f"is_fixed_length, but a path ends after {depth} actions, not {environment.max_depth}",
        )


def _check_batches(environment: DiscreteEnvironment, edges: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Look whether moves of rows at different depths, as kernels make them, are those of the rows alone."""
    if not edges:
        return
    states, actions, children = (torch.cat(parts) for parts in zip(*edges, strict=True))
    some = torch.arange(0, len(actions), max(1, len(actions) // _ROWS_ALONE), device=actions.device)
    for name, move, start, end in (
        ("step", environment.step, states[some], children[some]),
        ("unstep", environment.unstep, children[some], states[some]),
    ):
        together = move(start, actions[some])
        _require(_same(together, end), start, f"{name} of several states at once is not {name} of each of them")


def _check_objects(environment: DiscreteEnvironment, states: Tensor) -> None:
    again = environment.states(environment.objects(states))
    same = _same(again, states) if again.shape == states.shape else torch.zeros(len(states), dtype=torch.bool)
    _require(same, states, "states(objects(state)) is not the state")


def _same(some: Tensor, other: Tensor) -> Tensor:
    return (some == other).flatten(1).all(-1)


def _require(holds: Tensor, states: Tensor, message: str) -> None:
    if not bool(holds.all()):
        row = int((~holds).nonzero()[0, 0])
        raise EnvironmentContractError(f"{message} (state {states[row].tolist()})")
