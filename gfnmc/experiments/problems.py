"""Named problems: a target, how its objects are built, and a branch law that suits them."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from gfnmc.core.errors import OptionError
from gfnmc.environments import DiscreteEnvironment, HyperGrid, Lattice
from gfnmc.kernels import Cycle, RandomWalk, SuffixResampling
from gfnmc.kernels.branch import BranchLaw, PrefixUniform, Table
from gfnmc.policies import GFlowNet
from gfnmc.targets import EdwardsAnderson, Ising, Potts, Target, TFBinding
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
        branch: The branch law of the suffix-resampling kernel.
    """

    name: str
    description: str
    target: Callable[[], Target]
    environment: Callable[[Target], DiscreteEnvironment]
    training: TrainingConfig = field(default_factory=TrainingConfig)
    branch: BranchLaw | None = None

    def hybrid(self, pair: GFlowNet, target: Target) -> Cycle:
        """Return the recommended kernel: suffix resampling between modes, a random walk within them."""
        return Cycle([SuffixResampling(pair, target, self.branch), RandomWalk(pair.environment, target)])


# In a space of some thousand objects a pair can learn them all from its own objects while the reward grows. That covers
# what lies between the modes too, which seeds hardly ever show, and costs a tenth of their calls.
_SMALL_SPACE = TrainingConfig(
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
_TF_BINDING = replace(_SMALL_SPACE, num_steps=3_000, anneal_until=0.6)


def _in_reading_order(target: Target) -> DiscreteEnvironment:
    return Lattice.for_target(target, order="fixed")


def _half_restarts(num_sites: int) -> BranchLaw:
    """Return the law that restarts in half of the moves, which cross between modes, and else mends a part."""
    return Table({**dict.fromkeys(range(1, num_sites), 1.0), num_sites: num_sites - 1.0})


def _tf_binding(factor: str) -> Problem:
    return Problem(
        name=f"tfbind-{factor.lower()}",
        description=f"DNA 8-mers bound by the transcription factor {factor}, measured; exp(40 f), 65,536 objects",
        target=lambda: TFBinding(factor, beta=40.0),
        environment=_in_reading_order,
        training=_TF_BINDING,
        branch=_half_restarts(8),
    )


PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        *(_tf_binding(factor) for factor in ("KLF1", "WT1", "SNAI2", "SIX6")),
        Problem(
            name="hypergrid-8x8x8x8",
            description="hypergrid of 4 dimensions and side 8, R0 = 1e-3: 16 corner modes, 4,096 objects",
            target=lambda: HyperGridTarget(4, 8, r0=1e-3),
            environment=HyperGrid.for_target,
            training=_SMALL_SPACE,
            branch=PrefixUniform(high=14),
        ),
        Problem(
            name="ising-4x4",
            description="periodic 4x4 Ising model, coupling 0.7: two magnetisations, 65,536 objects",
            target=lambda: Ising((4, 4), coupling=0.7),
            environment=_in_reading_order,
            training=_SMALL_SPACE,
            branch=_half_restarts(16),
        ),
        Problem(
            name="ising-8x8",
            description="periodic 8x8 Ising model at the critical coupling 0.4407: two magnetisations, exact log Z",
            target=lambda: Ising((8, 8), coupling=0.4407),
            environment=_in_reading_order,
            branch=_half_restarts(64),
        ),
        Problem(
            name="potts-6x6",
            description="periodic 6x6 Potts model at the critical coupling 1.0050: three colours, exact log Z",
            target=lambda: Potts((6, 6), num_states=3, coupling=1.0050),
            environment=_in_reading_order,
            branch=_half_restarts(36),
        ),
        Problem(
            name="edwards-anderson-8x8",
            description="periodic 8x8 spin glass, bonds of 1 and -1 drawn by seed 0: many valleys, exact log Z",
            target=lambda: EdwardsAnderson((8, 8), beta=1.0, seed=0),
            environment=_in_reading_order,
            branch=_half_restarts(64),
        ),
    )
}


def find_problem(name: str) -> Problem:
    """Return a problem by its name.

    Raises:
        OptionError: If there is none, with the nearest name.
    """
    if name in PROBLEMS:
        return PROBLEMS[name]
    near = difflib.get_close_matches(name, PROBLEMS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise OptionError(f"there is no target {name!r}; {hint}the targets are {', '.join(PROBLEMS)}")
