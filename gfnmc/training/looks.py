"""Looks at a pair in training, by objects that it did not make where there are any."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import OptionError
from gfnmc.diagnostics.quality import PairQuality, check_given, describe_modes, draw_weights, judged, weights_of
from gfnmc.policies.pair import GFlowNet
from gfnmc.targets.base import Target, checked_log_prob
from gfnmc.targets.conditional import ConditionalTarget
from gfnmc.training.config import TrainingConfig
from gfnmc.training.seeds import Seeds


class Look(NamedTuple):
    """What a look saw.

    Attributes:
        quality: The figures.
        log_reward: log R of the pair's own objects, nats.
        log_path_ratio: log P_B - log P_F of their paths, nats.
        target_calls: What it cost.
    """

    quality: PairQuality
    log_reward: Float64[Tensor, " n"]
    log_path_ratio: Float64[Tensor, " n"]
    target_calls: int


@dataclass(eq=False)
class Judge:
    """Looks at a pair now and then.

    Attributes:
        pair: The pair in training.
        target: A target, or a family, which is judged under the mean of the conditions it is trained on.
        config: Options.
        seed: Names the run.
        objects: The user's objects, spread as the target; None without.

    Raises:
        OptionError: If there are no objects in `objects`, or they are given for a family.
        ObjectError: If they are not the target's.
        CapabilityError: If they are given for a noisy target.
    """

    pair: GFlowNet
    target: Target | ConditionalTarget
    config: TrainingConfig
    seed: int
    objects: Shaped[Tensor, "n *event"] | None
    _log_prob: Float64[Tensor, " n"] | None = None

    def __post_init__(self) -> None:
        if self.objects is None:
            return
        if not isinstance(self.target, Target):
            raise OptionError(
                f"{self.target.name} is a family of targets, and objects are spread as one of them; leave `objects` out"
            )
        check_given(self.target, self.objects)

    @torch.no_grad()
    def look(self, step: int, seeds: Seeds | None) -> Look:
        """Judge the pair as it is after some steps, by the user's objects, else by held-out seeds, else by its own."""
        draws = PhiloxDraws(self.seed, "look", self.config.check_size).at(step)
        pair, target = self._member(draws)
        pair = pair.frozen()
        own = draw_weights(pair, target, draws)
        calls = draws.num_rows
        given, objects_from, modes = None, "", ""
        if isinstance(self.target, Target) and (self.objects is not None or seeds is not None):
            if self.objects is None:
                assert seeds is not None
                objects, log_prob = seeds.held(self.config.check_size)
                objects_from = "the held-out tempered objects"
            else:
                if self._log_prob is None:
                    calls += len(self.objects)
                    self._log_prob = checked_log_prob(self.target, self.objects)
                objects, log_prob, objects_from = self.objects, self._log_prob, "the given objects"
            rows = PhiloxDraws(self.seed, "look/given", len(objects)).at(step)
            given = weights_of(pair, target, objects, rows, log_reward=log_prob)
            modes = describe_modes(target, own.objects, objects)
        quality = judged(own.log_weights, given, objects_from, modes=modes)
        return Look(quality, own.log_reward, own.log_path_ratio, calls)

    def _member(self, draws: PhiloxDraws) -> tuple[GFlowNet, Target]:
        """Return the pair and target to look at."""
        if not isinstance(self.target, ConditionalTarget):
            return self.pair, self.target
        condition = self.target.sample_conditions(draws.role("condition")).mean(0)
        return self.pair.given(condition), self.target.given(condition)
