"""The pair (P_F, P_B): what training makes and what a kernel proposes with."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, PolicyError
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.environments.check import check_environment
from gfnmc.policies.base import DiscretePolicy
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

    Args:
        forward: P_F.
        backward: P_B; uniform by default.
        log_z: Log-partition function, nats; learned with the policies where an objective wants it.
        training_cost: What training cost so far.

    Raises:
        PolicyError: If the policies do not fit each other or the environment.
        EnvironmentContractError: If the environment contradicts itself.
        CapabilityError: If an action id does not say which parent it leads back to.
    """

    def __init__(
        self,
        forward: DiscretePolicy,
        backward: DiscretePolicy | None = None,
        *,
        log_z: float = 0.0,
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
        self._check_policies()
        self.log_z = torch.nn.Parameter(torch.tensor(log_z, dtype=torch.float64))
        self.training_cost = training_cost or Cost()

    @property
    def environment(self) -> DiscreteEnvironment:
        """The environment that both policies act on."""
        return self.forward.environment

    @property
    def is_positive(self) -> bool:
        """Whether every allowed action has positive probability."""
        return self.forward.is_positive and self.backward.is_positive

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the weights of both policies, log Z not among them."""
        yield from self.forward.parameters()
        yield from self.backward.parameters()

    def sample_forward(self, states: Tensor, draws: Draws) -> Path:
        """Build objects from states by P_F."""
        return walk_forward(self.forward, self.environment, states, draws)

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
        """Return a copy that no longer learns, as kernels want it."""
        pair = GFlowNet(
            self.forward.frozen(),
            self.backward.frozen(),
            log_z=float(self.log_z.detach()),
            training_cost=self.training_cost,
        )
        pair.log_z.requires_grad_(False)
        return pair

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
        with torch.no_grad():
            width = policy.log_probs(policy.begin(source), source).shape[-1]
        if width != self.environment.num_actions:
            raise PolicyError(
                f"{name} gives {width} log-probabilities a state, but {type(self.environment).__name__} has "
                f"{self.environment.num_actions} actions"
            )
