"""Families of targets: one pair learns them all, log Z included, and serves every rung of a tempered kernel."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import OptionError
from gfnmc.environments import DiscreteEnvironment, HyperGrid, Lattice
from gfnmc.kernels import ParallelTempering, SuffixResampling
from gfnmc.targets import ConditionalTarget, Ising, TemperedFamily, conditional_from_function
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.training import TrainingResult, load_pair, save_pair
from gfnmc.training.config import TrainingConfig
from tests.support import chi_square, is_identical
from tests.training.cases import LEARNS, distance, log_z_error, run, tiny, unchecked

SPINS = Ising((3,), 0.6, field=0.3)
LATTICE = Lattice.for_target(SPINS)
TEMPERED = TemperedFamily(SPINS, 0.1)
COUPLED = conditional_from_function(
    lambda x, c: c[:, 0] * x.sum(1) + c[:, 1] * x[:, 0] * x[:, 1] * x[:, 2],
    (3,),
    condition_names=("field", "coupling"),
    low=(-1.0, -1.0),
    high=(1.0, 1.0),
    values=(-1, 1),
    dtype=torch.int8,
    name="coupled",
)
CONDITIONS = {"tempered": ([0.2], [0.6], [1.0]), "of a function": ([0.0, 0.8], [0.7, -0.5], [-0.6, 0.0])}
FAMILIES: dict[str, ConditionalTarget] = {"tempered": TEMPERED, "of a function": COUPLED}


def learned(family: ConditionalTarget, environment: DiscreteEnvironment = LATTICE, **options: Any) -> TrainingResult:
    mine = {"num_steps": 300, "check_every": 300, "learning_rate": 1e-2, "log_z_learning_rate": 0.05, "hidden_size": 32}
    return run(environment, family, TrainingConfig(**(LEARNS | mine | options)))


@cache
def tempered_pair() -> TrainingResult:
    return learned(TEMPERED, seeding="tempering", seed_batch_size=32, seed_chains=32, replay_batch_size=16)


def at(result: TrainingResult, family: ConditionalTarget, condition: list[float]) -> tuple[float, float]:
    """Total variation and error of log Z under a condition."""
    bound = torch.tensor(condition, dtype=torch.float64)
    pair, target = result.pair.given(bound), family.given(bound)
    return distance(pair, target), log_z_error(pair, target)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_pair_for_a_whole_family(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch)
    family = FAMILIES[name]
    result = learned(family, num_steps=300 if name == "tempered" else 600)
    for condition in CONDITIONS[name]:
        away, log_z = at(result, family, condition)
        assert away < 5e-2
        assert abs(log_z) < 0.2
    # Negative control: what fits one condition does not fit the next, nor does its log Z.
    places = (0, 2) if name == "tempered" else (0, 1)
    first, last = (torch.tensor(CONDITIONS[name][place], dtype=torch.float64) for place in places)
    assert distance(result.pair.given(first), family.given(last)) > 0.15
    assert abs(log_z_error(result.pair.given(first), family.given(last))) > 0.25
    assert result.quality.label == "conditional on the modes visited"
    assert result.pair.condition is None and result.pair.condition_names == family.condition_names


def test_seeds_of_every_temperature_teach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch)
    result = tempered_pair()
    for condition in CONDITIONS["tempered"]:
        away, log_z = at(result, TEMPERED, condition)
        assert away < 5e-2 and abs(log_z) < 0.2


def test_flows_know_the_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch)
    result = learned(TEMPERED, objective="forward_looking_subtrajectory_balance")
    for condition in CONDITIONS["tempered"]:
        away, log_z = at(result, TEMPERED, condition)
        assert away < 5e-2 and abs(log_z) < 0.2


@pytest.mark.parametrize("objective", ["flow_matching", "modified_detailed_balance", "maximum_likelihood"])
def test_objectives_that_do_not_learn_log_z_have_it_fitted(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch)
    options: dict[str, Any] = {"objective": objective}
    environment, family = LATTICE, TEMPERED
    if objective == "flow_matching":
        options["backward"] = "flow"
    if objective == "modified_detailed_balance":
        environment = HyperGrid(2, 3)
        family = TemperedFamily(HyperGridTarget(2, 3), 0.1)
    if objective == "maximum_likelihood":
        # Rungs close to each other: seeds are at the ladder's inverse temperatures alone.
        options |= {"seeding": "tempering", "seed_batch_size": 64, "seed_chains": 64, "seed_ess": 0.97}
    result = learned(family, environment, **options)
    for condition in CONDITIONS["tempered"]:
        away, log_z = at(result, family, condition)
        assert away < 0.1
        assert abs(log_z) < 0.2
    # Negative control: log Z does depend on the condition.
    first, last = (torch.tensor([beta], dtype=torch.float64) for beta in (0.2, 1.0))
    assert abs(log_z_error(result.pair.given(first), family.given(last))) > 0.4


def test_what_makes_no_sense_for_a_family_is_refused() -> None:
    for options, message in (
        ({"objective": "log_partition_variance"}, "takes one log Z for a whole batch"),
        ({"reward_schedule": "annealed"}, "choose reward_schedule='auto' or 'fixed'"),
        ({"reward_schedule": "adaptive"}, "choose reward_schedule='auto' or 'fixed'"),
        ({"chain_batch_size": 3}, "chain_batch_size=0"),
        ({"symmetry": "average"}, "the target declares no symmetries"),
    ):
        for family in FAMILIES.values():
            with pytest.raises(OptionError, match=message):
                run(LATTICE, family, tiny(**options))
    # Negative control: the same without those options.
    for family in FAMILIES.values():
        run(LATTICE, family, tiny(num_steps=2, reward_schedule="auto"))


def test_a_family_is_looked_at_under_the_mean_of_its_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch)
    result = tempered_pair()
    middle = TEMPERED.given(torch.tensor([0.55], dtype=torch.float64))
    log_z = float(middle.log_prob(middle.exact().support).logsumexp(0))
    # The mean of 1,024 uniform conditions is within 0.04 of the middle, and log Z changes by about two nats a unit.
    assert result.quality.log_z == pytest.approx(log_z, abs=0.15)
    assert result.quality.acceptance > 0.9


def test_a_trained_family_is_saved_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch)
    result = tempered_pair()
    save_pair(result.pair, tmp_path / "pair")
    loaded = load_pair(tmp_path / "pair", LATTICE)
    condition = torch.tensor([[0.3], [0.9]], dtype=torch.float64)
    assert is_identical(loaded.given(condition).log_z, result.pair.given(condition).log_z)
    path = result.pair.given(condition).sample_forward(LATTICE.source(2), PhiloxDraws(0, "x", 2))
    assert is_identical(loaded.given(condition).log_forward(path), result.pair.given(condition).log_forward(path))


LADDER = (1.0, 0.7, 0.4, 0.1)


def step_many(kernel: ParallelTempering, num_steps: int) -> tuple[Tensor, Tensor]:
    """Replicas of many chains after some steps, and the mean local acceptance of the last one at each rung together."""
    draws = PhiloxDraws(1, "chains", 4_000)
    state = kernel.init(kernel.start(draws.role("start")))
    for step in range(num_steps):
        state, info = kernel.step(draws.at(step), state)
    return kernel.replicas(state).position, info.extras["local_acceptance"].mean()


def test_one_pair_serves_every_rung_of_parallel_tempering(monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch)
    pair = tempered_pair().pair
    position, acceptance = step_many(ParallelTempering(SuffixResampling(pair, SPINS), LADDER), 12)
    for place, rung in enumerate(LADDER):
        law = TEMPERED.given(torch.tensor([rung], dtype=torch.float64)).exact()
        statistic, limit = chi_square(torch.bincount(law.index(position[:, place]), minlength=8), law.log_pmf.exp())
        assert statistic < limit
    # Negative control: bound to one temperature it is right all the same, but fits only that one rung.
    bound = pair.given(torch.tensor([1.0], dtype=torch.float64))
    bound.condition_names = ()
    _, at_one = step_many(ParallelTempering(SuffixResampling(bound, SPINS), LADDER), 3)
    assert acceptance > 0.85
    assert at_one < acceptance - 0.05


def test_own_objects_of_the_family_fit_no_other_rung(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the chains' law: hot objects in the place of cold ones are found out."""
    unchecked(monkeypatch)
    hot = tempered_pair().pair.given(torch.tensor([LADDER[-1]], dtype=torch.float64))
    path = hot.sample_forward(LATTICE.source(4_000), PhiloxDraws(0, "x", 4_000))
    law = SPINS.exact()
    counts = torch.bincount(law.index(LATTICE.objects(path.end)), minlength=8)
    statistic, limit = chi_square(counts, law.log_pmf.exp())
    assert statistic > limit
