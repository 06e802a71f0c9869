"""The training loop: trajectory balance on annealed rewards, with replay.

A step draws paths by P_F (a little explored), revisits remembered objects by new paths from P_B, and lowers the
trajectory balance of both. The reward is annealed from flat, so that the policy meets every mode before it
is worth preferring one.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path as FilePath

import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import OptionError, TrainingError
from gfnmc.core.storage import check_writable
from gfnmc.core.threads import thread_limit
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.objectives.trajectory_balance import trajectory_balance
from gfnmc.policies.mlp import MLPPolicy
from gfnmc.policies.pair import GFlowNet
from gfnmc.policies.path import Path, joined
from gfnmc.policies.rollout import walk_backward, walk_forward
from gfnmc.sampling.progress import progress
from gfnmc.targets.base import Target, checked_log_prob
from gfnmc.training.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from gfnmc.training.config import TrainingConfig
from gfnmc.training.replay import ReplayBuffer


@dataclass(frozen=True)
class TrainingResult:
    """What training made.

    Attributes:
        pair: The trained pair, frozen.
        history: By name, a value for every hundredth step: `step`, `loss` (nats squared), `log_z` (nats),
            `reward_power` (1 is the full reward).
        cost: What it cost; the pair carries it too.
    """

    pair: GFlowNet
    history: dict[str, list[int | float]]
    cost: Cost


def train(
    environment: DiscreteEnvironment,
    target: Target,
    *,
    config: TrainingConfig | None = None,
    pair: GFlowNet | None = None,
    seed: int = 0,
    checkpoint: str | FilePath | None = None,
    num_threads: int | None = 1,
    progress_bar: bool = True,
) -> TrainingResult:
    """Train a pair for a target.

    Args:
        environment: How objects are built.
        target: Whose density is learned.
        config: Options; the defaults otherwise.
        pair: What to train, in place; by default an `MLPPolicy` forward and a uniform policy backward.
        seed: Any integer; the same seed gives the same pair.
        checkpoint: File to write every `config.checkpoint_every` steps; `resume_training` goes on from it.
        num_threads: Torch threads during the run; None leaves torch's setting alone.
        progress_bar: Whether to show progress.

    Returns:
        The trained pair, the history and the cost.

    Raises:
        TrainingError: If the loss is not finite.
        NonFiniteEnergyError: If the target returns NaN or +inf.
        EnvironmentContractError: If the environment contradicts itself.
        StorageError: If the checkpoint cannot be written.
    """
    config = config or TrainingConfig()
    with thread_limit(num_threads):
        trainer = _Trainer(environment, target, config, pair, seed)
        return trainer.run(None if checkpoint is None else FilePath(checkpoint), progress_bar)


def resume_training(
    checkpoint: str | FilePath,
    environment: DiscreteEnvironment,
    target: Target,
    *,
    pair: GFlowNet | None = None,
    num_threads: int | None = 1,
    progress_bar: bool = True,
) -> TrainingResult:
    """Go on from a checkpoint of `train`, to the same pair that an uninterrupted run would have made.

    Args:
        checkpoint: The file that `train` wrote; it is written on.
        environment: As given to `train`.
        target: As given to `train`.
        pair: As given to `train`; its weights are overwritten.
        num_threads: Torch threads during the run; None leaves torch's setting alone.
        progress_bar: Whether to show progress.

    Raises:
        StorageError: If the file cannot be read, or is not a checkpoint.
        OptionError: If it belongs to another target or network.
    """
    path = FilePath(checkpoint)
    saved = read_checkpoint(path)
    if saved.target_name != target.name:
        raise OptionError(f"{path} was trained for {saved.target_name}, not for {target.name}")
    with thread_limit(num_threads):
        trainer = _Trainer(environment, target, TrainingConfig.from_dict(saved.config), pair, saved.seed)
        trainer.restore(saved)
        return trainer.run(path, progress_bar)


class _Trainer:
    """One training run: pair, optimiser, buffer and step, all that a checkpoint holds."""

    def __init__(
        self,
        environment: DiscreteEnvironment,
        target: Target,
        config: TrainingConfig,
        pair: GFlowNet | None,
        seed: int,
    ) -> None:
        if pair is None:
            network = MLPPolicy(environment, hidden_size=config.hidden_size, num_layers=config.num_layers, seed=seed)
            pair = GFlowNet(network)
        elif pair.environment is not environment:
            raise OptionError("the pair acts on another environment object than the one to train on")
        elif not pair.log_z.requires_grad:
            raise OptionError("the pair is frozen, as trained and loaded pairs are; give one that can learn")
        self.pair = pair
        self.environment = environment
        self.target = target
        self.config = config
        self.seed = seed
        self.weights = list(pair.parameters())
        groups = [
            {"params": self.weights, "lr": config.learning_rate, "peak": config.learning_rate},
            {"params": [pair.log_z], "lr": config.log_z_learning_rate, "peak": config.log_z_learning_rate},
        ]
        self.optimizer = torch.optim.Adam([group for group in groups if group["params"]])
        self.buffer = ReplayBuffer(config.buffer_size, tuple(target.event_shape), target.dtype)
        self.step = 0
        self.cost = pair.training_cost
        self.history: dict[str, list[int | float]] = {"step": [], "loss": [], "log_z": [], "reward_power": []}

    def run(self, checkpoint: FilePath | None, progress_bar: bool) -> TrainingResult:
        config = self.config
        if checkpoint is not None:
            check_writable(checkpoint)
        with progress("training", config.num_steps, progress_bar=progress_bar) as shown:
            while self.step < config.num_steps:
                begun = time.perf_counter()
                loss, calls, policy_calls = self._train_step()
                self.cost += Cost(calls, policy_calls, time.perf_counter() - begun)
                if self.step % 100 == 0 or self.step == config.num_steps - 1:
                    self._remember(loss)
                self.step += 1
                if checkpoint is not None and (self.step % config.checkpoint_every == 0 or self._is_done()):
                    write_checkpoint(checkpoint, self.snapshot())
                shown.update(self.step, loss=loss, log_z=self.pair.log_z.item())
        self.pair.training_cost = self.cost
        return TrainingResult(self.pair.frozen(), self.history, self.cost)

    def snapshot(self) -> Checkpoint:
        return Checkpoint(
            target_name=self.target.name,
            config=self.config.to_dict(),
            seed=self.seed,
            step=self.step,
            cost=self.cost,
            history=self.history,
            num_added=self.buffer.num_added,
            tensors=self._tensors(),
        )

    def restore(self, saved: Checkpoint) -> None:
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                zeros = torch.zeros_like(parameter)
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": zeros,
                    "exp_avg_sq": zeros.clone(),
                }
        tensors = self._tensors()
        wrong = [name for name in tensors.keys() | saved.tensors.keys() if not _alike(name, tensors, saved.tensors)]
        if wrong:
            raise OptionError(
                f"the checkpoint's {sorted(wrong)[0]} does not fit this pair; give the one it was made with"
            )
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(saved.tensors[name])
        self.step = saved.step
        self.cost = saved.cost
        self.history = saved.history
        self.buffer.restore(saved.num_added)

    def _train_step(self) -> tuple[float, int, int]:
        """Take one step; return the loss, the target calls and the policy calls."""
        config = self.config
        power = self._reward_power()
        path, log_reward = self._paths(power)
        log_reward = power * log_reward.clamp(min=self._best_log_reward() - config.log_reward_range)
        log_forward = self.pair.log_forward(path)
        log_backward = self.pair.log_backward(path)
        if self.step == 0:
            with torch.no_grad():
                self.pair.log_z.copy_((log_reward + log_backward - log_forward).mean())
        losses = trajectory_balance(self.pair.log_z, log_forward, log_backward, log_reward)
        loss = losses.mean()
        if not bool(loss.isfinite()):
            self._fail(losses, path)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self._learning_rate_factor()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*self.weights, self.pair.log_z], config.max_grad_norm)
        self.optimizer.step()
        # Each state of a path is met by the walk that made it and by the scores of P_F and P_B.
        return float(loss.detach()), config.batch_size, 3 * int(path.lengths.sum())

    def _paths(self, power: float) -> tuple[Path, Tensor]:
        """Return new paths by P_F, and paths by P_B of remembered objects, with their log-rewards."""
        config = self.config
        draws = PhiloxDraws(self.seed, "train", config.batch_size).at(self.step)
        explored = self.pair.forward.with_exploration(epsilon=config.epsilon)
        source = self.environment.source(config.batch_size)
        path = walk_forward(explored, self.environment, source, draws.role("forward"))
        objects = self.environment.objects(path.end)
        log_reward = checked_log_prob(self.target, objects)
        self.buffer.add(objects, log_reward)
        if config.replay_batch_size == 0:
            return path, log_reward
        again = PhiloxDraws(self.seed, "replay", config.replay_batch_size).at(self.step)
        remembered, its_log_reward = self.buffer.sample(again.role("choice"), config.replay_power * power)
        finished = self.environment.states(remembered)
        back = walk_backward(self.pair.backward, self.environment, finished, None, again.role("backward"))
        return joined(path, back), torch.cat([log_reward, its_log_reward])

    def _best_log_reward(self) -> float:
        best = float(self.buffer.log_reward[: len(self.buffer)].max())
        if best == -math.inf:
            raise TrainingError(
                f"in {self.step + 1} training steps P_F has made no object of positive density; forbid impossible "
                "objects by the environment's masks, or give a pair that can make possible ones"
            )
        return best

    def _reward_power(self) -> float:
        until = self.config.anneal_until * self.config.num_steps
        return 1.0 if self.step >= until else self.step / until

    def _learning_rate_factor(self) -> float:
        config = self.config
        rise = min(1.0, (self.step + 1) / max(config.lr_warmup_steps, 1))
        done = self.step / config.num_steps
        if done <= config.lr_decay_from:
            return rise
        return rise * 0.5 * (1.0 + math.cos(math.pi * (done - config.lr_decay_from) / (1.0 - config.lr_decay_from)))

    def _remember(self, loss: float) -> None:
        row = {"step": self.step, "loss": loss, "log_z": self.pair.log_z.item(), "reward_power": self._reward_power()}
        for name, value in row.items():
            self.history[name].append(value)

    def _is_done(self) -> bool:
        return self.step == self.config.num_steps

    def _fail(self, losses: Tensor, path: Path) -> None:
        row = int((~losses.isfinite()).nonzero()[0, 0])
        raise TrainingError(
            f"the loss is not finite in training step {self.step}, first for the path to the object "
            f"{self.environment.objects(path.end)[row].tolist()}; lower learning_rate or max_grad_norm, and see that "
            "P_F and P_B allow every path"
        )

    def _tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the run by name; writing to them restores it."""
        tensors = {"buffer.objects": self.buffer.objects, "buffer.log_reward": self.buffer.log_reward}
        parameters = [*self.weights, self.pair.log_z]
        for place, parameter in enumerate(parameters):
            tensors[f"parameter.{place}"] = parameter.data
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{place}.{name}"] = value
        return tensors


def _alike(name: str, here: dict[str, Tensor], there: dict[str, Tensor]) -> bool:
    return (
        name in here
        and name in there
        and here[name].shape == there[name].shape
        and here[name].dtype == there[name].dtype
    )
