"""The pair (P_F, P_B): what training makes and what a kernel proposes with."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, PolicyError
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.environments.check import check_environment
from gfnmc.policies.base import Cache, DiscretePolicy, check_condition
from gfnmc.policies.flow import StateFlow
from gfnmc.policies.log_partition import LogPartition
from gfnmc.policies.path import Path
from gfnmc.policies.rollout import score_backward, score_forward, walk_backward, walk_forward
from gfnmc.policies.uniform import UniformPolicy


@runtime_checkable
class ProposalPair(Protocol):
    """What a kernel needs of a pair. Branch laws are the kernel's business.

    Attributes:
        environment: The state graph the pair acts on.
        training_cost: What training the pair cost, to be charged to whoever samples with it.
        is_positive: Whether every allowed action has positive probability, forward and backward.
    """

    @property
    def environment(self) -> DiscreteEnvironment: ...

    @property
    def training_cost(self) -> Cost: ...

    @property
    def is_positive(self) -> bool: ...

    def sample_forward(self, states: Tensor, draws: Draws) -> Path:
        """Build objects from states; the path has `log_forward`."""
        ...

    def sample_backward(self, states: Tensor, num_steps: Int64[Tensor, " batch"] | None, draws: Draws) -> Path:
        """Take finished states apart by `num_steps` actions a row, or to the source; with `log_backward`."""
        ...

    def log_forward(self, path: Path) -> Float64[Tensor, " batch"]:
        """Return log P_F of the path, exit included, nats."""
        ...

    def log_backward(self, path: Path) -> Float64[Tensor, " batch"]:
        """Return log P_B of the path, nats."""
        ...


class GFlowNet:
    """A forward and a backward policy on one environment, and the learned log Z.

    A pair for a family of targets has policies that depend on a condition. It walks and scores once `given` has bound
    it to one; policies that depend on none, such as a uniform P_B, are left as they are.

    Args:
        forward: P_F.
        backward: P_B; uniform by default.
        log_z: Log-partition function, nats; learned with the policies where an objective wants it.
        log_flow: Logarithm of the flow through each state, where an objective learns it.
        condition_names: What the numbers of a condition are, where the policies depend on one.
        log_partition: How log Z depends on the condition; a new network by default.
        training_cost: What training cost so far.

    Attributes:
        log_z_weight: The learned log Z; of a conditional pair, the part of it that does not depend on the condition.
        condition: What the pair is bound to, `(conditions,)` or `(batch, conditions)`; None before `given`.
        training_report: What the last training run recorded, as plain data: target, seed, config, steps, history and
            the figures of every look; None for a pair that was not trained here.

    Raises:
        PolicyError: If the policies do not fit each other, their condition or the environment.
        EnvironmentContractError: If the environment contradicts itself.
        CapabilityError: If an action id does not say which parent it leads back to.
    """

    def __init__(
        self,
        forward: DiscretePolicy,
        backward: DiscretePolicy | None = None,
        *,
        log_z: float = 0.0,
        log_flow: StateFlow | None = None,
        condition_names: Sequence[str] = (),
        log_partition: LogPartition | None = None,
        training_cost: Cost | None = None,
    ) -> None:
        environment = forward.environment
        if environment.parents_share_actions:
            raise CapabilityError(
                f"in {type(environment).__name__} two parents reach a state by the same action, so a backward action "
                "does not say where it leads; give every edge into a state its own action id"
            )
        check_environment(environment)
        self.forward = forward
        self.backward = UniformPolicy(environment, Direction.BACKWARD) if backward is None else backward
        self.condition_names = tuple(condition_names)
        self.condition: Tensor | None = None
        self.log_flow = log_flow
        if log_partition is None and self.condition_names:
            log_partition = LogPartition(len(self.condition_names))
        self.log_partition = log_partition
        self._check_conditions()
        self._check_policies()
        self.log_z_weight = torch.nn.Parameter(torch.tensor(log_z, dtype=torch.float64))
        self.training_cost = training_cost or Cost()
        self.training_report: dict[str, Any] | None = None

    @property
    def environment(self) -> DiscreteEnvironment:
        """The environment that both policies act on."""
        return self.forward.environment

    @property
    def is_positive(self) -> bool:
        """Whether every allowed action has positive probability."""
        return self.forward.is_positive and self.backward.is_positive

    @property
    def log_z(self) -> Float64[Tensor, "*batch"]:
        """The learned log Z, nats: `log_z_weight`, or where the pair is bound to conditions, a number for each."""
        if self.condition is None or self.log_partition is None:
            return self.log_z_weight
        return self.log_z_weight + self.log_partition(self.condition)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the weights of policies, state flow and `log_partition`, but not `log_z_weight`."""
        for module in (self.forward, self.backward, self.log_flow, self.log_partition):
            if module is not None:
                yield from module.parameters()

    def given(self, condition: Float[Tensor, "*batch conditions"]) -> "GFlowNet":
        """Return the same pair, weights shared, under a condition; what was bound before is forgotten.

        Args:
            condition: `(conditions,)` for all rows, or `(batch, conditions)`, one a row: then every batch that the view
                meets has these rows, in this order.

        Raises:
            CapabilityError: If the pair depends on no condition.
            OptionError: If the condition does not have as many numbers as there are names.
        """
        check_condition(condition, len(self.condition_names), "pair")
        bound = copy.copy(self)
        bound.condition = condition
        bound.forward = _given(self.forward, condition)
        bound.backward = _given(self.backward, condition)
        if self.log_flow is not None and self.log_flow.num_conditions:
            bound.log_flow = self.log_flow.given(condition)
        return bound

    def sample_forward(self, states: Tensor, draws: Draws, cache: Cache = None) -> Path:
        """Build objects from states by P_F.

        Args:
            states: Where to start.
            draws: Random decisions.
            cache: What P_F knows at `states`, where it is known, as the `start_cache` of a path says.
        """
        return walk_forward(self.forward, self.environment, states, draws, cache)

    def sample_backward(self, states: Tensor, num_steps: Int64[Tensor, " batch"] | None, draws: Draws) -> Path:
        """Take finished states apart by P_B."""
        return walk_backward(self.backward, self.environment, states, num_steps, draws)

    def log_forward(self, path: Path) -> Float64[Tensor, " batch"]:
        """Return log P_F of the path, exit included, nats; differentiable."""
        return score_forward(self.forward, self.environment, path)

    def log_backward(self, path: Path) -> Float64[Tensor, " batch"]:
        """Return log P_B of the path, nats; differentiable."""
        return score_backward(self.backward, self.environment, path)

    def frozen(self) -> "GFlowNet":
        """Return a copy that no longer learns, as kernels want it; a bound pair stays bound."""
        pair = copy.copy(self)
        pair.forward = self.forward.frozen()
        pair.backward = self.backward.frozen()
        pair.log_flow = None if self.log_flow is None else self.log_flow.frozen()
        if self.log_partition is not None:
            pair.log_partition = copy.deepcopy(self.log_partition).requires_grad_(False)
        pair.log_z_weight = torch.nn.Parameter(self.log_z_weight.detach().clone(), requires_grad=False)
        return pair

    def _check_conditions(self) -> None:
        parts = {
            "the forward policy": self.forward,
            "the backward policy": self.backward,
            "the state flow": self.log_flow,
            "log_partition": self.log_partition,
        }
        found = {name: part.num_conditions for name, part in parts.items() if part is not None and part.num_conditions}
        for name, num_conditions in found.items():
            if num_conditions != len(self.condition_names):
                raise PolicyError(
                    f"{name} depends on a condition of {num_conditions} numbers, but condition_names are "
                    f"{self.condition_names}; name each number of the condition, once for the pair"
                )
        if self.condition_names and self.forward.num_conditions == 0:
            raise PolicyError(
                f"condition_names are {self.condition_names}, but the forward policy depends on no condition; build it "
                "with num_conditions, or name none"
            )

    def _check_policies(self) -> None:
        for policy, direction in ((self.forward, Direction.FORWARD), (self.backward, Direction.BACKWARD)):
            name = f"the {direction.value} policy"
            if policy.environment is not self.environment:
                raise PolicyError(f"{name} acts on another environment; build both policies on the same object")
            if policy.direction is not direction:
                raise PolicyError(f"{name} was made for direction {policy.direction.value}")
            if policy.num_actions != self.environment.num_actions:
                raise PolicyError(
                    f"{name} has {policy.num_actions} actions, but {type(self.environment).__name__} has "
                    f"{self.environment.num_actions}"
                )
            self._check_law(policy, name)

    def _check_law(self, policy: DiscretePolicy, name: str) -> None:
        source = self.environment.source(1)
        if policy.num_conditions:
            policy = policy.given(torch.zeros(policy.num_conditions, dtype=torch.float64))
        with torch.no_grad():
            width = policy.log_probs(policy.begin(source), source).shape[-1]
        if width != self.environment.num_actions:
            raise PolicyError(
                f"{name} gives {width} log-probabilities a state, but {type(self.environment).__name__} has "
                f"{self.environment.num_actions} actions"
            )


def _given(policy: DiscretePolicy, condition: Tensor) -> DiscretePolicy:
    return policy.given(condition) if policy.num_conditions else policy
