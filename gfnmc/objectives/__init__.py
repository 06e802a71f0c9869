"""Training objectives, one loss a file, each a pure function of paths' log-probabilities and flows."""

from gfnmc.objectives.detailed_balance import detailed_balance
from gfnmc.objectives.flow_matching import flow_matching
from gfnmc.objectives.forward_looking_detailed_balance import forward_looking_detailed_balance
from gfnmc.objectives.forward_looking_subtrajectory_balance import forward_looking_subtrajectory_balance
from gfnmc.objectives.log_partition_variance import log_partition_variance
from gfnmc.objectives.maximum_likelihood import maximum_likelihood
from gfnmc.objectives.modified_detailed_balance import modified_detailed_balance
from gfnmc.objectives.path_count import path_count
from gfnmc.objectives.subtrajectory_balance import subtrajectory_balance
from gfnmc.objectives.trajectory_balance import trajectory_balance
from gfnmc.objectives.trajectory_likelihood import trajectory_likelihood

__all__ = [
    "detailed_balance",
    "flow_matching",
    "forward_looking_detailed_balance",
    "forward_looking_subtrajectory_balance",
    "log_partition_variance",
    "maximum_likelihood",
    "modified_detailed_balance",
    "path_count",
    "subtrajectory_balance",
    "trajectory_balance",
    "trajectory_likelihood",
]
