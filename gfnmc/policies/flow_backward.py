"""The backward policy that a forward policy and a state flow imply.

    P_B(s | s') = F(s) P_F(s' | s) / sum over the parents s'' of s' of F(s'') P_F(s' | s'')

Flow matching learns F and P_F alone; this is the P_B that goes with them. With it, detailed balance says that what
flows into a state flows through it, which is flow matching.

Reference: Bengio et al. 2023, "GFlowNet foundations" (2111.09266).
"""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from gfnmc.core.errors import PolicyError
from gfnmc.environments.base import Direction
from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.flow import StateFlow
from gfnmc.policies.parents import ParentPolicy
from gfnmc.policies.path import Path


class FlowBackwardPolicy(ParentPolicy):
    """P_B in proportion to what flows along each edge into a state; it has no weights of its own.

    Args:
        forward: P_F.
        flow: The state flow.

    Raises:
        PolicyError: If the policy walks backward, or the two are not on one environment.
    """

    def __init__(self, forward: DiscretePolicy, flow: StateFlow) -> None:
        super().__init__(forward.environment, num_conditions=max(forward.num_conditions, flow.num_conditions))
        if forward.direction is not Direction.FORWARD:
            raise PolicyError("an induced backward policy follows from a forward policy; this one walks backward")
        if flow.environment is not forward.environment:
            raise PolicyError("the flow is on another environment; build policy and flow on the same object")
        # In a tuple torch does not see them: their weights are counted where they belong.
        self._made_of = (forward, flow)

    def log_weights(
        self, parents: Tensor, actions: Int64[Tensor, " edges"], rows: Int64[Tensor, " edges"]
    ) -> Float64[Tensor, " edges"]:
        forward, flow = self._made_of
        forward, flow = forward.for_rows(rows), flow.for_rows(rows)
        return flow.log_flow(parents) + forward.score(forward.begin(parents), parents, actions)

    def log_inflow_along(self, path: Path) -> Float64[Tensor, "batch transitions"]:
        """Return the log of all that flows into the state each transition of each path enters, nats.

        The exit enters the finished object, whose one parent is the state that it leaves. 0 in the padding.
        """
        inflow = self.log_total_along(path)
        exit_action = self.environment.exit_action
        if exit_action is None:
            return inflow
        forward, flow = self._made_of
        leave = torch.full_like(path.lengths, exit_action)
        leaves = flow.log_flow(path.end) + forward.score(forward.begin(path.end), path.end, leave)
        is_exit = torch.arange(path.states.shape[1], device=path.lengths.device) == path.lengths[:, None]
        return torch.where(is_exit, leaves[:, None], torch.nn.functional.pad(inflow, (0, 1)))

    def given(self, condition: Float[Tensor, "*batch conditions"]) -> "FlowBackwardPolicy":
        bound = super().given(condition)
        forward, flow = self._made_of
        bound._made_of = (
            forward.given(condition) if forward.num_conditions else forward,
            flow.given(condition) if flow.num_conditions else flow,
        )
        return bound

    def frozen(self) -> "FlowBackwardPolicy":
        forward, flow = self._made_of
        frozen = FlowBackwardPolicy(forward.frozen(), flow.frozen())
        frozen.condition = self.condition
        return frozen.with_exploration(temperature=self.temperature, epsilon=self.epsilon).eval()

    @property
    def is_positive(self) -> bool:
        return self._made_of[0].is_positive or self.epsilon > 0.0
