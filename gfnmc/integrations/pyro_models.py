"""The discrete sites of a Pyro model as environment and target.

    log R(x) = log p(x, rest held, data)

Training asks for the density of many objects at once: the model runs under `torch.vmap`, once for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from pyro import poutine
from pyro.distributions import Independent
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.environments.lattice import Lattice, Order
from gfnmc.targets.base import ExactSolution, Target, solve_product_space
from gfnmc.training import TrainingConfig, TrainingResult, train

Model = Callable[..., Any]
"""A Pyro model."""


class Site(NamedTuple):
    """A discrete site of a model."""

    shape: torch.Size
    dtype: torch.dtype
    distribution: Any

    @property
    def numel(self) -> int:
        """Its entries."""
        return self.shape.numel()


Sites = dict[str, Site]


class DiscreteBlock(NamedTuple):
    """The discrete sites of a model, as gfnmc sees them.

    Attributes:
        environment: Assigns a value to each entry.
        target: The model's log-density as a function of them, everything else held.
    """

    environment: Lattice
    target: Target


def discrete_block(
    model: Model,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    held: Mapping[str, Tensor] | None = None,
    is_batched: bool = True,
    order: Order = "uniform",
) -> DiscreteBlock:
    """Return the discrete latent sites of a model as environment and target.

    Args:
        model: The model.
        args: What it is called with.
        kwargs: What it is called with, by name.
        held: Values of the continuous sites, by name, on their natural scale.
        is_batched: Whether the model can run on many objects at once by `torch.vmap`. One that branches on the values
            of its sites can not, and is run for one object after the other.
        order: The order in which entries are assigned, as in `Lattice`.

    Raises:
        OptionError: If a continuous site has no value, or a discrete one no finite list of values.
    """
    sites, continuous = latent_sites(model, args, kwargs or {})
    missing = [name for name in continuous if name not in (held or {})]
    if missing:
        raise OptionError(f"the density of the discrete sites depends on {missing}; give held={{{missing[0]!r}: ...}}")
    if not sites:
        raise OptionError("the model has no discrete latent sites, so there is nothing to build a pair for")
    target = _ModelBlock(model, tuple(args), dict(kwargs or {}), dict(held or {}), sites, is_batched)
    return DiscreteBlock(Lattice.for_target(target, order=order), target)


def train_block(
    model: Model,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    held: Mapping[str, Tensor] | None = None,
    is_batched: bool = True,
    order: Order = "uniform",
    config: TrainingConfig | None = None,
    seed: int = 0,
    progress_bar: bool = False,
) -> TrainingResult:
    """Train a pair for the discrete sites of a model; arguments as in `discrete_block` and `gfnmc.train`.

    Raises:
        OptionError: As `discrete_block`, and as `gfnmc.train`.
        TrainingError: If the loss is not finite.
    """
    block = discrete_block(model, args=args, kwargs=kwargs, held=held, is_batched=is_batched, order=order)
    return train(block.environment, block.target, config=config, seed=seed, progress_bar=progress_bar)


class _ModelBlock(Target):
    """The log-density of a model as a function of its discrete sites."""

    dtype = torch.int64

    def __init__(
        self,
        model: Model,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        held: dict[str, Tensor],
        sites: Sites,
        is_batched: bool,
    ) -> None:
        self._model, self._args, self._kwargs, self._held = model, args, kwargs, held
        self._sites = sites
        self._is_batched = is_batched
        self.name = "+".join(sites)
        supports = [_support(name, site) for name, site in sites.items() for _ in range(site.numel)]
        values = tuple(sorted({value for support in supports for value in support}))
        self.values: tuple[int, ...] | None = values
        self._places = torch.tensor(values)
        self.event_shape = (len(supports),)
        self._is_possible = torch.tensor([[value in support for value in values] for support in supports])
        self._possible = torch.tensor([support[0] for support in supports])
        self._exact: ExactSolution | None = None

    def log_prob(self, x: Tensor) -> Tensor:
        place = torch.searchsorted(self._places, x)
        is_possible = self._is_possible[torch.arange(x.shape[1]), place].all(1)
        # Distributions may take values that are not theirs for others, or fail, so they never see them.
        asked = torch.where(is_possible[:, None], x, self._possible)
        # Validation branches on values, which vmap does not allow.
        with pyro.validation_enabled(False), torch.no_grad():
            each = (
                torch.vmap(self._log_joint)(asked)
                if self._is_batched
                else torch.stack(list(map(self._log_joint, asked)))
            )
        return torch.where(is_possible, each.to(torch.float64), -torch.inf)

    def exact(self) -> ExactSolution | None:
        if self._exact is None:
            self._exact = solve_product_space(self)
        return self._exact

    def _log_joint(self, row: Tensor) -> Tensor:
        return log_joint(self._model, values_of(row, self._sites) | self._held, self._args, self._kwargs)


def latent_sites(model: Model, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sites, list[str]]:
    """Return the discrete latent sites of a model, and the names of the continuous ones."""
    with torch.no_grad(), torch.random.fork_rng():
        trace = poutine.trace(model).get_trace(*args, **kwargs)
    sites: Sites = {}
    continuous = []
    for name, node in trace.iter_stochastic_nodes():
        if site_is_subsample(node):
            continue
        site: Any = node
        if site["fn"].support.is_discrete:
            sites[name] = Site(site["value"].shape, site["value"].dtype, site["fn"])
        else:
            continuous.append(name)
    return sites, continuous


def log_joint(model: Model, values: Mapping[str, Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """Return the model's log-density with all its latent sites at given values, nats."""
    trace = poutine.trace(poutine.condition(model, data=dict(values))).get_trace(*args, **kwargs)
    return torch.as_tensor(trace.log_prob_sum())


def _support(name: str, site: Site) -> list[int]:
    distribution = site.distribution
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    if not distribution.has_enumerate_support:
        raise OptionError(f"{name}, a {type(distribution).__name__}, has no finite list of values")
    return [int(value) for value in distribution.enumerate_support(expand=False).unique()]


def row_of(params: Mapping[str, Tensor], sites: Sites) -> NDArray:
    """Return the values of the sites as one row of numbers."""
    return np.concatenate([params[name].detach().reshape(-1).numpy() for name in sites])


def values_of(row: Shaped[Tensor, " entries"], sites: Sites) -> dict[str, Tensor]:
    """Return the values of the sites that a row stands for, in their own shapes and dtypes."""
    pieces = row.split([site.numel for site in sites.values()])
    named = zip(sites.items(), pieces, strict=True)
    return {name: piece.reshape(site.shape).to(site.dtype) for (name, site), piece in named}
