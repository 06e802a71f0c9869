"""Nothing that gfnmc does changes the process around it: no generator, default, thread count, mode or filter."""

import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

import gfnmc
from gfnmc import diagnostics, report, testing
from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.numerics import masked_log_softmax
from gfnmc.environments import Direction, HyperGrid, Lattice, check_environment, enumerate_states
from gfnmc.kernels import (
    ChromaticMetropolis,
    Cycle,
    Gibbs,
    IndependenceMH,
    Kernel,
    Mixture,
    ParallelTempering,
    RandomWalk,
    SuffixResampling,
    branch,
    tempering_ladder,
)
from gfnmc.policies import GFlowNet, MLPPolicy
from gfnmc.sampling import Chains
from gfnmc.targets import Target
from tests.support import CountingTarget, is_identical, network_pair, random_pair, solved_pair

GRID, GRID_TARGET = HyperGrid(2, 4), gfnmc.targets.HyperGrid(2, 4)
OPTIONS = {
    "num_steps": 4,
    "batch_size": 8,
    "seeding": "none",
    "seed_batch_size": 6,
    "seed_chains": 8,
    "seed_warmup": 2,
    "replay_batch_size": 4,
    "hidden_size": 8,
    "lr_warmup_steps": 2,
    "check_every": 3,
    "check_size": 16,
    "checkpoint_every": 2,
}
CONFIG = gfnmc.TrainingConfig(**OPTIONS)
SPINS = gfnmc.targets.Ising((2, 2), 0.5)
UNEVEN = gfnmc.targets.Ising((2, 2), 0.5, field=0.1)
LATTICE = Lattice.for_target(SPINS)


def config(**options: object) -> gfnmc.TrainingConfig:
    return gfnmc.TrainingConfig(**(OPTIONS | options))


