"""The suites that `gfnmc benchmark` knows: which targets, samplers, seeds and starts, and what a cell may spend."""

from dataclasses import dataclass

from gfnmc.core.errors import OptionError
from gfnmc.experiments.benchmark import Plan
from gfnmc.experiments.cell import DISPERSED, ONE_MODE
from gfnmc.experiments.problems import PROBLEMS
from gfnmc.experiments.samplers import DEFAULT, SAMPLERS


@dataclass(frozen=True)
class Suite:
    """A benchmark by name.

    Attributes:
        name: Its name on the command line.
        targets: Names of problems.
        samplers: Names of samplers.
        num_seeds: Seeds 0, 1, ... of training and chains.
        plan: What all cells share.
        starts: Where chains start.
    """

    name: str
    targets: tuple[str, ...]
    samplers: tuple[str, ...]
    num_seeds: int
    plan: Plan
    starts: tuple[str, ...] = (ONE_MODE, DISPERSED)


_QUICK_TARGETS = (
    "hypergrid-8x8x8x8-1e-5",
    "tfbind-klf1",
    "tfbind-wt1",
    "potts-6x6",
    "ising-8x8-0.6",
    "tfbind-six6-power3",
    "variables-diabetes",
    "dag-5",
)
_QUICK_SAMPLERS = (
    DEFAULT,
    "random walk",
    "Gibbs",
    "locally balanced",
    "Gibbs with gradients",
    "discrete Langevin",
    "tempered random walk",
    "tempered Gibbs",
    "Swendsen-Wang",
)

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("multimodal", tuple(PROBLEMS), tuple(SAMPLERS), num_seeds=5, plan=Plan()),
        Suite("quick", _QUICK_TARGETS, _QUICK_SAMPLERS, num_seeds=2, plan=Plan(num_samples=500, seconds=4.0)),
    )
}


def find_suite(name: str) -> Suite:
    """Return a suite by its name.

    Raises:
        OptionError: If there is none.
    """
    if name not in SUITES:
        raise OptionError(f"there is no suite {name!r}; the suites are {', '.join(SUITES)}")
    return SUITES[name]


def budget_in_words(plan: Plan) -> str:
    """Return what every sampler may spend."""
    calls = f"as many target calls as the {DEFAULT} spent"
    if plan.budget is not None:
        calls = f"{plan.budget:,.0f} target calls"
    seconds = f"as many seconds as the {DEFAULT} spent"
    if plan.seconds is not None:
        seconds = f"{plan.seconds:,.3g} s of sampling"
    return f"{calls}, training included, and at most {seconds}"
