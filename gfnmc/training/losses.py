"""From a batch of paths to the loss of each: which scores an objective reads, and which parts of the pair learn by it.

The losses themselves are in `gfnmc.objectives`, one a file.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from gfnmc.objectives import (
    detailed_balance,
    flow_matching,
    forward_looking_detailed_balance,
    forward_looking_subtrajectory_balance,
    log_partition_variance,
    maximum_likelihood,
    modified_detailed_balance,
    path_count,
    subtrajectory_balance,
    trajectory_balance,
    trajectory_likelihood,
)
from gfnmc.policies.flow_backward import FlowBackwardPolicy
from gfnmc.policies.max_entropy import MaxEntropyPolicy
from gfnmc.policies.pair import GFlowNet
from gfnmc.policies.path import Path
from gfnmc.policies.rollout import backward_scores, evaluate_along, exit_scores, forward_scores, num_transitions
from gfnmc.policies.transitions import Transitions, score_transitions
from gfnmc.targets.base import Target, checked_log_prob
from gfnmc.targets.conditional import ConditionalTarget
from gfnmc.training.config import TrainingConfig


@dataclass(frozen=True, eq=False)
class Batch:
    """Paths to learn from.

    Attributes:
        path: Complete paths.
        log_reward: What is to be learned of their objects, nats: scheduled, and never -inf.
        is_own: Which of them P_F drew.
        power: The scheduled power of the reward.
        floor: The least that is learned of any object, nats, before the power.
    """

    path: Path
    log_reward: Float64[Tensor, " batch"]
    is_own: Bool[Tensor, " batch"]
    power: float
    floor: float


@dataclass(eq=False)
class Losses:
    """The losses of a config for one pair; conditional ones are bound to the rows of the batch.

    Attributes:
        config: Names the objective and how P_B learns.
        pair: The pair, bound.
        target: The target, or the family.
        target_calls: Evaluations of the target that the losses themselves have made.
    """

    config: TrainingConfig
    pair: GFlowNet
    target: Target | ConditionalTarget
    target_calls: int = 0

    def of(self, batch: Batch, objective: str) -> Float64[Tensor, " batch"]:
        """Return the loss of each path by an objective, with what P_B learns beside it."""
        losses = _OBJECTIVES[objective](self, batch)
        if self.config.backward == "trajectory_likelihood" and batch.is_own.any():
            retraced = trajectory_likelihood(self.pair.log_backward(batch.path))
            losses = losses + torch.where(batch.is_own, retraced, 0.0)
        backward = self.pair.backward
        if isinstance(backward, MaxEntropyPolicy) and backward.log_count is not None:
            counted = path_count(
                backward.log_num_paths_along(batch.path), backward.log_total_along(batch.path), batch.path.lengths
            )
            losses = losses + counted
        if fits_log_z(self.config, self.pair):
            losses = losses + self._log_z_error(batch)
        return losses

    def trajectory_balance(self, batch: Batch) -> Tensor:
        log_forward, log_backward = self.pair.log_forward(batch.path), self._log_backward(batch.path)
        return trajectory_balance(self.pair.log_z, log_forward, log_backward, batch.log_reward)

    def log_partition_variance(self, batch: Batch) -> Tensor:
        log_forward, log_backward = self.pair.log_forward(batch.path), self._log_backward(batch.path)
        return log_partition_variance(log_forward, log_backward, batch.log_reward)

    def detailed_balance(self, batch: Batch) -> Tensor:
        return detailed_balance(self._transitions(batch))

    def subtrajectory_balance(self, batch: Batch) -> Tensor:
        return subtrajectory_balance(self._transitions(batch), decay=self.config.subtrajectory_decay)

    def forward_looking_detailed_balance(self, batch: Batch) -> Tensor:
        partial = self._partial_log_reward(batch)
        return forward_looking_detailed_balance(self._transitions(batch, partial), partial)

    def forward_looking_subtrajectory_balance(self, batch: Batch) -> Tensor:
        partial = self._partial_log_reward(batch)
        transitions = self._transitions(batch, partial)
        return forward_looking_subtrajectory_balance(transitions, partial, decay=self.config.subtrajectory_decay)

    def modified_detailed_balance(self, batch: Batch) -> Tensor:
        pair, environment, path = self.pair, self.pair.environment, batch.path
        return modified_detailed_balance(
            forward_scores(pair.forward, environment, path),
            self._learned(backward_scores(pair.backward, environment, path)),
            exit_scores(pair.forward, environment, path),
            evaluate_along(environment, path, lambda states, rows: self._state_log_reward(batch, states, rows)),
            num_transitions(environment, path),
        )

    def flow_matching(self, batch: Batch) -> Tensor:
        assert self.pair.log_flow is not None
        backward = FlowBackwardPolicy(self.pair.forward, self.pair.log_flow)
        return flow_matching(
            backward.log_inflow_along(batch.path),
            self.pair.log_flow.log_flow_along(batch.path),
            batch.log_reward,
            num_transitions(self.pair.environment, batch.path),
        )

    def maximum_likelihood(self, batch: Batch) -> Tensor:
        return maximum_likelihood(self.pair.log_forward(batch.path))

    def _transitions(self, batch: Batch, partial: Float64[Tensor, "batch transitions"] | None = None) -> Transitions:
        pair = self.pair
        assert pair.log_flow is not None
        # What is learned at the source is log Z itself; of a forward-looking flow, what remains of it.
        log_z = pair.log_z if partial is None else pair.log_z - partial[:, 0]
        transitions = score_transitions(
            pair.forward, pair.backward, pair.log_flow, batch.path, batch.log_reward, log_z=log_z
        )
        return transitions._replace(log_backward=self._learned(transitions.log_backward))

    def _partial_log_reward(self, batch: Batch) -> Float64[Tensor, "batch transitions"]:
        environment = self.pair.environment
        # Energies of unfinished objects begin at 0, which may be far below those of good objects.
        floor = min(batch.floor, -self.config.log_reward_range)

        def partial(states: Tensor, rows: Tensor) -> Tensor:
            target = self._target(rows)
            return target.partial_log_prob(*environment.assigned(states)).clamp(min=floor)

        return batch.power * evaluate_along(environment, batch.path, partial)

    def _target(self, rows: Int64[Tensor, " states"]) -> Target:
        """Return the target for states that are on some rows of the batch."""
        if not isinstance(self.target, ConditionalTarget):
            return self.target
        assert self.pair.condition is not None
        return self.target.given(self.pair.condition[rows])

    def _state_log_reward(self, batch: Batch, states: Tensor, rows: Tensor) -> Float64[Tensor, " states"]:
        self.target_calls += len(states)
        log_prob = checked_log_prob(self._target(rows), self.pair.environment.objects(states))
        return batch.power * log_prob.clamp(min=batch.floor)

    def _log_z_error(self, batch: Batch) -> Float64[Tensor, " batch"]:
        """Return how far log Z of each condition is from the path's log-weight; its slope never outweighs P_F's."""
        with torch.no_grad():
            log_weights = batch.log_reward + self.pair.log_backward(batch.path) - self.pair.log_forward(batch.path)
        return torch.nn.functional.smooth_l1_loss(self.pair.log_z, log_weights, reduction="none")

    def _log_backward(self, path: Path) -> Float64[Tensor, " batch"]:
        return self._learned(self.pair.log_backward(path))

    def _learned(self, log_backward: Tensor) -> Tensor:
        """Return scores of P_B through which it learns, or not where it learns by another loss."""
        return log_backward.detach() if self.config.backward == "trajectory_likelihood" else log_backward


_OBJECTIVES: dict[str, Callable[[Losses, Batch], Tensor]] = {
    "trajectory_balance": Losses.trajectory_balance,
    "log_partition_variance": Losses.log_partition_variance,
    "detailed_balance": Losses.detailed_balance,
    "modified_detailed_balance": Losses.modified_detailed_balance,
    "subtrajectory_balance": Losses.subtrajectory_balance,
    "forward_looking_detailed_balance": Losses.forward_looking_detailed_balance,
    "forward_looking_subtrajectory_balance": Losses.forward_looking_subtrajectory_balance,
    "flow_matching": Losses.flow_matching,
    "maximum_likelihood": Losses.maximum_likelihood,
}

LEARNS_FLOW = frozenset(
    {
        "detailed_balance",
        "subtrajectory_balance",
        "forward_looking_detailed_balance",
        "forward_looking_subtrajectory_balance",
        "flow_matching",
    }
)
"""Objectives that need a state flow."""

LEARNS_LOG_Z = frozenset({"trajectory_balance"}) | LEARNS_FLOW - {"flow_matching"}
"""Objectives that learn log Z; for the others it is estimated from the pair's own draws."""


def fits_log_z(config: TrainingConfig, pair: GFlowNet) -> bool:
    """Say whether log Z is fitted beside an objective that does not learn it: for families, whose looks tell of one."""
    return bool(pair.condition_names) and config.objective not in LEARNS_LOG_Z
