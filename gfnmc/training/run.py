"""One training run: steps, looks, checkpoints.

A step draws paths (`sources`), scores them (`losses`) and takes an optimiser step. Now and then the pair is judged by
objects that it did not make (`looks`), which ends the run early where it is good enough.
"""

import logging
import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.errors import EnergyError, NonFiniteEnergyError, OptionError, PolicyError, TrainingError
from gfnmc.diagnostics.quality import PairQuality
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.policies.pair import GFlowNet
from gfnmc.sampling.progress import progress
from gfnmc.targets.base import Target, check_usable
from gfnmc.targets.conditional import ConditionalTarget
from gfnmc.training.build import build_pair, check_config, check_pair
from gfnmc.training.checkpoints import Checkpoint, write_checkpoint
from gfnmc.training.config import TrainingConfig
from gfnmc.training.looks import Judge
from gfnmc.training.losses import LEARNS_LOG_Z, Batch, Losses, fits_log_z
from gfnmc.training.replay import ReplayBuffer
from gfnmc.training.schedule import annealed_power, learning_rate_factor, raised_power
from gfnmc.training.seeds import seeds_for
from gfnmc.training.sources import Drawn, Sources
from gfnmc.training.summary import training_summary

logger = logging.getLogger("gfnmc")

_LOGGED_EVERY = 100


@dataclass(frozen=True)
class TrainingResult:
    """What training made.

    Attributes:
        pair: The trained pair, frozen; where `target` was a family, conditional and not yet bound.
        history: By name, a value for every hundredth step: `step`, `loss` (nats squared, or nats while likelihood is
            the objective), `log_z` (nats), `reward_power` (1 is the full reward).
        quality: The figures of the pair after the last step.
        qualities: Those of each look during training: plain data, with `step`.
        cost: What it cost, seeds and looks included; the pair carries it too.
    """

    pair: GFlowNet
    history: dict[str, list[int | float]]
    quality: PairQuality
    qualities: list[dict[str, Any]]
    cost: Cost

    def __repr__(self) -> str:
        return training_summary(self).text()

    def _repr_html_(self) -> str:
        """Show the run in a notebook."""
        return training_summary(self).html()


@dataclass(eq=False)
class RunProgress:
    """Where a run is: all of a checkpoint that is not a tensor."""

    step: int = 0
    power: float = 1.0
    best_log_prob: float = -math.inf
    good_looks: int = 0
    is_stopped: bool = False
    has_log_z: bool = False
    history: dict[str, list[int | float]] = field(
        default_factory=lambda: {"step": [], "loss": [], "log_z": [], "reward_power": []}
    )
    qualities: list[dict[str, Any]] = field(default_factory=list)


