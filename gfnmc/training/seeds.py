"""Seeds: objects from tempered chains of local moves on the target, so that a pair learns of every mode.

Local moves at low inverse temperatures cross between modes, and parallel tempering hands what they find up to the
target itself. The ladder of inverse temperatures is found by a population that climbs it; the chains start from that
population. Some chains are held out: what a pair is judged by, it has not been taught.

Seeds are pi's own objects only as far as the tempered chains mix. The pair does not rest on that: its other losses and
the accept step are exact.

What seeds buy: docs/explanation/mode-coverage.md.

Reference: Geyer 1991, "Markov chain Monte Carlo maximum likelihood", for tempering.
"""

from dataclasses import replace

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import CapabilityError, EnergyError
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.kernels.base import Kernel, State
from gfnmc.kernels.gibbs import Gibbs
from gfnmc.kernels.ladder import tempering_ladder
from gfnmc.kernels.parallel_tempering import ParallelTempering
from gfnmc.kernels.random_walk import RandomWalk
from gfnmc.kernels.replicas import TemperingCache
from gfnmc.targets.base import Target
from gfnmc.targets.conditional import ConditionalTarget, TemperedFamily
from gfnmc.training.config import TrainingConfig

_CAPACITY = 16_384
_POPULATION = 512


class Seeds:
    """Tempered chains on a target and the objects they have supplied.

    Args:
        kernel: Local moves; `local_kernel` finds them.
        config: Options.
        seed: Names the run.
        lowest: Smallest inverse temperature whose objects are kept: 1 for the target alone, less for a tempered family.

    Attributes:
        cost: What the seeds cost since `take_cost` was last called.
    """

    def __init__(self, kernel: Kernel, config: TrainingConfig, seed: int, *, lowest: float = 1.0) -> None:
        self._kernel = kernel
        self._config = config
        self._seed = seed
        self._lowest = lowest
        self._sweep = 0
        self._num_kept = {"taught": 0, "held": 0}
        self._num_new = 0
        self._cost = Cost()
        target = kernel.target
        self._pools = {
            name: {
                "objects": torch.zeros(_CAPACITY, *target.event_shape, dtype=target.dtype),
                "log_prob": torch.zeros(_CAPACITY, dtype=torch.float64),
                "inverse_temperature": torch.zeros(_CAPACITY, dtype=torch.float64),
            }
            for name in self._num_kept
        }

    def begin(self) -> None:
        """Find the ladder, and run the chains in.

        Raises:
            EnergyError: If no object can be found that is possible, or the target breaks its contract.
        """
        config = self._config
        num_moves = _moves_per_sweep(self._kernel) * 3
        try:
            climbed = tempering_ladder(
                self._kernel, num_chains=_POPULATION, min_ess=config.seed_ess, num_moves=num_moves, seed=self._seed
            )
        except EnergyError:
            # At inverse temperature 0 a move costs one call, and impossible objects are found out before any other.
            self._cost += Cost(target_calls=_POPULATION * (1 + num_moves))
            raise
        self._cost += replace(climbed.cost, seconds=0.0)
        self._tempering = ParallelTempering(self._kernel, climbed.inverse_temperatures)
        num_rungs = len(climbed.inverse_temperatures)
        place = torch.arange(config.seed_chains * num_rungs) % len(climbed.position)
        replicas = climbed.position[place].reshape(config.seed_chains, num_rungs, *climbed.position.shape[1:])
        self._state = self._tempering.init(replicas)
        self._cost += Cost(target_calls=config.seed_chains * num_rungs)
        for _ in range(config.seed_warmup):
            self._move()
        self._keep()

    def advance(self) -> None:
        """Move the chains on by one sweep and keep where they are."""
        self._move()
        self._keep()

    def sample(
        self, draws: Draws
    ) -> tuple[Shaped[Tensor, "rows *event"], Float64[Tensor, " rows"], Float64[Tensor, "rows 1"]]:
        """Return seeds to learn from, one for each row of `draws`: objects, log R (not tempered) and conditions."""
        pool = self._filled("taught")
        flat = torch.zeros(len(pool["log_prob"]), dtype=torch.float64).log_softmax(0)
        chosen = draws.categorical(flat)
        return pool["objects"][chosen], pool["log_prob"][chosen], pool["inverse_temperature"][chosen, None]

    def newest(self) -> tuple[Shaped[Tensor, "n *event"], Float64[Tensor, " n"], Float64[Tensor, "n 1"]]:
        """Return what the last sweep supplied to learn from, as `sample` does."""
        pool = self._filled("taught")
        count = min(self._num_new, len(pool["log_prob"]))
        place = (self._num_kept["taught"] - 1 - torch.arange(count)) % _CAPACITY
        return pool["objects"][place], pool["log_prob"][place], pool["inverse_temperature"][place, None]

    def held(self, most: int) -> tuple[Shaped[Tensor, "n *event"], Float64[Tensor, " n"]]:
        """Return at most so many held-out objects at inverse temperature 1, evenly spread over the run, with log R."""
        pool = self._filled("held")
        cold = (pool["inverse_temperature"] == 1.0).nonzero()[:, 0]
        chosen = cold[torch.linspace(0, len(cold) - 1, min(most, len(cold))).round().to(torch.int64)]
        return pool["objects"][chosen], pool["log_prob"][chosen]

    def take_cost(self) -> Cost:
        """Return the target and policy calls since this was last asked."""
        cost, self._cost = self._cost, Cost()
        return cost

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the chains and their objects by name; writing to them restores them."""
        cache: TemperingCache = self._state.cache
        named = {f"{name}.{key}": value for name, pool in self._pools.items() for key, value in pool.items()}
        named |= {"position": self._state.position, "log_prob": self._state.log_prob}
        return named | {f"cache.{key}": value for key, value in cache._asdict().items()}

    def counters(self) -> dict[str, int | list[float]]:
        """Return what a checkpoint needs beside the tensors, as plain data."""
        return {"sweep": self._sweep, **self._num_kept, "ladder": list(self._tempering.inverse_temperatures)}

    def restore(self, counters: dict[str, int | list[float]], tensors: dict[str, Tensor]) -> None:
        """Take up what `counters` and `tensors` said."""
        ladder = counters["ladder"]
        assert isinstance(ladder, list)
        self._tempering = ParallelTempering(self._kernel, ladder)
        cache = TemperingCache(**{key: tensors[f"cache.{key}"] for key in TemperingCache._fields})
        self._state = State(tensors["position"], tensors["log_prob"], cache)
        for name, pool in self._pools.items():
            for key in pool:
                pool[key].copy_(tensors[f"{name}.{key}"])
        self._num_kept = {name: int(counters[name]) for name in self._pools}  # type: ignore[arg-type]
        self._sweep = int(counters["sweep"])  # type: ignore[arg-type]

    def _move(self) -> None:
        draws = PhiloxDraws(self._seed, "seeds", self._config.seed_chains)
        for _ in range(_moves_per_sweep(self._kernel)):
            self._state, info = self._tempering.step(draws.at(self._sweep), self._state)
            self._cost += info.cost()
            self._sweep += 1

    def _keep(self) -> None:
        replicas = self._tempering.replicas(self._state)
        is_kept = replicas.inverse_temperatures >= self._lowest
        num_held = self._config.seed_chains // 4
        for name, chains in (("held", slice(0, num_held)), ("taught", slice(num_held, None))):
            position = replicas.position[chains][:, is_kept].flatten(0, 1)
            place = (self._num_kept[name] + torch.arange(len(position))) % _CAPACITY
            pool = self._pools[name]
            pool["objects"][place] = position
            pool["log_prob"][place] = replicas.log_prob[chains][:, is_kept].flatten()
            rungs = replicas.inverse_temperatures[is_kept]
            pool["inverse_temperature"][place] = rungs.repeat(len(position) // len(rungs))
            self._num_kept[name] += len(position)
            if name == "taught":
                self._num_new = len(position)

    def _filled(self, name: str) -> dict[str, Tensor]:
        count = min(self._num_kept[name], _CAPACITY)
        return {key: value[:count] for key, value in self._pools[name].items()}


def local_kernel(environment: DiscreteEnvironment, target: Target) -> Kernel | None:
    """Return the local moves that can be tempered on a target, or None where there are none.

    Gibbs sweeps where the environment builds every assignment of the target's values, else random walk where its single
    changes connect the space.
    """
    if target.is_noisy:
        return None
    if target.values is not None and environment.builds_every_assignment:
        return Gibbs(environment, target, scan="systematic")
    if not environment.changes_connect:
        return None
    try:
        return RandomWalk(environment, target)
    except CapabilityError:
        return None


def seeds_for(
    environment: DiscreteEnvironment, target: Target | ConditionalTarget, config: TrainingConfig, seed: int
) -> Seeds | None:
    """Return the tempered chains that a config wants, if the target can have them."""
    if config.seeding == "none" or (config.seed_batch_size == 0 and config.objective != "maximum_likelihood"):
        return None
    kernel, lowest = None, 1.0
    if isinstance(target, Target):
        kernel = local_kernel(environment, target)
    elif isinstance(target, TemperedFamily) and target.highest == 1.0:
        kernel, lowest = local_kernel(environment, target.target), target.lowest
    if kernel is not None:
        return Seeds(kernel, config, seed, lowest=lowest)
    if config.seeding == "tempering":
        raise CapabilityError(
            f"{target.name} cannot be tempered on {type(environment).__name__}: seeds need a target that is not noisy, "
            "and single changes that connect the environment, or values of sites; choose seeding='none'"
        )
    return None


def _moves_per_sweep(kernel: Kernel) -> int:
    """Return the kernel's steps that visit about every part of an object once."""
    return 1 if isinstance(kernel, Gibbs) else kernel.environment.max_depth or 1
