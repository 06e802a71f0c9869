"""Hold a user's own environment, target, policy or pair to its contract, with the input that breaks it.

Each function raises at the first contradiction and returns nothing. `check_environment` walks at random;
`gfnmc.environments.enumerate_states` checks every edge of a small environment.
"""

from gfnmc.environments.check import check_environment
from gfnmc.testing.environment_checks import check_changes, check_connected
from gfnmc.testing.policy_checks import check_pair, check_policy
from gfnmc.testing.target_checks import check_target

__all__ = ["check_changes", "check_connected", "check_environment", "check_pair", "check_policy", "check_target"]
