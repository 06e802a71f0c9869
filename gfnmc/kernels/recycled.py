"""Rao-Blackwellised means: what a step decides by a coin is averaged over both sides of it.

A Metropolis step at x proposes x' and goes there with probability a. Given both, the mean of f over where it ends is

    (1 - a) f(x) + a f(x')

whatever the coin says, and its mean over a chain is the target's. The variance of one step is smaller, for the coin is
gone; that of a whole chain mostly, but not always: compare `mcse`.

References: Frenkel 2004, "Speed-up of Monte Carlo simulations by sampling of rejected states"; Delmas and Jourdain
2009, "Does waste recycling really improve the multi-proposal Metropolis-Hastings algorithm?".
"""

import copy

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError
from gfnmc.core.tempering import InverseTemperature
from gfnmc.kernels.base import Adaptation, Info, Kernel, Reach, State
from gfnmc.kernels.metropolis import MetropolisKernel


class Recycled(Kernel):
    """Another kernel, draw for draw, with the means over each of its decisions recorded.

    `Info.extras` holds the mean of every statistic of the target, as "recycled[name]", and of the indicator of every
    mode, as "recycled[occ[name]]", each `(chains,)` float64; `gfnmc.diagnostics.recycled_means` averages them. That
    asks the target for the statistics of objects and proposals in every step, which is not counted among the target
    calls. `MultipleTrySuffix(recycle=True)` averages over all its tries by itself.

    Args:
        kernel: A Metropolis kernel: its `Info` says what was proposed, and with what probability it was accepted.

    Raises:
        CapabilityError: If it is no Metropolis kernel. Of a cycle, recycle the parts.
    """

    def __init__(self, kernel: Kernel) -> None:
        if not isinstance(kernel, MetropolisKernel):
            raise CapabilityError(
                f"{kernel.name} does not accept one proposal by one probability, so there is no coin to average over; "
                "give a Metropolis kernel, such as SuffixResampling or RandomWalk; of a Cycle, recycle its parts"
            )
        self._of(kernel)

    def _of(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.name = kernel.name
        self.target = kernel.target
        self.environment = kernel.environment
        self.training_cost = kernel.training_cost
        self.calls_per_step = kernel.calls_per_step
        self.inverse_temperature = kernel.inverse_temperature
        self.keeps_cache = kernel.keeps_cache

    @property
    def reach(self) -> Reach:
        return self.kernel.reach

    @property
    def may_stay(self) -> bool:
        return self.kernel.may_stay

    def start(self, draws: Draws) -> Shaped[Tensor, "chains *event"]:
        return self.kernel.start(draws)

    def init(self, position: Shaped[Tensor, "chains *event"], draws: Draws | None = None) -> State:
        return self.kernel.init(position, draws)

    def refresh(self, state: State) -> State:
        return self.kernel.refresh(state)

    def tempered(self, inverse_temperature: InverseTemperature) -> "Recycled":
        return self.around(self.kernel.tempered(inverse_temperature))

    def around(self, kernel: Kernel) -> "Recycled":
        """Return the same wrapper around another version of its kernel, such as a tempered or tuned one."""
        made = copy.copy(self)
        made._of(kernel)
        return made

    def adaptation(self) -> "RecycledAdaptation | None":
        inner = self.kernel.adaptation()
        return None if inner is None else RecycledAdaptation(self, inner)

    @torch.no_grad()
    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        return self.recorded(state, *self.kernel.step(draws, state))

    def recorded(self, before: State, after: State, info: Info) -> tuple[State, Info]:
        """Return a step of the kernel with its means recorded."""
        objects = torch.cat([before.position, info.proposal])
        named = dict(self.target.statistics(objects))
        modes = self.target.modes()
        if modes is not None:
            mode_ids = modes.assign(objects)
            named |= {f"occ[{name}]": mode_ids == mode for mode, name in enumerate(modes.names)}
        means = {f"recycled[{name}]": mean_over_coin(info.acceptance_rate, value) for name, value in named.items()}
        return after, info._replace(extras={**info.extras, **means})


class RecycledAdaptation(Adaptation):
    """The warm-up of a kernel whose means are recorded.

    Args:
        recycled: The kernel.
        inner: The warm-up of what it is around.
    """

    def __init__(self, recycled: Recycled, inner: Adaptation) -> None:
        self._recycled = recycled
        self._inner = inner
        self.kernel = recycled.around(inner.kernel)

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        after, info = self._inner.step(draws, state)
        self.kernel = self._recycled.around(self._inner.kernel)
        return self._recycled.recorded(state, after, info)

    def frozen(self) -> Kernel:
        return self._recycled.around(self._inner.frozen())


def mean_over_coin(
    acceptance_rate: Float64[Tensor, " chains"], values: Shaped[Tensor, " both"]
) -> Float64[Tensor, " chains"]:
    """Return (1 - a) f(x) + a f(x').

    Args:
        acceptance_rate: a.
        values: f of all objects x, then of all proposals x'.
    """
    here, there = values.to(torch.float64).chunk(2)
    # A statistic may be infinite for an impossible proposal, which has no weight.
    taken = torch.where(acceptance_rate > 0.0, acceptance_rate * there, 0.0)
    return (1.0 - acceptance_rate) * here + taken
