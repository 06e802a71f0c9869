"""Policies, the pair, and walks: the only place where the log-probability of an action is gathered."""

from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.mlp import MLPPolicy
from gfnmc.policies.pair import GFlowNet, ProposalPair
from gfnmc.policies.path import Path
from gfnmc.policies.rollout import score_backward, score_forward, walk_backward, walk_forward
from gfnmc.policies.tabular import TabularPolicy, solve_forward
from gfnmc.policies.uniform import UniformPolicy

__all__ = [
    "DiscretePolicy",
    "GFlowNet",
    "MLPPolicy",
    "Path",
    "ProposalPair",
    "TabularPolicy",
    "UniformPolicy",
    "score_backward",
    "score_forward",
    "solve_forward",
    "walk_backward",
    "walk_forward",
]
