"""Policies, the pair, and walks: the only place where the log-probability of an action is gathered."""

from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.flow import MLPFlow, StateFlow, TabularFlow
from gfnmc.policies.flow_backward import FlowBackwardPolicy
from gfnmc.policies.log_partition import LogPartition
from gfnmc.policies.max_entropy import MaxEntropyPolicy
from gfnmc.policies.message_passing import MessagePassingPolicy
from gfnmc.policies.mlp import MLPPolicy
from gfnmc.policies.pair import GFlowNet, ProposalPair
from gfnmc.policies.path import Path
from gfnmc.policies.rollout import score_backward, score_forward, walk_backward, walk_forward
from gfnmc.policies.symmetrised import AveragedPolicy, CanonicalPolicy, SymmetrisedPolicy
from gfnmc.policies.tabular import TabularPolicy, solve_forward
from gfnmc.policies.transformer import TransformerPolicy
from gfnmc.policies.transitions import Transitions, score_transitions
from gfnmc.policies.uniform import UniformPolicy

__all__ = [
    "AveragedPolicy",
    "CanonicalPolicy",
    "DiscretePolicy",
    "FlowBackwardPolicy",
    "GFlowNet",
    "LogPartition",
    "MLPFlow",
    "MLPPolicy",
    "MaxEntropyPolicy",
    "MessagePassingPolicy",
    "Path",
    "ProposalPair",
    "StateFlow",
    "SymmetrisedPolicy",
    "TabularFlow",
    "TabularPolicy",
    "TransformerPolicy",
    "Transitions",
    "UniformPolicy",
    "score_backward",
    "score_forward",
    "score_transitions",
    "solve_forward",
    "walk_backward",
    "walk_forward",
]
