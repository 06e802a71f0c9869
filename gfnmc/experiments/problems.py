"""Named problems: a target, how its objects are built, and a branch law that suits them."""

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from gfnmc.core.errors import OptionError
from gfnmc.environments import DAGs, DiscreteEnvironment, HyperGrid, Lattice
from gfnmc.experiments.own_model import Model, is_reference, load_model
from gfnmc.kernels import Kernel, recommended
from gfnmc.kernels.branch import BranchLaw
from gfnmc.policies import GFlowNet
from gfnmc.targets import (
    BitSequences,
    ChangePoints,
    DAGPosterior,
    EdwardsAnderson,
    Ising,
    Potts,
    Target,
    TFBinding,
    VariableSelection,
)
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.training import TrainingConfig


@dataclass(frozen=True)
class Problem:
    """A problem that the command line knows by name.

    Attributes:
        name: What the user types.
        description: One line for a list.
        target: Makes the target.
        environment: Makes the environment of a target.
        training: How to train a pair for it; the package's defaults.
        branch: The branch law of the suffix-resampling kernel; None for the recommended one, which restarts in half of
            the moves.
    """

    name: str
    description: str
    target: Callable[[], Target]
    environment: Callable[[Target], DiscreteEnvironment]
    training: TrainingConfig = field(default_factory=TrainingConfig)
    branch: BranchLaw | None = None

    def hybrid(self, pair: GFlowNet, target: Target) -> Kernel:
        """Return the recommended kernel: suffix resampling between modes, a random walk within them."""
        return recommended(pair, target, self.branch)


# In a space of some thousand objects, or at a transition where hot and cold meet without a barrier, a pair can learn
# from its own objects while the reward grows. That covers what lies between the modes too, which seeds hardly ever
# show, and costs a tenth of their calls.
_ANNEALED = TrainingConfig(
    num_steps=1_500,
    seeding="none",
    batch_size=192,
    replay_batch_size=192,
    reward_schedule="annealed",
    learning_rate=3e-3,
    lr_warmup_steps=100,
    lr_decay_from=0.5,
    num_layers=1,
    stop_at_acceptance=2.0,
)
_TF_BINDING = replace(_ANNEALED, num_steps=3_000, anneal_until=0.6)


def _in_reading_order(target: Target) -> DiscreteEnvironment:
    return Lattice.for_target(target, order="fixed")


def _tf_binding(factor: str, beta: float, *, power: float = 0.0) -> Problem:
    name = TFBinding(factor, beta, power=power).name
    law = f"exp({beta:g} f)" if power == 0.0 else f"f^{power:g}"
    return Problem(
        name=name,
        description=f"DNA 8-mers bound by the transcription factor {factor}, measured; {law}, 65,536 objects",
        target=lambda: TFBinding(factor, beta, power=power),
        environment=_in_reading_order,
        training=_TF_BINDING,
    )


def _hypergrid(num_dims: int, side: int, r0: float) -> Problem:
    shape = "x".join([str(side)] * num_dims)
    floor = {1e-1: "0.1", 1e-3: "1e-3", 1e-5: "1e-5"}[r0]
    return Problem(
        name=f"hypergrid-{shape}" if r0 == 1e-3 else f"hypergrid-{shape}-{floor}",
        description=f"hypergrid of {num_dims} dimensions and side {side}, R0 = {floor}: {2**num_dims} corner modes, "
        f"{side**num_dims:,} objects",
        target=lambda: HyperGridTarget(num_dims, side, r0=r0),
        environment=HyperGrid.for_target,
        training=_ANNEALED,
    )


def _ising(side: int, coupling: float, *, training: TrainingConfig | None = None) -> Problem:
    shape = f"{side}x{side}"
    return Problem(
        name=f"ising-{shape}" if (side, coupling) in _PLAIN_ISING else f"ising-{shape}-{coupling:g}",
        description=f"periodic {shape} Ising model, coupling {coupling:g}"
        f"{' (critical)' if coupling == 0.4407 else ''}: two magnetisations, "
        f"{'65,536 objects' if side == 4 else 'exact log Z'}",
        target=lambda: Ising((side, side), coupling=coupling),
        environment=_in_reading_order,
        training=training or TrainingConfig(),
    )


_PLAIN_ISING = ((4, 0.7), (8, 0.4407), (10, 0.4407))


