"""How objects are built. Environments know no energies."""

from gfnmc.environments.base import Direction, DiscreteEnvironment, Environment, TokenChange
from gfnmc.environments.check import check_environment
from gfnmc.environments.dags import DAGs
from gfnmc.environments.enumeration import CompletePaths, StateGraph, enumerate_paths, enumerate_states
from gfnmc.environments.graph import GraphBuilding
from gfnmc.environments.hypergrid import HyperGrid
from gfnmc.environments.lattice import Lattice
from gfnmc.environments.sequences import Sequences
from gfnmc.environments.subsets import Subsets

__all__ = [
    "CompletePaths",
    "DAGs",
    "Direction",
    "DiscreteEnvironment",
    "Environment",
    "GraphBuilding",
    "HyperGrid",
    "Lattice",
    "Sequences",
    "StateGraph",
    "Subsets",
    "TokenChange",
    "check_environment",
    "enumerate_paths",
    "enumerate_states",
]
