"""Compare samplers at equal budgets, and the named problems of the command line."""

from gfnmc.experiments.compare import Comparison, compare
from gfnmc.experiments.problems import PROBLEMS, Problem, find_problem

__all__ = ["PROBLEMS", "Comparison", "Problem", "compare", "find_problem"]
