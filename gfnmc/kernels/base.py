"""What a kernel is: a step that leaves the target invariant, batched over chains and pure given its draws."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import Draws
from gfnmc.core.errors import IrreducibilityError, ObjectError
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.targets.base import Target, check_objects, checked_log_prob


class State(NamedTuple):
    """What the next step needs.

    Attributes:
        position: Objects, one a chain.
        log_prob: Their log-density, nats; never evaluated again.
    """

    position: Shaped[Tensor, "chains *event"]
    log_prob: Float64[Tensor, " chains"]


class Reason(IntEnum):
    """Why a chain is where it is after a step."""

    ACCEPTED = 0
    REJECTED = 1
    LAZY = 2
    NO_REVERSE_MOVE = 3


class Info(NamedTuple):
    """What happened in a step, a value a chain.

    Attributes:
        proposal: The proposed objects, also where they were rejected; the current ones in a lazy step.
        is_accepted: Whether the chain moved to the proposal.
        log_ratio: Logarithm of the Metropolis-Hastings ratio, nats; 0 in a lazy step.
        acceptance_rate: min(1, ratio); 0 in a lazy step.
        num_back_steps: Actions undone.
        num_forward_steps: Actions taken to rebuild, the exit not counted.
        target_calls: Evaluations of the target.
        policy_calls: Evaluations of P_F or P_B, one a state.
        reason: A `Reason` as int8.
        parts: In a cycle, the report of each kernel by name; the fields above are then those of the first
            kernel, and the calls those of the whole cycle.
    """

    proposal: Shaped[Tensor, "chains *event"]
    is_accepted: Bool[Tensor, " chains"]
    log_ratio: Float64[Tensor, " chains"]
    acceptance_rate: Float64[Tensor, " chains"]
    num_back_steps: Int64[Tensor, " chains"]
    num_forward_steps: Int64[Tensor, " chains"]
    target_calls: Int64[Tensor, " chains"]
    policy_calls: Int64[Tensor, " chains"]
    reason: Shaped[Tensor, " chains"]
    parts: Mapping[str, "Info"] = {}


class Reach(IntEnum):
    """How much of the space a kernel is known to reach, given a target that is positive everywhere."""

    PARTIAL = 0
    """Not known to reach everything: some chains may never leave a part of the space."""
    CONNECTED = 1
    """Everything, in some number of steps."""
    EVERYWHERE = 2
    """Everything, in a single step from anywhere."""


class Kernel(ABC):
    """A Markov kernel that leaves a target invariant.

    Attributes:
        name: Short name for tables.
        target: What the chain samples.
        environment: How its objects are built.
        training_cost: What training its proposal cost.
        calls_per_step: Target calls of a step and chain, at most.
    """

    name: str
    target: Target
    environment: DiscreteEnvironment
    training_cost: Cost = Cost()
    calls_per_step: int = 1

    @abstractmethod
    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        """Move every chain once."""

    @abstractmethod
    def start(self, draws: Draws) -> Shaped[Tensor, "chains *event"]:
        """Return objects to start from where the user gives none, one for each row of `draws`."""

    @property
    @abstractmethod
    def reach(self) -> Reach:
        """How much of the space the kernel reaches."""

    @property
    @abstractmethod
    def may_stay(self) -> bool:
        """Whether every object has a positive probability of staying where it is."""

    def init(self, position: Shaped[Tensor, "chains *event"]) -> State:
        """Return the state of chains that stand at some objects.

        Raises:
            ObjectError: If the objects are not the target's, or one has density zero.
            EnergyError: If the target breaks its contract.
        """
        check_objects(self.target, position)
        log_prob = checked_log_prob(self.target, position)
        if (log_prob == -torch.inf).any():
            row = int((log_prob == -torch.inf).nonzero()[0, 0])
            raise ObjectError(
                f"chain {row} would start at {position[row].tolist()}, where {self.target.name} has density zero; "
                "give `init` objects that are possible"
            )
        return State(position, log_prob)

    def refresh(self, state: State) -> State:
        """Return the state after something outside changed the objects or the target."""
        return self.init(state.position)


def check_irreducible(kernel: Kernel) -> None:
    """Refuse a kernel that is not known to reach the whole space.

    Raises:
        IrreducibilityError: With what to add.
    """
    if kernel.reach is Reach.PARTIAL:
        raise IrreducibilityError(
            f"{kernel.name} cannot reach every object from every other, so its chains would never converge; compose "
            "it with a kernel that can, such as Cycle([this, RandomWalk(environment, target)]), or use a branch law "
            "that restarts from the source with positive probability and policies that are positive everywhere"
        )