def snapshot() -> dict[str, object]:
    """Everything global that numerical code is tempted to touch."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return {
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "numpy generator": {key: str(value) for key, value in numpy_state.items()}
        | {"key": numpy_state["state"]["key"].tobytes()},
        "python generator": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "determinism": (torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()),
        "numpy errors": np.geterr(),
        "numpy printing": str(np.get_printoptions()),
        "warning filters": list(warnings.filters),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
    }


def kernels(target: Target = GRID_TARGET) -> dict[str, Kernel]:
    pair = network_pair(GRID)
    suffix, walk = SuffixResampling(pair, target), RandomWalk(GRID, target)
    return {
        "suffix": suffix,
        "prefix": SuffixResampling(pair, target, branch.PrefixUniform()),
        "independence": IndependenceMH(pair, target),
        "walk": walk,
        "cycle": Cycle([suffix, walk]),
        "mixture": Mixture([suffix, walk]),
        "gibbs": Gibbs(GRID, target),
        "gibbs sweep": Gibbs(GRID, target, "systematic"),
        "gibbs by bonds": Gibbs(LATTICE, SPINS, "chromatic"),
        "metropolis by bonds": ChromaticMetropolis(LATTICE, SPINS),
        "metropolis by changes": ChromaticMetropolis(LATTICE, UNEVEN),
        "tempered": walk.tempered(0.5),
        "parallel tempering": ParallelTempering(Cycle([suffix, Gibbs(GRID, target)]), (1.0, 0.5, 0.0)),
    }


def chains(**options: object) -> Chains:
    options = {"num_chains": 4, "num_samples": 8, "num_warmup": 3, "progress_bar": False} | options
    return gfnmc.sample(kernels()["cycle"], **options)


def step_every_kernel(folder: Path) -> None:
    for kernel in kernels().values():
        draws = PhiloxDraws(0, "chain", 20)
        state = kernel.init(kernel.start(draws.role("start")))
        kernel.step(draws, state)


def fail_while_sampling(folder: Path) -> None:
    def interrupt(x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    target = CountingTarget(GRID_TARGET, trap_at=4, trap=interrupt)
    with pytest.raises(KeyboardInterrupt):
        gfnmc.sample(RandomWalk(GRID, target), num_chains=4, num_threads=3, progress_bar=False)


def fail_while_training(folder: Path) -> None:
    for seeding in ("none", "tempering"):
        target = CountingTarget(GRID_TARGET, trap_at=2, trap=lambda x, value: value * float("nan"))
        with pytest.raises(gfnmc.GfnmcError):
            gfnmc.train(GRID, target, config=config(seeding=seeding), num_threads=3, progress_bar=False)


def train_in_every_way(folder: Path) -> None:
    """Seeds, chains of the pair, every schedule, families, noise, flows, networks and symmetries."""
    family = gfnmc.targets.TemperedFamily(GRID_TARGET, 0.2)
    noisy = gfnmc.targets.NoisyCopy(GRID_TARGET, (0.5, 1.5), (0.5, 0.5))
    runs = (
        (GRID, GRID_TARGET, {"seeding": "tempering", "chain_batch_size": 3, "replay_priority": "novelty"}),
        (GRID, GRID_TARGET, {"seeding": "tempering", "objective": "maximum_likelihood", "num_steps": 2}),
        (GRID, GRID_TARGET, {"reward_schedule": "adaptive", "check_every": 1}),
        (GRID, GRID_TARGET, {"reward_schedule": "annealed", "temperature": 2.0}),
        (GRID, GRID_TARGET, {"objective": "flow_matching", "backward": "flow"}),
        (GRID, GRID_TARGET, {"objective": "forward_looking_subtrajectory_balance", "backward": "learned"}),
        (GRID, family, {"seeding": "tempering", "backward": "max_entropy"}),
        (GRID, noisy, {"chain_batch_size": 3}),
        (LATTICE, SPINS, {"network": "transformer", "symmetry": "canonicalise"}),
        (LATTICE, SPINS, {"network": "message_passing", "symmetry": "average"}),
    )
    for environment, target, options in runs:
        gfnmc.train(environment, target, config=config(**options), num_threads=2, progress_bar=False)


def climb_a_ladder(folder: Path) -> None:
    for kernel in (RandomWalk(GRID, GRID_TARGET), Gibbs(LATTICE, SPINS, "systematic")):
        tempering_ladder(kernel, num_chains=20)


def judge(folder: Path) -> None:
    objects = GRID_TARGET.exact().support
    for num_threads in (1, 3, None):
        diagnostics.pair_quality(network_pair(GRID), GRID_TARGET, objects, num_draws=30, num_threads=num_threads)


def train_and_resume(folder: Path) -> None:
    seeded = config(seeding="tempering", chain_batch_size=3)
    gfnmc.train(GRID, GRID_TARGET, config=seeded, checkpoint=folder / "run", num_threads=2)
    gfnmc.resume_training(folder / "run", GRID, GRID_TARGET)


def save_and_load(folder: Path) -> None:
    gfnmc.save_pair(network_pair(GRID), folder / "pair")
    gfnmc.load_pair(folder / "pair", GRID)


def ask_targets(folder: Path) -> None:
    for target, x in (
        (gfnmc.targets.Ising((2, 3), 0.4), torch.ones(5, 2, 3, dtype=torch.int8)),
        (gfnmc.targets.HyperGrid(2, 8), torch.ones(5, 2, dtype=torch.int64)),
        (gfnmc.targets.TFBinding("WT1", 20.0), torch.zeros(5, 8, dtype=torch.int8)),
        (gfnmc.targets.from_function(lambda x: x.sum(1).double(), (2,), values=(0, 1)), torch.ones(5, 2).long()),
        (gfnmc.targets.from_numpy_function(lambda x: x.sum(1), (2,), values=(0, 1)), torch.ones(5, 2).long()),
    ):
        target.log_prob(x)
        target.statistics(x)
        modes = target.modes()
        if modes is not None:
            modes.assign(modes.examples)
        solution = target.exact()
        if solution is not None and solution.support is not None:
            solution.sample(PhiloxDraws(0, "x", 5))


def diagnose(folder: Path) -> None:
    run = chains()
    for values in (*run.statistics.values(), np.zeros((4, 8)), np.arange(4.0)[:, None].repeat(8, 1)):
        diagnostics.convergence(values)
    solution = GRID_TARGET.exact()
    assert solution is not None
    index = solution.index(run.x.flatten(0, 1))
    diagnostics.total_variation(index, solution.log_pmf)
    diagnostics.iid_total_variation(solution.log_pmf, 32.0)
    diagnostics.acceptance_summary(run.samples)
    diagnostics.acceptance_by_back_steps(run.samples)
    for num_threads in (1, 3, None):
        gfnmc.diagnose(run, pair=network_pair(GRID), num_draws=30, num_threads=num_threads).to_dataset()


def list_states(folder: Path) -> None:
    for environment in (GRID, Lattice((3,), (-1, 1), dtype=torch.int8)):
        check_environment(environment)
        enumerate_states(environment)
        MLPPolicy(environment, Direction.BACKWARD, hidden_size=4).frozen()
    solved_pair(GRID, GRID_TARGET)
    masked_log_softmax(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool), epsilon=0.1)
    testing.transition_matrix(RandomWalk(GRID, GRID_TARGET), enumerate_states(GRID).objects)


def compare_and_report(folder: Path) -> None:
    parts = kernels()
    lineup = {"cycle": parts["cycle"], "walk": parts["walk"]}
    options = {"num_chains": 4, "num_samples": 8, "num_warmup": 3, "progress_bar": False}
    comparison = gfnmc.compare(lineup, GRID_TARGET, **options)
    comparison.save(folder / "report.html")
    comparison.save(folder / "report.json")
    report.comparison_table(comparison.document)
    report.verdict_lines(comparison.document)


def store_and_read(folder: Path) -> None:
    path = folder / str(len(list(folder.iterdir())))
    chains(store=path)
    gfnmc.resume(path, kernels()["cycle"], num_samples=10, progress_bar=False)
    assert gfnmc.load_run(path, GRID_TARGET).samples.stats


CALLS: dict[str, Callable[[Path], object]] = {
    "train": lambda folder: gfnmc.train(GRID, GRID_TARGET, config=CONFIG, progress_bar=False),
    "train in every way": train_in_every_way,
    "train and resume": train_and_resume,
    "climb a ladder": climb_a_ladder,
    "judge a pair": judge,
    "fail while training": fail_while_training,
    "sample": lambda folder: chains(),
    "sample on more threads": lambda folder: chains(num_threads=3),
    "sample on as many threads as there are": lambda folder: chains(num_threads=None),
    "sample with progress": lambda folder: chains(progress_bar=True),
    "fail while sampling": fail_while_sampling,
    "step every kernel": step_every_kernel,
    "hand over to ArviZ": lambda folder: chains().to_arviz(),
    "store and read": store_and_read,
    "save chains": lambda folder: chains().save(folder / "run.nc"),
    "evidence": lambda folder: diagnostics.importance_log_z(network_pair(GRID), GRID_TARGET, num_draws=50),
    "save and load": save_and_load,
    "ask targets": ask_targets,
    "diagnose": diagnose,
    "list states": list_states,
    "compare and report": compare_and_report,
}


@pytest.mark.parametrize("name", CALLS)
def test_nothing_global_changes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The run-time type checker of the tests draws from Python's generator which items of a list it looks at.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    start = snapshot()
    CALLS[name](tmp_path)
    before = snapshot()
    # Libraries that are loaded when first used may register filters and variables of their own.
    assert {key for key in start if start[key] != before[key]} <= {"warning filters", "environment"}
    CALLS[name](tmp_path)
    after = snapshot()
    assert {key for key in before if before[key] != after[key]} == set()


def test_the_snapshot_sees_what_changes() -> None:
    """The negative control: each of the things above, changed and put back."""
    before = snapshot()
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        torch.rand(1)
        np.random.rand()  # noqa: NPY002
        random.random()  # noqa: S311
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        with torch.no_grad(), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            after = snapshot()
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])
        torch.set_default_dtype(before["default dtype"])
        torch.set_num_threads(before["threads"][0])
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {
        "torch generator",
        "numpy generator",
        "python generator",
        "default dtype",
        "threads",
        "gradients",
        "numpy errors",
        "warning filters",
    }
    assert snapshot() == before


def test_nothing_depends_on_the_global_generators_or_the_default_dtype() -> None:
    def everything() -> list[torch.Tensor]:
        trained = gfnmc.train(GRID, GRID_TARGET, config=CONFIG, progress_bar=False)
        seeded = gfnmc.train(
            GRID, GRID_TARGET, config=config(seeding="tempering", chain_batch_size=3), progress_bar=False
        )
        run = chains(seed=4)
        table = random_pair(GRID)
        path = GFlowNet(table.forward).sample_forward(GRID.source(9), PhiloxDraws(0, "x", 9))
        evidence = diagnostics.importance_log_z(network_pair(GRID), GRID_TARGET, num_draws=50)
        quality = diagnostics.pair_quality(network_pair(GRID), GRID_TARGET, GRID_TARGET.exact().support, num_draws=50)
        found = [evidence.log_z, evidence.standard_error, quality.elbo, quality.eubo, quality.acceptance]
        numbers = [torch.tensor(found, dtype=torch.float64)]
        stats = [*run.samples.stats.values(), *run.warmup.stats.values()]
        pairs = [trained.pair, seeded.pair]
        weights = [weight for pair in pairs for weight in (*pair.parameters(), pair.log_z)]
        return [*weights, run.x, run.samples.log_prob, *stats, path.end, *numbers]

    torch_state, before = torch.get_rng_state(), everything()
    try:
        torch.manual_seed(12_345)
        torch.set_default_dtype(torch.float64)
        after = everything()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_rng_state(torch_state)
    assert len(before) == len(after)
    assert all(is_identical(a, b) for a, b in zip(before, after, strict=True))
