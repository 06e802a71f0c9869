"""A block of a PyMC model's discrete variables as environment and target.

    log R(x) = logp(x, rest held)

The model's own graph is compiled for batches of blocks, so training asks for many densities at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pymc as pm
import torch
from numpy.typing import NDArray
from pymc.initial_point import make_initial_point_fn
from pymc.pytensorf import compile as compile_graph
from pymc.pytensorf import constant_fold
from pymc.util import get_value_vars_from_user_vars
from pymc.vartypes import discrete_types
from pytensor.graph.replace import graph_replace, vectorize_graph
from pytensor.tensor.basic import as_tensor
from pytensor.tensor.type import tensor
from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.environments.lattice import Lattice, Order
from gfnmc.targets.base import ExactSolution, Target, solve_product_space
from gfnmc.training import TrainingConfig, TrainingResult, train

Variables = Sequence[Any]
"""Variables of a model, as `pm.Bernoulli(...)` returns them."""


class DiscreteBlock(NamedTuple):
    """A block of a model, as gfnmc sees it.

    Attributes:
        environment: Assigns a value to each entry.
        target: The model's log-density as a function of the block, everything else held.
    """

    environment: Lattice
    target: Target


def discrete_block(
    vars: Variables,
    *,
    held: Mapping[str, Any] | None = None,
    values: Sequence[int] | None = None,
    model: pm.Model | None = None,
    order: Order = "uniform",
) -> DiscreteBlock:
    """Return a block of discrete variables as environment and target.

    Args:
        vars: The variables of the block.
        held: Values of other variables, by name, on their natural scale; the model's initial values by default.
        values: The values of an entry, increasing. By default those of the distributions, where they are constant:
            Bernoulli, categorical, binomial, discrete uniform.
        model: The model; that of the context by default.
        order: The order in which entries are assigned, as in `Lattice`.

    Raises:
        OptionError: If a variable is not discrete, or its values have to be given.
    """
    model = pm.modelcontext(model)
    value_vars = get_value_vars_from_user_vars(vars, model)
    if values is None:
        values = sorted({value for var in value_vars for value in _values(model.values_to_rvs[var])})
    target = _ModelBlock(model, value_vars, dict(held or {}), tuple(values))
    return DiscreteBlock(Lattice.for_target(target, order=order), target)


def train_block(
    vars: Variables,
    *,
    held: Mapping[str, Any] | None = None,
    values: Sequence[int] | None = None,
    model: pm.Model | None = None,
    order: Order = "uniform",
    config: TrainingConfig | None = None,
    seed: int = 0,
    progress_bar: bool = False,
) -> TrainingResult:
    """Train a pair for a block of discrete variables; arguments as in `discrete_block` and `gfnmc.train`.

    Raises:
        OptionError: As `discrete_block`, and as `gfnmc.train`.
        TrainingError: If the loss is not finite.
    """
    block = discrete_block(vars, held=held, values=values, model=model, order=order)
    return train(block.environment, block.target, config=config, seed=seed, progress_bar=progress_bar)


class _ModelBlock(Target):
    """The log-density of a model as a function of some of its variables."""

    dtype = torch.int64

    def __init__(
        self, model: pm.Model, value_vars: Sequence[Any], held: dict[str, Any], values: tuple[int, ...]
    ) -> None:
        self.name = "+".join(var.name for var in value_vars)
        self.values: tuple[int, ...] | None = values
        point = _point(model, held)
        self._shapes = [point[var.name].shape for var in value_vars]
        self._sizes = [int(np.prod(shape)) for shape in self._shapes]
        self.event_shape = (sum(self._sizes),)
        self._log_prob = _batched_logp(model, value_vars, point)
        self._exact: ExactSolution | None = None

    def log_prob(self, x: Tensor) -> Tensor:
        pieces = np.split(x.numpy(), np.cumsum(self._sizes)[:-1], axis=1)
        parts = [piece.reshape(-1, *shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        return torch.from_numpy(np.asarray(self._log_prob(*parts), dtype=np.float64))

    def exact(self) -> ExactSolution | None:
        if self._exact is None:
            self._exact = solve_product_space(self)
        return self._exact


def _batched_logp(model: pm.Model, value_vars: Sequence[Any], point: Mapping[str, NDArray]) -> Any:
    """Return a compiled function of batches of the block's variables."""
    held = {var: as_tensor(point[var.name]) for var in model.value_vars if var not in value_vars}
    logp = graph_replace(model.logp(), {var: value.astype(var.dtype) for var, value in held.items()}, strict=False)
    batches = [tensor(var.name, shape=(None, *var.type.shape), dtype=var.dtype) for var in value_vars]
    batched = vectorize_graph(logp, dict(zip(value_vars, batches, strict=True)))
    return compile_graph(batches, batched)


def _point(model: pm.Model, held: dict[str, Any]) -> dict[str, NDArray]:
    """Return the model's initial point with some values put in, all on the scale that samplers work on."""
    free = {var.name: var for var in model.free_RVs}
    unknown = sorted(set(held) - set(free))
    if unknown:
        raise OptionError(f"the model has no free variable {unknown[0]!r}; it has {sorted(free)}")
    overrides = {free[name]: value for name, value in held.items()}
    return make_initial_point_fn(model=model, overrides=overrides, return_transformed=True)(0)


def _values(variable: Any) -> Sequence[int]:
    """Return the values of an entry of a variable."""
    if variable.dtype not in discrete_types:
        raise OptionError(f"{variable.name} is continuous; give discrete variables, and leave it to NUTS")
    kind = variable.owner.op.name
    parameters = variable.owner.op.dist_params(variable.owner)
    if kind == "bernoulli":
        return (0, 1)
    if kind == "categorical":
        return range(int(_constant(variable, parameters[0].shape[-1]).max()))
    if kind == "binomial":
        return range(int(_constant(variable, parameters[0]).max()) + 1)
    if kind == "discrete_uniform":
        low, high = (_constant(variable, parameter) for parameter in parameters)
        return range(int(low.min()), int(high.max()) + 1)
    raise OptionError(f"the values of {variable.name}, a {kind}, have to be given: values=range(...)")


def _constant(variable: Any, parameter: Any) -> NDArray:
    (found,) = constant_fold([parameter], raise_not_constant=False)
    if not isinstance(found, np.ndarray | np.number | int):
        raise OptionError(f"how many values {variable.name} has depends on other variables; give values=range(...)")
    return np.asarray(found)
