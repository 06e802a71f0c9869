"""How an object is built: a directed acyclic graph of states, walked one action at a time.

A state is a row of one tensor. The source is the empty object; an object is finished where no action is left
or, in an environment with an exit action, wherever the policy exits. Environments know no energies.

`step` and `unstep` are called on whole batches of which some rows are discarded afterwards, so on a row where
the action is not allowed they may return anything but must not raise.
"""

import math
from abc import ABC, abstractmethod
from enum import Enum
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import CapabilityError
from gfnmc.core.symmetry import Symmetry
from gfnmc.environments.filling import Filling


class Direction(Enum):
    """Which way a policy walks: building (P_F) or taking apart (P_B)."""

    FORWARD = "forward"
    BACKWARD = "backward"


class TokenChange(NamedTuple):
    """What a step does to a state's tokens: as many leave as come, and the order does not matter.

    Attributes:
        removed: Token ids that go.
        added: Token ids that come.
    """

    removed: Int64[Tensor, "batch changed"]
    added: Int64[Tensor, "batch changed"]


class Environment(ABC):
    """A state graph, discrete or not.

    Attributes:
        is_fixed_length: Every complete path has the same number of actions.
        is_graded: Every path from the source to a state has the same number of actions (its depth).
        max_depth: Most actions (the exit not counted) that any path has; None if there is no bound.
        is_enumerable: All states can be listed in memory.
    """

    is_fixed_length: bool
    is_graded: bool
    max_depth: int | None
    is_enumerable: bool = False

    @abstractmethod
    def source(self, batch: int) -> Shaped[Tensor, "batch *state"]:
        """Return the empty state, `batch` times."""

    @abstractmethod
    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return the states after the actions (never the exit action). Does not change its input."""

    @abstractmethod
    def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return the states before the actions that led here. Does not change its input."""

    @abstractmethod
    def is_source(self, states: Tensor) -> Bool[Tensor, " batch"]:
        """Return True where a state is the source."""

    @abstractmethod
    def objects(self, states: Tensor) -> Shaped[Tensor, "batch *event"]:
        """Return the objects that finished states stand for, as the target wants them."""

    @abstractmethod
    def states(self, objects: Tensor) -> Shaped[Tensor, "batch *state"]:
        """Return the finished states of objects."""


MOST_NUMBERED = 2**14
"""The numbers of states are used, and checked, where there are no more than these."""


