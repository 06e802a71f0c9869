"""How benchmarks/training.py judges a pair: by exact independent objects, the same way whoever trained it, uncharged.

    log Z        importance estimate from own draws of P_F, and what the trainer learned, against the exact one
    modes        a mode is found if own draws hold at least a tenth of its exact share
    acceptance   mean of min(1, A) over the steps of chains that start from exact draws, so that they are stationary
    overlaps     of all pairs among the ends of independent chains, against those of as many exact draws

Of a pair that another library trained only the weights w = R P_B / P_F of own and exact objects are known. The mean of
min(1, w'/w) over own w' and exact w is the acceptance of a full restart too.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor
from training_problems import Problem

from gfnmc import sample
from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.numerics import log_mean_exp
from gfnmc.kernels import IndependenceMH, Kernel, SuffixResampling
from gfnmc.policies import GFlowNet
from gfnmc.targets import EdwardsAnderson, overlap
from gfnmc.targets.base import checked_log_prob

NUM_EXACT = 2_048
ACCEPTANCE_CHAINS, ACCEPTANCE_STEPS = 256, 20
OVERLAP_CHAINS, OVERLAP_STEPS = 512, 100
OVERLAP_BINS, OVERLAP_REFERENCE, OVERLAP_RESAMPLES, OVERLAP_QUANTILE = 17, 4_096, 200, 0.99


@dataclass(frozen=True)
class Judgement:
    """The figures of one pair.

    Attributes:
        seconds: Seconds of training, wall clock.
        target_calls: Target calls of training, seeding and looks included.
        log_z_error: |importance estimate - exact log Z|, nats; inf where no own draw is possible.
        learned_log_z_error: The same of the log Z that the trainer learned.
        modes_found: Modes found, None where the target has none.
        acceptance: Of a full restart.
        half_acceptance: Of rebuilding about half; None where it cannot be had.
        overlap_distance: Total variation between overlap histograms, chain ends against exact; None where not judged.
    """

    seconds: float
    target_calls: int
    log_z_error: float
    learned_log_z_error: float
    modes_found: int | None
    acceptance: float
    half_acceptance: float | None = None
    overlap_distance: float | None = None


class Judge:
    """Judges pairs for one problem, always by the same exact objects."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.target = problem.target
        self.exact_objects = problem.exact_objects(NUM_EXACT, "judging")

    @property
    def num_modes(self) -> int | None:
        """Modes there are to find."""
        modes = self.target.modes()
        return None if modes is None else len(modes)

    @property
    def judges_overlaps(self) -> bool:
        """Whether the target is a spin glass, whose modes nothing but the overlap tells apart."""
        return isinstance(self.target, EdwardsAnderson)

    @torch.no_grad()
    def of_pair(self, pair: GFlowNet, *, seconds: float, target_calls: int) -> Judgement:
        """Judge a frozen pair of gfnmc.

        Args:
            pair: The pair.
            seconds: What training took.
            target_calls: What training called.
        """
        made, log_weights = self._own_draws(pair)
        return Judgement(
            seconds=seconds,
            target_calls=target_calls,
            log_z_error=abs(log_mean_exp(log_weights) - self.problem.exact.log_z),
            learned_log_z_error=abs(pair.log_z_weight.item() - self.problem.exact.log_z),
            modes_found=self.modes_found(made),
            acceptance=self._acceptance(IndependenceMH(pair, self.target)),
            half_acceptance=self._acceptance(SuffixResampling(pair, self.target, self.problem.half)),
            overlap_distance=self._overlap_distance(pair) if self.judges_overlaps else None,
        )

    def of_weights(
        self,
        own: Float64[Tensor, " n"],
        made: Shaped[Tensor, "n *event"],
        given: Float64[Tensor, " m"],
        *,
        learned_log_z: float,
        seconds: float,
        target_calls: int,
    ) -> Judgement:
        """Judge a pair that only its weights are known of.

        Args:
            own: log w of draws of P_F, nats.
            made: Those draws.
            given: log w of `exact_objects`, nats.
            learned_log_z: What the trainer learned, nats.
            seconds: What training took.
            target_calls: What training called.
        """
        return Judgement(
            seconds=seconds,
            target_calls=target_calls,
            log_z_error=abs(log_mean_exp(own) - self.problem.exact.log_z),
            learned_log_z_error=abs(learned_log_z - self.problem.exact.log_z),
            modes_found=self.modes_found(made),
            acceptance=float((own[:, None] - given).clamp(max=0.0).exp().mean()),
        )

    def modes_found(self, made: Shaped[Tensor, "n *event"]) -> int | None:
        """Count the modes that have at least a tenth of their exact share among `made`."""
        modes = self.target.modes()
        if modes is None:
            return None
        counts = torch.bincount(modes.assign(made) + 1, minlength=len(modes) + 1)[1:]
        return int((counts / len(made) >= 0.1 * self._mode_masses).sum())

    @cached_property
    def overlap_band(self) -> float:
        """The distance that independent exact draws, as many as chains, stay below with probability 0.99."""
        distances = [
            self._distance(self.problem.exact_objects(OVERLAP_CHAINS, f"overlaps {resample}"))
            for resample in range(OVERLAP_RESAMPLES)
        ]
        return float(torch.tensor(distances).quantile(OVERLAP_QUANTILE))

    @cached_property
    def _mode_masses(self) -> Float64[Tensor, " modes"]:
        """The exact share of each mode; where it is not known, that among 65,536 exact draws."""
        if self.problem.exact.mode_masses is not None:
            return torch.tensor(self.problem.exact.mode_masses, dtype=torch.float64)
        modes = self.target.modes()
        assert modes is not None
        labels = modes.assign(self.problem.exact_objects(65_536, "mode masses"))
        return torch.bincount(labels + 1, minlength=len(modes) + 1)[1:].double() / len(labels)

    def _own_draws(self, pair: GFlowNet) -> tuple[Shaped[Tensor, "n *event"], Float64[Tensor, " n"]]:
        """Return objects that P_F draws, and log w of the paths that made them, nats."""
        draws = PhiloxDraws(0, "benchmark/own", self.problem.num_draws)
        path = pair.sample_forward(pair.environment.source(draws.num_rows), draws)
        assert path.log_forward is not None
        made = pair.environment.objects(path.end)
        return made, checked_log_prob(self.target, made) + pair.log_backward(path) - path.log_forward

    @torch.no_grad()
    def _acceptance(self, kernel: Kernel) -> float:
        """Return the mean acceptance of stationary chains, over the steps that propose anything.

        The kernel is stepped by hand because one that always rebuilds half cannot reach everything, which `sample` asks
        of a kernel; for a stationary mean that is not needed.
        """
        draws = PhiloxDraws(0, f"benchmark/{kernel.name}", ACCEPTANCE_CHAINS)
        state = kernel.init(self.exact_objects[:ACCEPTANCE_CHAINS], draws)
        total, proposed = 0.0, 0
        for step in range(ACCEPTANCE_STEPS):
            state, info = kernel.step(draws.at(step), state)
            total += float(info.acceptance_rate.sum())
            proposed += int((info.num_back_steps + info.num_forward_steps > 0).sum())
        return total / max(proposed, 1)

    def _overlap_distance(self, pair: GFlowNet) -> float:
        """Run chains of full restarts from own draws of P_F and compare the overlaps of their ends."""
        chains = sample(
            IndependenceMH(pair, self.target),
            num_chains=OVERLAP_CHAINS,
            num_samples=1,
            num_warmup=OVERLAP_STEPS - 1,
            seed=0,
            progress_bar=False,
        )
        return self._distance(chains.x[:, -1])

    def _distance(self, objects: Shaped[Tensor, "n *event"]) -> float:
        return 0.5 * float((_overlap_histogram(objects) - self._reference).abs().sum())

    @cached_property
    def _reference(self) -> Float64[Tensor, " bins"]:
        return _overlap_histogram(self.problem.exact_objects(OVERLAP_REFERENCE, "overlap reference"))


def _overlap_histogram(objects: Shaped[Tensor, "n *event"]) -> Float64[Tensor, " bins"]:
    """Return the shares of overlaps, from -1 to 1 in bins, over all pairs of objects.

    Pairs share objects, which makes them dependent, for chain ends as for the exact draws of the band.
    """
    first, second = torch.triu_indices(len(objects), len(objects), offset=1)
    step = 2.0 / (OVERLAP_BINS - 1)
    counts = torch.zeros(OVERLAP_BINS, dtype=torch.int64)
    for part in torch.arange(len(first)).split(2**20):
        place = ((overlap(objects[first[part]], objects[second[part]]) + 1.0) / step + 0.5).floor().to(torch.int64)
        counts += torch.bincount(place, minlength=OVERLAP_BINS)
    return counts.double() / math.comb(len(objects), 2)
