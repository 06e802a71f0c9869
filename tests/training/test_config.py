"""The options of training: plain data, checked when made."""

import dataclasses
import json
import math

import jaxtyping
import pytest

from gfnmc.core.errors import OptionError
from gfnmc.training import TrainingConfig


def test_a_config_is_plain_data_and_comes_back() -> None:
    config = TrainingConfig(num_steps=7, epsilon=0.25)
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert TrainingConfig.from_dict({}) == TrainingConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.num_steps = 8


def test_an_unknown_option_is_named_with_those_there_are() -> None:
    with pytest.raises(
        OptionError, match="unknown training option 'batchsize'; the options are anneal_until, batch_size"
    ):
        TrainingConfig.from_dict({"num_steps": 3, "batchsize": 4})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_steps", 0),
        ("batch_size", 0),
        ("replay_batch_size", -1),
        ("buffer_size", 0),
        ("replay_power", -0.5),
        ("replay_power", math.nan),
        ("lr_warmup_steps", -1),
        ("hidden_size", 0),
        ("num_layers", -1),
        ("checkpoint_every", 0),
        ("lr_decay_from", 1.5),
        ("anneal_until", -0.1),
        ("anneal_until", math.nan),
        ("epsilon", 1.0),
        ("epsilon", -0.1),
        ("learning_rate", 0.0),
        ("log_z_learning_rate", -1.0),
        ("max_grad_norm", 0.0),
        ("log_reward_range", math.nan),
        ("num_steps", "100"),
        ("num_steps", 2.5),
        ("batch_size", None),
        ("hidden_size", True),
        ("learning_rate", "fast"),
        ("epsilon", [0.1]),
    ],
)
def test_values_that_cannot_work_are_refused(name: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    # Users have no type checker at run time: the errors they see are the package's own.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(OptionError, match=f"^{name} is "):
        TrainingConfig.from_dict({name: value})


def test_the_edges_are_allowed() -> None:
    TrainingConfig(num_steps=1, replay_batch_size=0, num_layers=0, lr_warmup_steps=0, replay_power=0.0)
    TrainingConfig(lr_decay_from=1.0, anneal_until=1.0, epsilon=0.0)
    TrainingConfig(lr_decay_from=0.0, anneal_until=0.0)
