"""Compare samplers at equal budgets, benchmark suites, and the named problems of the command line."""

from gfnmc.experiments.benchmark import Plan, run_benchmark
from gfnmc.experiments.compare import Comparison, compare
from gfnmc.experiments.leaderboard import leaderboard
from gfnmc.experiments.own_model import Model, load_model
from gfnmc.experiments.problems import PROBLEMS, Problem, find_problem
from gfnmc.experiments.runs import kernel_of_run, load_run
from gfnmc.experiments.samplers import SAMPLERS, Sampler, find_sampler
from gfnmc.experiments.stored import compare_runs
from gfnmc.experiments.suites import SUITES, Suite, find_suite

__all__ = [
    "PROBLEMS",
    "SAMPLERS",
    "SUITES",
    "Comparison",
    "Model",
    "Plan",
    "Problem",
    "Sampler",
    "Suite",
    "compare",
    "compare_runs",
    "find_problem",
    "find_sampler",
    "find_suite",
    "kernel_of_run",
    "leaderboard",
    "load_model",
    "load_run",
    "run_benchmark",
]