class DiscreteEnvironment(Environment):
    """A state graph with a finite set of actions.

    A backward action carries the id of the forward action that it undoes.

    Attributes:
        num_actions: Actions, the exit included.
        exit_action: Id of the exit action (`num_actions - 1`), or None where a state is finished as soon as
            no action is left. With an exit action, every state may end the walk where the mask allows it.
        num_tokens: Tokens of a state.
        vocabulary: Number of different tokens.
        parents_share_actions: Two parents may reach a state by the same action id, so that an id does not
            say where to go back to. Such an environment is refused by kernels.
        builds_every_assignment: The objects are all assignments of a target's `values` to its sites.
        changes_connect: Single changes (`change`) lead from any object to any other.
        rebuild_connects: Taking back this many actions and rebuilding, again and again, leads from any object
            to any other; None if only a restart from the source does.
        positions: Number of positions, where the environment itself fixes or draws the position that the next
            action fills and a policy only chooses the value; action ids are then `position * values + value`.
            None where the policy chooses everything.
        token_changes: Every change of tokens that a step can make, where they are few, so that networks can add them up
            beforehand; None where they are not listed.
        filling: How positions follow each other where they are filled one at a time and each action makes the change of
            its own number: then whole walks are made at once. None where walks go step by step.
        number_steps: What each action adds to the number of a state, where states have numbers; None where they have
            none.
        num_numbers: How many numbers there are.
        action_tokens: Which tokens each action, the exit aside, is about, by their places in `tokens`: networks that
            have an embedding for each token read the action's logit there. The exit has to be the last action. None
            where actions are not about tokens.
    """

    num_actions: int
    exit_action: int | None = None
    num_tokens: int
    vocabulary: int
    parents_share_actions: bool = False
    builds_every_assignment: bool = False
    changes_connect: bool = False
    rebuild_connects: int | None = None
    positions: int | None = None
    token_changes: TokenChange | None = None
    filling: Filling | None = None
    number_steps: Int64[Tensor, " actions"] | None = None
    num_numbers: int = 0
    action_tokens: Int64[Tensor, "actions tokens_an_action"] | None = None

    def describe(self) -> dict[str, Any]:
        """Return plain data that tells this environment from others; a saved pair loads only where it agrees.

        Add to it what your constructor takes.
        """
        return {"name": type(self).__name__, "num_actions": self.num_actions, "max_depth": self.max_depth}

    @abstractmethod
    def forward_mask(self, states: Tensor) -> Bool[Tensor, "batch actions"]:
        """Return True where an action (the exit included) may be taken."""

    @abstractmethod
    def backward_mask(self, states: Tensor) -> Bool[Tensor, "batch actions"]:
        """Return True where an action may have led here. All False at the source; the exit always False."""

    def mask(self, states: Tensor, direction: Direction) -> Bool[Tensor, "batch actions"]:
        """Return the mask of a direction."""
        return self.forward_mask(states) if direction is Direction.FORWARD else self.backward_mask(states)

    def is_terminal(self, states: Tensor) -> Bool[Tensor, " batch"]:
        """Return True where a state is a finished object."""
        mask = self.forward_mask(states)
        return ~mask.any(-1) if self.exit_action is None else mask[:, self.exit_action]

    def depth(self, states: Tensor) -> Int64[Tensor, " batch"]:
        """Return the number of actions from the source, in a graded environment.

        Raises:
            CapabilityError: If the environment does not offer it.
        """
        raise CapabilityError(f"{type(self).__name__} has no depth: implement `depth`, or set is_graded = False")

    def log_num_paths(self, states: Tensor) -> Float64[Tensor, " batch"]:
        """Return the logarithm of the number of action sequences that lead from the source to each state, nats.

        Raises:
            CapabilityError: If the environment does not offer it.
        """
        raise CapabilityError(
            f"{type(self).__name__} does not count its paths: implement `log_num_paths`, or learn the count "
            "(the `log_count` of MaxEntropyPolicy)"
        )

    def position_log_probs(self, states: Tensor) -> Float64[Tensor, "batch positions"]:
        """Return the law of the position that the next action fills, where `positions` is not None."""
        raise CapabilityError(f"{type(self).__name__} leaves the position to the policy")

    def assigned(self, states: Tensor) -> tuple[Shaped[Tensor, "batch *event"], Bool[Tensor, "batch *event"]]:
        """Return the unfinished objects that states stand for, so that a target can judge them.

        Returns:
            Objects, with any value the target knows where a site is still open, and True where it is assigned.

        Raises:
            CapabilityError: If the environment does not offer it.
        """
        raise CapabilityError(
            f"{type(self).__name__} has no unfinished objects: implement `assigned`, or use an objective that looks at "
            "finished objects only"
        )

    def tokens(self, states: Tensor) -> Int64[Tensor, "batch tokens"]:
        """Return each state as token ids over one vocabulary, the universal encoding that networks read."""
        raise CapabilityError(f"{type(self).__name__} has no tokens: implement `tokens`, num_tokens and vocabulary")

    def changed_tokens(self, states: Tensor, actions: Tensor) -> TokenChange:
        """Return the tokens that `step(states, actions)` changes. Override it where only a few do.

        All ids lie in the vocabulary, also those of an action that is not allowed: networks look them up.
        """
        if self.token_changes is not None:
            change = self.token_change(states, actions)
            return TokenChange(*(tokens[change] for tokens in self.token_changes))
        last = self.vocabulary - 1
        return TokenChange(self.tokens(states).clamp(0, last), self.tokens(self.step(states, actions)).clamp(0, last))

    def token_change(self, states: Tensor, actions: Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
        """Return which of `token_changes` the steps make; any where an action is not allowed."""
        raise CapabilityError(f"{type(self).__name__} does not list its token_changes: implement `changed_tokens`")

    def state_numbers(self, states: Tensor) -> Int64[Tensor, " batch"]:
        """Return the number of each state, 0 ... num_numbers - 1."""
        raise CapabilityError(f"{type(self).__name__} does not number its states: implement `state_numbers`")

    def numbered_states(self) -> Shaped[Tensor, "num_numbers *state"]:
        """Return every state, in the order of their numbers."""
        raise CapabilityError(f"{type(self).__name__} does not number its states: implement `numbered_states`")

    @property
    def num_nodes(self) -> int:
        """Number of nodes that `nodes` labels; the tokens by default."""
        return self.num_tokens

    @property
    def node_vocabulary(self) -> int:
        """Number of different labels of a node; the tokens' by default."""
        return self.vocabulary

    @property
    def action_nodes(self) -> Int64[Tensor, "actions nodes_an_action"] | None:
        """Which nodes each action, the exit aside, is about, as `action_tokens` says it of tokens."""
        return self.action_tokens

    def nodes(self, states: Tensor) -> Int64[Tensor, "batch nodes"]:
        """Return the labels of the nodes that `edges` joins; the tokens by default."""
        return self.tokens(states)

    def edges(self, states: Tensor) -> Bool[Tensor, "batch nodes nodes"]:
        """Return which nodes are neighbours, symmetric; networks pass messages along these edges.

        Raises:
            CapabilityError: If the environment does not offer it.
        """
        raise CapabilityError(
            f"{type(self).__name__} joins no nodes by edges: implement `edges`, or use a network that reads tokens only"
        )

    def transformed(self, symmetry: Symmetry, states: Shaped[Tensor, "batch *state"]) -> Shaped[Tensor, "batch *state"]:
        """Return the states that stand for the relabelled objects, finished or not.

        Raises:
            CapabilityError: If the environment does not offer it, or the symmetry does not carry paths into paths.
        """
        raise CapabilityError(
            f"{type(self).__name__} does not relabel its states: implement `transformed` and `transformed_actions`"
        )

    def transformed_actions(self, symmetry: Symmetry) -> Int64[Tensor, " actions"]:
        """Return what each action becomes: taking it and relabelling is relabelling and taking what it becomes.

        Raises:
            CapabilityError: As `transformed`.
        """
        raise CapabilityError(
            f"{type(self).__name__} does not relabel its actions: implement `transformed` and `transformed_actions`"
        )

    @property
    def num_changes(self) -> int:
        """Number of single changes an object may have, the most any object has.

        Raises:
            CapabilityError: If the environment does not offer single changes.
        """
        raise CapabilityError(
            f"{type(self).__name__} has no single changes: implement num_changes, change_mask and change, "
            "or use a kernel that does not need them"
        )

    def change_mask(self, objects: Tensor) -> Bool[Tensor, "batch changes"]:
        """Return True where a change applies. By default all do."""
        return torch.ones(objects.shape[0], self.num_changes, dtype=torch.bool, device=objects.device)

    def change(self, objects: Tensor, changes: Int64[Tensor, " batch"]) -> Tensor:
        """Return the objects after one natural single change each.

        Of two objects, at most one change leads from the one to the other, and then one leads back.
        """
        raise CapabilityError(f"{type(self).__name__} has no single changes: implement `change`")

    def neighbours(
        self, objects: Tensor
    ) -> tuple[Shaped[Tensor, "batch changes *event"], Bool[Tensor, "batch changes"]]:
        """Return every single change of every object, and the mask that says which of them apply."""
        batch = objects.shape[0]
        changes = torch.arange(self.num_changes, device=objects.device).repeat(batch)
        changed = self.change(objects.repeat_interleave(self.num_changes, 0), changes)
        return changed.reshape(batch, self.num_changes, *objects.shape[1:]), self.change_mask(objects)


def uniform_log_probs(mask: Bool[Tensor, "*batch n"]) -> Float64[Tensor, "*batch n"]:
    """Return the uniform law over the allowed entries of each row; all -inf where none is."""
    count = mask.sum(-1, keepdim=True).to(torch.float64)
    return torch.where(mask, -count.log(), -math.inf)
