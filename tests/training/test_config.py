"""The options of training: plain data, checked when made."""

import dataclasses
import json
import math

import jaxtyping
import pytest

from gfnmc.core.errors import OptionError
from gfnmc.training import TrainingConfig
from gfnmc.training import config as options

CHOICES = {
    "objective": options.Objective,
    "backward": options.Backward,
    "network": options.Network,
    "symmetry": options.SymmetryUse,
    "seeding": options.Seeding,
    "reward_schedule": options.RewardSchedule,
    "replay_priority": options.ReplayPriority,
}


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    # Users have no type checker at run time: the errors they see are the package's own.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def test_a_config_is_plain_data_and_comes_back() -> None:
    for config in (
        TrainingConfig(),
        TrainingConfig(num_steps=7, epsilon=0.25, stop_at_acceptance=math.inf),
        TrainingConfig(objective="flow_matching", backward="flow", network="transformer", symmetry="average"),
        TrainingConfig(objective="maximum_likelihood", backward="max_entropy", seeding="tempering"),
        TrainingConfig(
            reward_schedule="adaptive",
            adaptive_ess=0.7,
            replay_priority="novelty",
            novelty_power=0.0,
            chain_batch_size=3,
        ),
    ):
        again = TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config
        assert again.to_dict() == config.to_dict()
    assert TrainingConfig.from_dict({}) == TrainingConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.num_steps = 8


def test_every_option_is_documented_and_of_a_plain_type() -> None:
    fields = dataclasses.fields(TrainingConfig)
    for field in fields:
        assert f"\n        {field.name}: " in TrainingConfig.__doc__, field.name
        assert isinstance(getattr(TrainingConfig(), field.name), int | float | str | None)
    assert set(TrainingConfig().to_dict()) == {field.name for field in fields}


def test_a_number_of_steps_follows_from_the_states_to_meet() -> None:
    rows = {"batch_size": 50, "seed_batch_size": 30, "replay_batch_size": 15, "chain_batch_size": 5}
    config = TrainingConfig(num_steps=None, num_states=400_000, **rows)
    settled = config.with_num_steps(8.0)
    assert (settled.num_steps, settled.total_steps) == (500, 500)
    assert settled == dataclasses.replace(config, num_steps=500)
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    # Never a handful of steps, nor without end; paths may have no action at all.
    few, many = (dataclasses.replace(config, num_states=states).with_num_steps(0.0) for states in (1, 10**12))
    assert 100 <= few.total_steps <= 500 <= many.total_steps <= 10**5
    # Said outright, it stays.
    assert TrainingConfig(num_steps=7, **rows).with_num_steps(8.0).num_steps == 7


def test_an_unknown_option_is_named_with_those_there_are() -> None:
    message = "^unknown training option 'batchsize'; the options are adaptive_ess, anneal_until, backward, batch_size, "
    with pytest.raises(OptionError, match=message):
        TrainingConfig.from_dict({"num_steps": 3, "batchsize": 4})
    with pytest.raises(TypeError, match="batchsize"):
        TrainingConfig(batchsize=4)


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.usefixtures("unchecked")
def test_choices_are_named_in_the_error(name: str) -> None:
    choices = CHOICES[name].__args__
    assert len(choices) >= 3
    for bad in ("something else", "", None, 1, ["fixed"], choices[0].upper()):
        with pytest.raises(OptionError, match=f"^{name} is .*; choose one of {', '.join(choices)}$"):
            TrainingConfig.from_dict({name: bad})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_steps", 0),
        ("num_states", 0),
        ("num_states", None),
        ("batch_size", 0),
        ("seed_batch_size", -1),
        ("seed_chains", 3),
        ("seed_warmup", -1),
        ("seed_every", 0),
        ("seed_ess", 0.0),
        ("seed_ess", 1.0),
        ("seed_ess", math.nan),
        ("likelihood_until", -0.1),
        ("likelihood_until", 1.1),
        ("replay_batch_size", -1),
        ("buffer_size", 0),
        ("replay_power", -0.5),
        ("replay_power", math.nan),
        ("novelty_power", -1.0),
        ("chain_batch_size", -1),
        ("lr_warmup_steps", -1),
        ("hidden_size", 0),
        ("num_layers", -1),
        ("check_every", 0),
        ("check_size", 7),
        ("checkpoint_every", 0),
        ("lr_decay_from", 1.5),
        ("anneal_until", -0.1),
        ("anneal_until", math.nan),
        ("adaptive_ess", 0.0),
        ("adaptive_ess", 1.0),
        ("epsilon", 1.0),
        ("epsilon", -0.1),
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("subtrajectory_decay", 0.0),
        ("subtrajectory_decay", 1.01),
        ("stop_at_acceptance", 0.0),
        ("stop_at_acceptance", math.nan),
        ("learning_rate", 0.0),
        ("log_z_learning_rate", -1.0),
        ("max_grad_norm", 0.0),
        ("log_reward_range", math.nan),
        ("num_steps", "100"),
        ("num_steps", 2.5),
        ("seed_chains", 8.0),
        ("batch_size", None),
        ("hidden_size", True),
        ("learning_rate", "fast"),
        ("temperature", False),
        ("epsilon", [0.1]),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_values_that_cannot_work_are_refused(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"^{name} is "):
        TrainingConfig.from_dict({name: value})


def test_the_edges_are_allowed() -> None:
    TrainingConfig(num_steps=1, replay_batch_size=0, num_layers=0, lr_warmup_steps=0, replay_power=0.0)
    TrainingConfig(lr_decay_from=1.0, anneal_until=1.0, epsilon=0.0, likelihood_until=1.0, subtrajectory_decay=1.0)
    TrainingConfig(lr_decay_from=0.0, anneal_until=0.0, likelihood_until=0.0)
    TrainingConfig(seed_batch_size=0, seed_chains=4, seed_warmup=0, seed_every=1, check_size=8, novelty_power=0.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"objective": "flow_matching"}, "flow matching learns no P_B of its own"),
        ({"backward": "flow"}, "flow matching learns no P_B of its own"),
        ({"objective": "flow_matching", "backward": "learned"}, "does not go with backward 'learned'"),
        ({"objective": "maximum_likelihood", "seeding": "none"}, "it needs seeds"),
        ({"objective": "maximum_likelihood", "seed_batch_size": 0}, "it needs seeds"),
        ({"objective": "maximum_likelihood", "backward": "learned"}, "instead of 'learned'"),
        (
            {"objective": "maximum_likelihood", "backward": "trajectory_likelihood"},
            "instead of 'trajectory_likelihood'",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TrainingConfig.from_dict(given)


def test_options_that_agree_are_not() -> None:
    """The negative control of the combinations above."""
    for objective in options.Objective.__args__:
        if objective not in ("flow_matching", "maximum_likelihood"):
            for backward in ("uniform", "learned", "max_entropy", "trajectory_likelihood"):
                TrainingConfig(objective=objective, backward=backward)
    TrainingConfig(objective="flow_matching", backward="flow")
    for backward in ("uniform", "max_entropy"):
        TrainingConfig(objective="maximum_likelihood", backward=backward, seeding="auto")
