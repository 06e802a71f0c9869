"""What a difference or a gradient of the energy costs against a full evaluation, measured on this machine.

A sampler that asks only for the change under a single-site change should not pay for whole energies, and one that asks
for gradients should pay for them. Prices are medians of interleaved batches, so that a machine that slows down for a
while slows all of them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.threads import thread_limit
from gfnmc.targets import Target

_ROUNDS = 15


@dataclass(frozen=True)
class Prices:
    """Prices in full evaluations.

    Attributes:
        full_microseconds: Time of a full evaluation of one object, in a batch.
        delta: Price of the change that one value at one site makes; None where the target offers no such thing.
        gradient: Price of a value with its gradient; None where the target offers none.
    """

    full_microseconds: float
    delta: float | None
    gradient: float | None

    def priced(self, cost: Cost) -> float:
        """Return a cost in full evaluations."""
        cheaper = 0.0 if self.delta is None else (self.delta - 1.0) * cost.delta_calls
        dearer = 0.0 if self.gradient is None else (self.gradient - 1.0) * cost.gradient_calls
        return cost.target_calls + cheaper + dearer


def measure_prices(target: Target, objects: Tensor, *, num_threads: int | None = 1) -> Prices:
    """Time the ways to ask a target, on a batch of objects.

    Args:
        target: What to time.
        objects: Possible objects, `(batch, *event_shape)`; as many as chains run side by side.
        num_threads: Torch threads meanwhile; None leaves torch's setting alone.
    """
    ways: dict[str, Callable[[], object]] = {"full": lambda: target.log_prob(objects)}
    if target.offers_delta and target.values is not None:
        num_sites = torch.Size(target.event_shape).numel()
        sites = PhiloxDraws(0, "prices", len(objects)).integers(torch.full((len(objects),), num_sites))
        ways["delta"] = lambda: target.log_prob_delta(objects, sites)
    if target.offers_relaxed and target.values is not None:
        one_hot = (objects[..., None] == torch.tensor(target.values)).to(torch.float64)
        ways["gradient"] = lambda: _gradient(target, one_hot)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with thread_limit(num_threads):
        for _ in range(_ROUNDS):
            for name, ask in ways.items():
                begun = time.perf_counter()
                ask()
                seconds[name].append(time.perf_counter() - begun)
    full = median(seconds["full"])
    # A visit of a site tells the change with each of its other values.
    num_others = max(1, len(target.values or ()) - 1)
    return Prices(
        full_microseconds=1e6 * full / len(objects),
        delta=median(seconds["delta"]) / full / num_others if "delta" in ways else None,
        gradient=median(seconds["gradient"]) / full if "gradient" in ways else None,
    )


def _gradient(target: Target, one_hot: Tensor) -> Tensor:
    weights = one_hot.clone().requires_grad_()
    with torch.enable_grad():
        total = target.log_prob_relaxed(weights).sum()
    return torch.autograd.grad(total, weights)[0]
