"""A pair out of functions: policies that were trained elsewhere, with whatever library, as proposals here.

A kernel needs little of a pair: what P_F and P_B think of a batch of states, and how an action is done and undone.

    pair = FunctionPair(
        log_pf=..., log_pb=..., step=..., unstep=..., is_source=..., exit=..., source=torch.zeros(9), max_depth=16
    )

Laws are normalised here, in float64, and the numbers that draw an action are those that score it later, so a chain is
exact whatever the functions return, as long as they return the same for the same state. Networks do so only in batches
of one shape (docs/explanation/architecture.md, "Numbers"), so they are asked in blocks of `block_rows` states.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import Draws
from gfnmc.core.errors import OptionError, PolicyError
from gfnmc.core.numerics import masked_log_softmax
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.integrations.function_checks import check_functions
from gfnmc.policies.base import Cache, DiscretePolicy
from gfnmc.policies.path import Path
from gfnmc.policies.rollout import score_backward, score_forward, walk_backward, walk_forward
from gfnmc.policies.sub_batches import SUB_BATCH, in_sub_batches

ScoreFunction = Callable[[Tensor], Tensor]
"""Takes states `(batch, *state)`, returns a score for each action, `(batch, actions)`, -inf where it is forbidden."""

MoveFunction = Callable[[Tensor, Tensor], Tensor]
"""Takes states and one action a row, `(batch,)` int64, returns the states after it."""

StateFunction = Callable[[Tensor], Tensor]
"""Takes states, returns something for each."""


class FunctionPair:
    """P_F and P_B that somebody else's functions say; a `ProposalPair`.

    All functions are batched, and a row of what they return depends on the same row alone. `step` and `unstep` meet
    allowed actions only, and leave their input as it is.

    Args:
        log_pf: Scores of the actions that may be taken; their softmax is P_F. So log-probabilities will do, and logits.
        log_pb: Scores of the actions that may have led to a state; their softmax is P_B. A backward action has the id
            of the forward action that it undoes. The exit's column may be left out where it is the last.
        step: Does actions, never the exit.
        unstep: Undoes them.
        is_source: Which states are the empty one, `(batch,)` bool.
        exit: How an object is finished: the id of the exit action; or, where there is none, a function that says
            which states are finished, `(batch,)` bool.
        source: The empty state, `(*state,)`.
        max_depth: Most actions of a path, the exit not counted; a bound will do if paths differ in length.
        is_fixed_length: Whether every complete path has `max_depth` actions.
        depth: Number of actions from the source, `(batch,)` int64, where it is the same on all paths to a state.
        objects: From finished states to what the target is defined on; by default they are the same.
        states: The way back.
        is_positive: Whether no allowed action is so unlikely that it never happens. -inf forbids an action, so this is
            False only if P_F takes actions that P_B does not undo, or the other way round.
        training_cost: What training the pair cost, charged to whoever samples with it.
        block_rows: States that the functions are asked about at a time, the last block filled up; None asks about a
            whole batch at once, which is faster and exact to the rounding of the functions.

    Attributes:
        environment: What `step` and the others say, as an environment.
        training_cost: As given.
        is_positive: As given.

    Raises:
        OptionError: If an option cannot work.
        PolicyError: If the functions of the policies do not return scores, or contradict each other.
        EnvironmentContractError: If `step`, `unstep`, `is_source`, `exit` or the promises about paths do not fit.
    """

    def __init__(
        self,
        *,
        log_pf: ScoreFunction,
        log_pb: ScoreFunction,
        step: MoveFunction,
        unstep: MoveFunction,
        is_source: StateFunction,
        exit: int | StateFunction,
        source: Tensor,
        max_depth: int,
        is_fixed_length: bool = False,
        depth: StateFunction | None = None,
        objects: StateFunction | None = None,
        states: StateFunction | None = None,
        is_positive: bool = True,
        training_cost: Cost | None = None,
        block_rows: int | None = SUB_BATCH,
    ) -> None:
        _check_options(max_depth, block_rows, objects, states)
        scores = _Scores(log_pf, log_pb, source, exit, block_rows)
        self.environment = FunctionEnvironment(
            scores, step, unstep, is_source, exit, source, max_depth, is_fixed_length, depth, objects, states
        )
        self.is_positive = is_positive
        self.training_cost = training_cost or Cost()
        self._forward = FunctionPolicy(self.environment, Direction.FORWARD, scores.forward)
        self._backward = FunctionPolicy(self.environment, Direction.BACKWARD, scores.backward)
        check_functions(self.environment, self._forward, self._backward, both_ways=is_positive)

    def sample_forward(self, states: Tensor, draws: Draws) -> Path:
        """Build objects from states by P_F; the path has `log_forward`."""
        return walk_forward(self._forward, self.environment, states, draws)

    def sample_backward(self, states: Tensor, num_steps: Int64[Tensor, " batch"] | None, draws: Draws) -> Path:
        """Take finished states apart by `num_steps` actions a row, or to the source; with `log_backward`."""
        return walk_backward(self._backward, self.environment, states, num_steps, draws)

    def log_forward(self, path: Path) -> Float64[Tensor, " batch"]:
        """Return log P_F of the path, exit included, nats."""
        return score_forward(self._forward, self.environment, path)

    def log_backward(self, path: Path) -> Float64[Tensor, " batch"]:
        """Return log P_B of the path, nats."""
        return score_backward(self._backward, self.environment, path)


class FunctionEnvironment(DiscreteEnvironment):
    """The state graph that functions describe. Masks are where the policies' scores are not -inf.

    It has no tokens, so policies of this package learn nothing on it, and `step` and `unstep` meet allowed actions
    only. Made by `FunctionPair`, which says what the arguments are.
    """

    def __init__(
        self,
        scores: "_Scores",
        step: MoveFunction,
        unstep: MoveFunction,
        is_source: StateFunction,
        exit: int | StateFunction,
        source: Tensor,
        max_depth: int,
        is_fixed_length: bool,
        depth: StateFunction | None,
        objects: StateFunction | None,
        states: StateFunction | None,
    ) -> None:
        self._scores = scores
        self._step, self._unstep, self._is_source = step, unstep, is_source
        self._depth, self._objects, self._states = depth, objects, states
        self._source = source
        self._is_finished = None if isinstance(exit, int) else exit
        self.exit_action = exit if isinstance(exit, int) else None
        self.num_actions = scores.num_actions
        self.max_depth = max_depth
        self.is_fixed_length = is_fixed_length
        self.is_graded = depth is not None

    def source(self, batch: int) -> Tensor:
        return self._source.expand(batch, *self._source.shape).clone()

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        return self._step(states, actions) if len(states) else states.clone()

    def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
        return self._unstep(states, actions) if len(states) else states.clone()

    def is_source(self, states: Tensor) -> Tensor:
        return self._is_source(states)

    def objects(self, states: Tensor) -> Tensor:
        return states if self._objects is None else self._objects(states)

    def states(self, objects: Tensor) -> Tensor:
        return objects if self._states is None else self._states(objects)

    def forward_mask(self, states: Tensor) -> Tensor:
        mask = self._scores.forward(states) > -math.inf
        return mask if self._is_finished is None else mask & ~self._is_finished(states)[:, None]

    def backward_mask(self, states: Tensor) -> Tensor:
        return (self._scores.backward(states) > -math.inf) & ~self.is_source(states)[:, None]

    def is_terminal(self, states: Tensor) -> Tensor:
        return super().is_terminal(states) if self._is_finished is None else self._is_finished(states)

    def depth(self, states: Tensor) -> Tensor:
        return super().depth(states) if self._depth is None else self._depth(states)


class FunctionPolicy(DiscretePolicy):
    """The softmax of scores that a function gives. It has no weights of its own and never learns.

    Args:
        environment: Where it acts.
        direction: Which way it walks.
        scores: Takes states, returns `(batch, num_actions)`, -inf where an action is forbidden.
    """

    def __init__(self, environment: DiscreteEnvironment, direction: Direction, scores: ScoreFunction) -> None:
        super().__init__(environment, direction)
        self._scores = scores

    def begin(self, states: Tensor) -> Cache:
        return None

    def advance(self, cache: Cache, states: Tensor, actions: Int64[Tensor, " batch"]) -> Cache:
        return None

    def along(self, states: Tensor, actions: Tensor, select: Bool[Tensor, "batch length_plus_1"]) -> Cache:
        return None

    def log_probs(self, cache: Cache, states: Tensor) -> Float64[Tensor, "batch actions"]:
        scores = self._scores(states)
        # -inf is its own mask, except to the uniform law that is mixed in.
        mask = scores > -math.inf if self.epsilon else None
        return masked_log_softmax(scores, mask, temperature=self.temperature, epsilon=self.epsilon)

    def frozen(self) -> "FunctionPolicy":
        return self


class _Scores:
    """The scores of both policies, asked for in blocks and held to what scores have to be."""

    def __init__(
        self,
        log_pf: ScoreFunction,
        log_pb: ScoreFunction,
        source: Tensor,
        exit: int | StateFunction,
        block_rows: int | None,
    ) -> None:
        self._log_pf, self._log_pb, self._block_rows = log_pf, log_pb, block_rows
        with torch.no_grad():
            found = log_pf(source[None])
        if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != 1:
            raise PolicyError(
                f"log_pf returned {_described(found)} for one state; return a tensor of shape (1, actions)"
            )
        self.num_actions = found.shape[1]
        if isinstance(exit, int) and not 0 <= exit < self.num_actions:
            raise OptionError(
                f"exit is {exit}, but log_pf has {self.num_actions} actions, 0 ... {self.num_actions - 1}"
            )
        self._exit_is_last = exit == self.num_actions - 1

    def forward(self, states: Tensor) -> Float[Tensor, "batch actions"]:
        """Return the scores of P_F."""
        return self._checked("log_pf", self._in_blocks(self._log_pf, states), states)

    def backward(self, states: Tensor) -> Float[Tensor, "batch actions"]:
        """Return the scores of P_B, a column for the exit included."""
        scores = self._in_blocks(self._log_pb, states)
        if self._exit_is_last and scores.shape[-1] == self.num_actions - 1:
            scores = torch.nn.functional.pad(scores, (0, 1), value=-math.inf)
        return self._checked("log_pb", scores, states)

    def _in_blocks(self, function: ScoreFunction, states: Tensor) -> Tensor:
        if len(states) == 0:
            return torch.zeros(0, self.num_actions, dtype=torch.float64, device=states.device)
        with torch.no_grad():
            return in_sub_batches(function, self._block_rows, states)

    def _checked(self, name: str, scores: Shaped[Tensor, "..."], states: Tensor) -> Tensor:
        expected = (len(states), self.num_actions)
        if scores.shape != expected or not scores.is_floating_point():
            raise PolicyError(
                f"{name} returned {_described(scores)} for {len(states)} states; return floats of shape {expected}, "
                "-inf where an action is forbidden"
            )
        # The largest of a row is NaN where any is.
        is_right = scores.amax(1) < math.inf
        if not bool(is_right.all()):
            row = int((~is_right).nonzero()[0, 0])
            raise PolicyError(f"{name} returned {scores[row].tolist()} for the state {states[row].tolist()}")
        return scores


def _described(found: object) -> str:
    return f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"


def _check_options(
    max_depth: int, block_rows: int | None, objects: StateFunction | None, states: StateFunction | None
) -> None:
    if max_depth < 1:
        raise OptionError(f"max_depth is {max_depth}; give the number of actions of the longest path")
    if block_rows is not None and block_rows < 1:
        raise OptionError(f"block_rows is {block_rows}; give the rows of a block, or None for whole batches")
    if (objects is None) != (states is None):
        raise OptionError("objects and states are each other's way back; give both, or none")