def _potts(side: int, num_states: int, coupling: float) -> Problem:
    colours = {3: "three", 4: "four"}[num_states]
    return Problem(
        name=f"potts-{side}x{side}" if num_states == 3 else f"potts{num_states}-{side}x{side}",
        description=f"periodic {side}x{side} Potts model at the critical coupling {coupling:.4f}: {colours} colours, "
        "exact log Z",
        target=lambda: Potts((side, side), num_states=num_states, coupling=coupling),
        environment=_in_reading_order,
        training=_ANNEALED,
    )


def _bits(num_bits: int, **options: Any) -> Problem:
    num_modes = options.get("num_modes", 60)
    return Problem(
        name=f"bits-{num_bits}",
        description=f"strings of {num_bits} bits, {num_modes} hidden ones to be near to, made of motifs"
        f"{', 65,536 objects' if num_bits == 16 else ''}",
        target=lambda: BitSequences(num_bits, **options),
        environment=_in_reading_order,
        training=_ANNEALED if num_bits <= 20 else TrainingConfig(),
    )


PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        *(_tf_binding(factor, 40.0) for factor in ("KLF1", "WT1", "SNAI2", "SIX6")),
        _hypergrid(4, 8, 1e-3),
        _ising(4, 0.7, training=_ANNEALED),
        _ising(8, 0.4407),
        _potts(6, 3, 1.0050),
        Problem(
            name="edwards-anderson-8x8",
            description="periodic 8x8 spin glass, bonds of 1 and -1 drawn by seed 0: many valleys, exact log Z",
            target=lambda: EdwardsAnderson((8, 8), beta=1.0, seed=0),
            environment=_in_reading_order,
        ),
        *(_hypergrid(4, 8, r0) for r0 in (1e-1, 1e-5)),
        *(_hypergrid(4, 16, r0) for r0 in (1e-1, 1e-3, 1e-5)),
        *(_hypergrid(2, 64, r0) for r0 in (1e-1, 1e-3, 1e-5)),
        *(_ising(8, coupling) for coupling in (0.3, 0.6)),
        _ising(10, 0.4407),
        _potts(5, 4, 1.0986),
        *(_tf_binding(factor, 20.0) for factor in ("KLF1", "WT1", "SNAI2", "SIX6")),
        _tf_binding("SIX6", 0.0, power=3.0),
        _bits(16, num_modes=4, motifs=("0000", "1111", "1100", "0011", "0110")),
        _bits(120),
        Problem(
            name="variables-diabetes",
            description="which of 20 covariates explain the course of diabetes, 442 patients; 1,048,576 models",
            target=VariableSelection.diabetes,
            environment=_in_reading_order,
        ),
        Problem(
            name="variables-collinear",
            description="which of 16 covariates in blocks of near twins explain made-up data; 65,536 models",
            target=VariableSelection.collinear,
            environment=_in_reading_order,
        ),
        Problem(
            name="change-points-nile",
            description="when the flow of the Nile changed, 1871-1970: 99 places, exact by dynamic programming",
            target=ChangePoints.nile,
            environment=_in_reading_order,
        ),
        *(
            Problem(
                name=f"dag-{num_nodes}",
                description=f"which acyclic graph of {num_nodes} nodes made 100 rows of data; "
                f"{'29,281 graphs' if num_nodes == 5 else 'exact edge probabilities'}",
                target=functools.partial(DAGPosterior.simulated, num_nodes),
                environment=DAGs.for_target,
            )
            for num_nodes in (5, 8)
        ),
    )
}


def find_problem(name: str) -> Problem:
    """Return a problem by its name, or by where the user's own model is: `module:function` or `file.py:function`.

    Raises:
        OptionError: If there is none, with the nearest name, or the user's function does not return a model.
    """
    if is_reference(name):
        return _own_problem(load_model(name))
    if name in PROBLEMS:
        return PROBLEMS[name]
    near = difflib.get_close_matches(name, PROBLEMS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise OptionError(f"there is no target {name!r}; {hint}the targets are {', '.join(PROBLEMS)}")


def _own_problem(model: Model) -> Problem:
    return Problem(
        name=model.name,
        description=f"{model.target.name}, a model of your own",
        target=lambda: model.target,
        environment=lambda _: model.environment,
    )
