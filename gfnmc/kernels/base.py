"""What a kernel is: a step that leaves the target invariant, batched over chains and pure given its draws."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, IrreducibilityError, ObjectError, OptionError
from gfnmc.core.tempering import InverseTemperature
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.targets.base import Target, check_objects, check_usable, checked_estimate, checked_log_prob

KernelType = TypeVar("KernelType", bound="Kernel")


class State(NamedTuple):
    """What the next step needs.

    Attributes:
        position: Objects, one a chain.
        log_prob: Their log-density, nats, never tempered and never evaluated again; of a noisy target the estimate
            with which the object was accepted.
        cache: What else a kernel keeps from step to step, such as replicas; kernels that keep nothing hand it on.
    """

    position: Shaped[Tensor, "chains *event"]
    log_prob: Float64[Tensor, " chains"]
    cache: Any = None


CALLS = ("target_calls", "policy_calls", "delta_calls", "gradient_calls")
"""The fields of `Info` that count work."""


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
        log_ratio: Logarithm of the Metropolis-Hastings ratio, of the tempered law where the kernel is tempered, nats; 0
            in a lazy step.
        acceptance_rate: min(1, ratio); 0 in a lazy step.
        num_back_steps: Actions undone.
        num_forward_steps: Actions taken to rebuild, the exit not counted.
        target_calls: Log-densities asked of the target.
        policy_calls: Evaluations of P_F or P_B, one a state.
        reason: A `Reason` as int8.
        parts: In a cycle, the report of each kernel by name; the fields above are then those of the first
            kernel, and the calls those of the whole cycle.
        extras: Other numbers worth recording, by name.
        delta_calls: Those of `target_calls` that asked only how a single change changes the log-density; 0 for none.
        gradient_calls: Those of `target_calls` that asked for the gradient as well; 0 for none.
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
    extras: Mapping[str, Shaped[Tensor, " chains"]] = {}
    delta_calls: Int64[Tensor, " chains"] | int = 0
    gradient_calls: Int64[Tensor, " chains"] | int = 0

    def cost(self) -> Cost:
        """Return what the step cost all chains together, seconds not counted."""
        totals = {name: int(torch.as_tensor(getattr(self, name)).sum()) for name in CALLS}
        return Cost(**totals)


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
        inverse_temperature: The chain samples the target to this power.
        keeps_cache: Whether the kernel keeps something in `State.cache`.
    """

    name: str
    target: Target
    environment: DiscreteEnvironment
    training_cost: Cost = Cost()
    calls_per_step: int = 1
    inverse_temperature: InverseTemperature = 1.0
    keeps_cache: bool = False

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

    def adaptation(self) -> "Adaptation | None":
        """Return what tunes the kernel in a warm-up that begins now; None where there is nothing to tune."""
        return None

    def tempered(self: KernelType, inverse_temperature: InverseTemperature) -> KernelType:
        """Return the same kernel on the target to a power.

        States keep the log-density of the target itself. Impossible objects are allowed at inverse temperature 0, where
        the law is flat, and only there.

        Args:
            inverse_temperature: The power of the target, whatever power this kernel has: one number, or one a chain,
                `(chains,)` float64; from 0 up.

        Raises:
            CapabilityError: If the kernel cannot be tempered, or the target is noisy.
            OptionError: If an inverse temperature makes no sense.
        """
        raise CapabilityError(
            f"{self.name} cannot be tempered; implement `tempered`, or temper the kernels that it is made of"
        )

    def init(self, position: Shaped[Tensor, "chains *event"], draws: Draws | None = None) -> State:
        """Return the state of chains that stand at some objects.

        Args:
            position: Objects.
            draws: Decide the estimates of a noisy target; not needed for others.

        Raises:
            ObjectError: If the objects are not the target's, or one has density zero.
            EnergyError: If the target breaks its contract.
            CapabilityError: If the target is noisy and either not unbiased or there are no draws.
            OptionError: If there is not one inverse temperature a chain.
        """
        check_objects(self.target, position)
        check_usable(self.target)
        log_prob = self._first_log_prob(position, draws)
        check_possible(self, position, log_prob)
        return State(position, log_prob)

    def refresh(self, state: State) -> State:
        """Return the state after something outside changed the objects or the target.

        Raises:
            CapabilityError: If the target is noisy.
        """
        if self.target.is_noisy:
            raise CapabilityError(
                f"{self.target.name} is noisy, and with estimates drawn anew the chains would sample another law; "
                "start new chains with `init`"
            )
        return self.init(state.position)

    def cache_tensors(self, cache: Any) -> dict[str, Tensor]:
        """Return what `State.cache` holds, by name, to be written to a file.

        A kernel that keeps a cache says this and `cache_from`, or its runs cannot be stored.

        Raises:
            CapabilityError: If there is a cache and the kernel does not say how it is written.
        """
        if cache is None:
            return {}
        raise CapabilityError(
            f"{self.name} keeps a {type(cache).__name__} from step to step and does not say how that is written, so "
            "its runs cannot be stored; implement `cache_tensors` and `cache_from`"
        )

    def cache_from(self, tensors: Mapping[str, Tensor]) -> Any:
        """Return the cache whose `cache_tensors` these are.

        Raises:
            CapabilityError: If the kernel keeps none.
        """
        if not tensors:
            return None
        raise CapabilityError(f"{self.name} keeps no cache, and was given one with {', '.join(sorted(tensors))}")

    def _first_log_prob(self, position: Tensor, draws: Draws | None) -> Float64[Tensor, " chains"]:
        if not self.target.is_noisy:
            return checked_log_prob(self.target, position)
        if draws is None:
            raise CapabilityError(
                f"{self.target.name} is noisy, so chains start with a random estimate; give `init` draws as well"
            )
        # A role of its own: the draws may be those of the first step.
        return checked_estimate(self.target, position, draws.role("init").role("estimate"))


class Adaptation(ABC):
    """A warm-up in the course of which a kernel is tuned.

    Its steps are followed by those of the kernel that `frozen` returns, which looks back at nothing; only the latter
    give draws to keep.

    Attributes:
        kernel: What makes the next step.
    """

    kernel: Kernel

    @abstractmethod
    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        """Move every chain once by `kernel`, and learn from it; from counted cost, never from a clock."""

    @abstractmethod
    def frozen(self) -> Kernel:
        """Return the tuned kernel, which goes on from the same states and reaches what the first one reached."""


def check_possible(kernel: Kernel, position: Tensor, log_prob: Float64[Tensor, " chains"]) -> None:
    """Refuse starts that the kernel's law gives probability zero.

    Raises:
        ObjectError: If an object has density zero, at an inverse temperature above 0.
        OptionError: If there is not one inverse temperature a chain.
    """
    power = torch.as_tensor(kernel.inverse_temperature, device=log_prob.device)
    if power.dim() and len(power) != len(log_prob):
        raise OptionError(
            f"{len(power)} inverse temperatures for {len(log_prob)} chains; temper the kernel with one a chain"
        )
    is_impossible = (log_prob == -torch.inf) & (power > 0.0)
    if is_impossible.any():
        row = int(is_impossible.nonzero()[0, 0])
        raise ObjectError(
            f"chain {row} would start at {position[row].tolist()}, where {kernel.target.name} has density zero; "
            "give `init` objects that are possible"
        )


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
