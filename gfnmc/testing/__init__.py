"""Kit for proving kernels, environments, targets and policies, ours and users'.

`assert_invariant`, `assert_reversible` and `assert_uniform_ranks` judge a kernel beside broken twins of it; the
`check_` functions hold other classes to their contracts; below both is the enumerator, which takes the place of random
numbers.
"""

from gfnmc.testing.by_ranks import assert_uniform_ranks
from gfnmc.testing.check import Finding, checked
from gfnmc.testing.conformance import (
    check_changes,
    check_connected,
    check_environment,
    check_pair,
    check_policy,
    check_target,
)
from gfnmc.testing.enumerator import (
    Enumeration,
    ScriptedDraws,
    TooManyDecisionsError,
    enumerate_decisions,
    move_matrix,
    transition_matrix,
)
from gfnmc.testing.invariance import Proof, assert_invariant, assert_reversible
from gfnmc.testing.twins import NoPowerError

__all__ = [
    "Enumeration",
    "Finding",
    "NoPowerError",
    "Proof",
    "ScriptedDraws",
    "TooManyDecisionsError",
    "assert_invariant",
    "assert_reversible",
    "assert_uniform_ranks",
    "check_changes",
    "check_connected",
    "check_environment",
    "check_pair",
    "check_policy",
    "check_target",
    "checked",
    "enumerate_decisions",
    "move_matrix",
    "transition_matrix",
]