class Run:
    """One training run: pair, optimiser, sources and progress, all that a checkpoint holds."""

    def __init__(
        self,
        environment: DiscreteEnvironment,
        target: Target | ConditionalTarget,
        config: TrainingConfig,
        pair: GFlowNet | None,
        objects: Tensor | None,
        seed: int,
    ) -> None:
        names = target.condition_names if isinstance(target, ConditionalTarget) else ()
        if isinstance(target, Target):
            check_usable(target)
        if pair is None:
            symmetries = target.symmetries() if isinstance(target, Target) else ()
            pair = build_pair(environment, config, seed=seed, condition_names=names, symmetries=symmetries)
        check_pair(pair, environment, config, names)
        self.pair, self.environment, self.target = pair, environment, target
        self.config, self.seed = config, seed
        self.judge = Judge(pair, target, config, seed, objects)
        self.weights = list(pair.parameters())
        groups = [
            {"params": self.weights, "lr": config.learning_rate, "peak": config.learning_rate},
            {"params": [pair.log_z_weight], "lr": config.log_z_learning_rate, "peak": config.log_z_learning_rate},
        ]
        self.optimizer = torch.optim.Adam([group for group in groups if group["params"]])
        buffer = ReplayBuffer(
            config.buffer_size,
            tuple(target.event_shape),
            target.dtype,
            num_conditions=len(names),
            measures_novelty=config.replay_priority == "novelty",
        )
        self.sources = Sources(pair, target, config, seed, buffer, seeds_for(environment, target, config, seed))
        check_config(config, target, self.sources.seeds is not None)
        self.cost = pair.training_cost
        # An annealed reward is set at every step, an adaptive one starts flat.
        self.at = RunProgress(power=0.0 if config.reward_schedule == "adaptive" else 1.0)

    def begin(self) -> None:
        """Climb the ladder of the seeds and settle the number of steps, once, before the first of them."""
        begun = time.perf_counter()
        if self.sources.seeds is not None:
            try:
                self.sources.seeds.begin()
            except NonFiniteEnergyError:
                raise
            except EnergyError as error:
                # No possible object among the first population: local moves are no use here.
                if self.config.seeding == "tempering":
                    raise
                logger.warning("training goes on without seeds: %s", error)
                self._charge_seeds()
                self.sources.seeds = None
                check_config(self.config, self.target, has_seeds=False)
            else:
                self.sources.remember_seeds()
        if self.config.num_steps is None:
            self.config = self.config.with_num_steps(self.sources.mean_length())
        self._charge_seeds()
        self.cost += Cost(seconds=time.perf_counter() - begun)

    def finish(self, checkpoint: FilePath | None, progress_bar: bool) -> TrainingResult:
        """Take all steps that are left."""
        config, at = self.config, self.at
        quality: PairQuality | None = None
        with progress("training", config.total_steps, progress_bar=progress_bar, done=at.step) as shown:
            while not self._is_done():
                begun = time.perf_counter()
                loss = self._train_step(checkpoint)
                if at.step % _LOGGED_EVERY == 0 or at.step == config.total_steps - 1:
                    self._remember(loss)
                at.step += 1
                if at.step % config.check_every == 0 or at.step == config.total_steps:
                    quality = self._look()
                self.cost += Cost(seconds=time.perf_counter() - begun)
                if checkpoint is not None and (at.step % config.checkpoint_every == 0 or self._is_done()):
                    write_checkpoint(checkpoint, self.snapshot())
                shown.update(at.step, partial(self._shown, loss, quality))
        if quality is None:
            quality = PairQuality.from_dict({key: value for key, value in at.qualities[-1].items() if key != "step"})
        if quality.warning is not None:
            logger.warning("%s", quality.warning)
        self.pair.training_cost = self.cost
        self.pair.training_report = self._report(quality)
        return TrainingResult(self.pair.frozen(), at.history, quality, at.qualities, self.cost)

    def _report(self, quality: PairQuality) -> dict[str, Any]:
        """Return what the run recorded, as plain data that goes with the pair."""
        return {
            "target": self.target.name,
            "seed": self.seed,
            "config": self.config.to_dict(),
            "num_steps": self.at.step,
            "is_stopped_early": self.at.step < self.config.total_steps,
            "quality": quality.to_dict(),
            "qualities": self.at.qualities,
            "history": self.at.history,
        }

    def snapshot(self) -> Checkpoint:
        seeds, chains = self.sources.seeds, self.sources.chains
        return Checkpoint(
            target_name=self.target.name,
            config=self.config.to_dict(),
            seed=self.seed,
            cost=self.cost,
            progress=dict(vars(self.at)),
            num_added=self.sources.buffer.num_added,
            seeds=None if seeds is None else seeds.counters(),
            tensors=self._tensors()
            | ({} if seeds is None else {f"seeds.{name}": value for name, value in seeds.tensors().items()})
            | ({} if chains is None else {"chains.position": chains.position, "chains.log_prob": chains.log_prob}),
        )

    def restore(self, saved: Checkpoint) -> None:
        for place, parameter in enumerate([*self.weights, self.pair.log_z_weight]):
            # Adam knows nothing of a weight before its first gradient, such as log Z while likelihood is the objective.
            if f"optimizer.{place}.step" in saved.tensors:
                zeros = torch.zeros_like(parameter)
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": zeros,
                    "exp_avg_sq": zeros.clone(),
                }
        apart = ("seeds.", "chains.")
        tensors = self._tensors()
        theirs = {name: value for name, value in saved.tensors.items() if not name.startswith(apart)}
        wrong = [name for name in tensors.keys() | theirs.keys() if not _alike(name, tensors, theirs)]
        if wrong:
            raise OptionError(
                f"the checkpoint's {sorted(wrong)[0]} does not fit this pair; give the one it was made with"
            )
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(theirs[name])
        self.sources.restore(saved.seeds, saved.tensors, saved.num_added)
        self.at = RunProgress(**saved.progress)
        self.cost = saved.cost

    def _train_step(self, checkpoint: FilePath | None) -> float:
        """Take one optimiser step and return the mean loss."""
        config, at = self.config, self.at
        seeds = self.sources.seeds
        if seeds is not None and at.step % config.seed_every == 0:
            seeds.advance()
            self.sources.remember_seeds()
        self._charge_seeds()
        if self._is_annealed():
            at.power = annealed_power(config, at.step)
        objective = self._objective()
        drawn = self._draw(objective, checkpoint)
        losses = self._losses(drawn, objective)
        loss = losses.mean()
        if not bool(loss.isfinite()):
            self._fail("loss is", losses, drawn, checkpoint)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate_factor(config, at.step)
        self.optimizer.zero_grad()
        loss.backward()
        weights = [*self.weights, self.pair.log_z_weight]
        norm = torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
        if not bool(norm.isfinite()):
            self._fail("gradient is", losses, drawn, checkpoint)
        self.optimizer.step()
        if not all(bool(weight.isfinite().all()) for weight in weights):
            self._fail("new weights are", losses, drawn, checkpoint)
        # Each state of a path is met by the walk that made it and by the scores of P_F and P_B.
        self.cost += drawn.calls + Cost(policy_calls=3 * int(drawn.path.lengths.sum()))
        return float(loss.detach())

    def _draw(self, objective: str, checkpoint: FilePath | None) -> Drawn:
        try:
            if objective == "maximum_likelihood":
                return self.sources.draw_seeds(self.at.step)
            return self.sources.draw(self.at.step, self.at.power)
        except PolicyError as error:
            raise TrainingError(
                f"the pair can no longer draw in training step {self.at.step}: {error}; {_last_good(checkpoint)}; "
                "lower learning_rate or max_grad_norm"
            ) from error

    def _losses(self, drawn: Drawn, objective: str) -> Tensor:
        """Return the loss of each path, after whatever has to be known first: the best reward so far, a first log Z."""
        pair = self.pair if drawn.condition is None else self.pair.given(drawn.condition)
        self._see(drawn.log_prob)
        floor = self.at.best_log_prob - self.config.log_reward_range
        log_reward = self.at.power * drawn.log_prob.clamp(min=floor)
        batch = Batch(drawn.path, log_reward, drawn.is_own, self.at.power, floor)
        if (objective in LEARNS_LOG_Z or fits_log_z(self.config, pair)) and not self.at.has_log_z:
            with torch.no_grad():
                log_weights = log_reward + pair.log_backward(drawn.path) - pair.log_forward(drawn.path)
                self.pair.log_z_weight.copy_(log_weights.mean())
            self.at.has_log_z = True
        losses = Losses(self.config, pair, self.target)
        by_path = losses.of(batch, objective)
        self.cost += Cost(target_calls=losses.target_calls)
        return by_path

    def _objective(self) -> str:
        """Return what is minimised now: likelihood while the seeds are being learned, then the config's objective."""
        config = self.config
        if self.sources.seeds is None or config.seed_batch_size == 0:
            return config.objective
        learns_seeds = self.at.step < config.likelihood_until * config.total_steps
        return "maximum_likelihood" if learns_seeds else config.objective

    def _look(self) -> PairQuality:
        """Judge the pair as it is, raise an adaptive reward, and see whether it is good enough."""
        config, at = self.config, self.at
        seen = self.judge.look(at.step, self.sources.seeds)
        self.cost += Cost(target_calls=seen.target_calls)
        quality = seen.quality
        if config.reward_schedule == "adaptive":
            at.power = raised_power(seen.log_reward, seen.log_path_ratio, at.power, config.adaptive_ess)
        if config.objective not in LEARNS_LOG_Z and math.isfinite(quality.log_z) and not self.pair.condition_names:
            with torch.no_grad():
                self.pair.log_z_weight.fill_(quality.log_z)
        is_good = quality.acceptance >= config.stop_at_acceptance and at.power == 1.0
        at.good_looks = at.good_looks + 1 if is_good else 0
        at.is_stopped = at.good_looks >= 2 and self._objective() == config.objective
        at.qualities.append({"step": at.step} | quality.to_dict())
        return quality

    def _is_annealed(self) -> bool:
        """Say whether the reward is annealed: without seeds, "auto" does, lest the pair falls into one mode at once."""
        if self.config.reward_schedule != "auto":
            return self.config.reward_schedule == "annealed"
        return self.sources.seeds is None and isinstance(self.target, Target)

    def _see(self, log_prob: Tensor) -> None:
        self.at.best_log_prob = max(self.at.best_log_prob, float(log_prob.max()))
        if self.at.best_log_prob == -math.inf:
            raise TrainingError(
                f"in {self.at.step + 1} training steps P_F has made no object of positive density; forbid impossible "
                "objects by the environment's masks, or give a pair that can make possible ones"
            )

    def _charge_seeds(self) -> None:
        if self.sources.seeds is not None:
            self.cost += self.sources.seeds.take_cost()

    def _remember(self, loss: float) -> None:
        row = {
            "step": self.at.step,
            "loss": loss,
            "log_z": self.pair.log_z_weight.item(),
            "reward_power": self.at.power,
        }
        for name, value in row.items():
            self.at.history[name].append(value)

    def _is_done(self) -> bool:
        return self.at.is_stopped or self.at.step >= self.config.total_steps

    def _fail(self, what: str, losses: Tensor, drawn: Drawn, checkpoint: FilePath | None) -> None:
        # NaN and infinity rank highest: this is a path whose loss is not finite, or else the worst one.
        row = int(torch.where(losses.isfinite(), losses.detach(), torch.inf).argmax())
        actions = drawn.path.actions[row][drawn.path.is_action[row]].tolist()
        raise TrainingError(
            f"the {what} not finite in training step {self.at.step}; the worst path leads to the object "
            f"{self.environment.objects(drawn.path.end)[row].tolist()} by the actions {actions}, with log R "
            f"{float(drawn.log_prob[row])} and loss {float(losses[row].detach())}; {_last_good(checkpoint)}; lower "
            "learning_rate or max_grad_norm, and see that P_F and P_B allow every path"
        )

    def _shown(self, loss: float, quality: PairQuality | None) -> dict[str, float | str]:
        """Return what progress shows."""
        figures: dict[str, float | str] = {"loss": loss, "log_z": self.pair.log_z_weight.item()}
        if quality is None:
            return figures
        figures |= {"acceptance": quality.acceptance, "ess": quality.ess_fraction}
        if quality.elbo is not None:
            figures["elbo"] = quality.elbo
        if quality.eubo is not None:
            figures["eubo"] = quality.eubo
        if quality.warning is not None:
            figures["warning"] = "collapsed"
        return figures

    def _tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the run by name; writing to them restores it."""
        buffer = self.sources.buffer
        tensors = {
            f"buffer.{name}": getattr(buffer, name) for name in ("objects", "log_reward", "novelty", "conditions")
        }
        parameters = [*self.weights, self.pair.log_z_weight]
        for place, parameter in enumerate(parameters):
            tensors[f"parameter.{place}"] = parameter.data
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{place}.{name}"] = value
        return tensors


def _last_good(checkpoint: FilePath | None) -> str:
    if checkpoint is None:
        return "no checkpoint was asked for"
    return f"{checkpoint} holds the last good checkpoint" if checkpoint.exists() else "no checkpoint was written yet"


def _alike(name: str, here: dict[str, Tensor], there: dict[str, Tensor]) -> bool:
    return (
        name in here
        and name in there
        and here[name].shape == there[name].shape
        and here[name].dtype == there[name].dtype
    )
