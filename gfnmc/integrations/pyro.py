"""A pair as a kernel of Pyro's MCMC: discrete sites by the pair, and beside it NUTS on the continuous ones.

    MCMC(GFlowNetKernel(model, pair=pair, continuous=NUTS), num_samples=1_000, warmup_steps=200)

Pyro's own kernels take models with continuous sites only, or sum discrete ones out. Here a step is two: the pair moves
the discrete sites given the continuous ones, then the other kernel the continuous ones given the discrete ones. Each
leaves the model's law invariant, so both together do. The density is always the model's own, and the chain exact
whatever the pair was trained for.

References: Hastings 1970; Bingham et al. 2019, "Pyro: deep universal probabilistic programming".
"""

import builtins
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyro import poutine
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.integrations.proposals import PairProposals, seed_from, step_row
from gfnmc.integrations.pyro_models import (
    DiscreteBlock,
    Model,
    Sites,
    discrete_block,
    latent_sites,
    log_joint,
    row_of,
    train_block,
    values_of,
)
from gfnmc.kernels.branch import BranchLaw
from gfnmc.policies.pair import ProposalPair

__all__ = ["DiscreteBlock", "GFlowNetKernel", "discrete_block", "train_block"]

_NUM_STARTS = 256

Params = dict[str, Tensor]
"""Values of latent sites by name, continuous ones on the unconstrained scale."""


class GFlowNetKernel(MCMCKernel):
    """Undo a part of the discrete sites and rebuild it; then let another kernel move the continuous ones.

    Samples of discrete sites are floats, because Pyro's diagnostics take means of them.

    Args:
        model: The model. All its discrete latent sites, in the order in which it meets them, are the object.
        pair: P_F and P_B.
        branch: How much is undone; uniform over all legal numbers of actions by default.
        continuous: Makes the kernel of the continuous sites of a model: `NUTS`, `HMC`, or one of them with options by
            `functools.partial`. Needed where there are such sites.

    Raises:
        CapabilityError: If the environment has no `max_depth`, which branch laws need.
        OptionError: If the law does not fit the environment.
    """

    def __init__(
        self,
        model: Model,
        *,
        pair: ProposalPair,
        branch: BranchLaw | None = None,
        continuous: Callable[[Model], Any] | None = None,
    ) -> None:
        self.proposals = PairProposals(pair, branch)
        self._model = model
        self._kernel = None if continuous is None else continuous(self._given_discrete)
        self._given: Params = {}
        self._initial: Params = {}
        self._sites: Sites = {}
        self._row = np.zeros(0)

    @property
    def model(self) -> Model | None:
        """The model of the continuous sites, None where there are none.

        Where chains ran in other processes, Pyro calls `setup` if there is one, to learn `transforms`.
        """
        return None if self._kernel is None else self._given_discrete

    @property
    def transforms(self) -> dict[str, Any] | None:
        """How continuous sites become unconstrained; None before `setup` where there may be some."""
        return {} if self._kernel is None else self._kernel.transforms

    @property
    def initial_params(self) -> Params:
        return self._initial

    @initial_params.setter
    def initial_params(self, params: Params) -> None:
        # Pyro sets them before the setup of each chain.
        self._given = params

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Begin a chain, at `initial_params` where they were set, else at a possible object drawn by P_F.

        Raises:
            CapabilityError: If there are continuous sites and no kernel for them.
            OptionError: If the discrete sites have another number of entries than the objects of the pair.
            ObjectError: If P_F draws only what the model does not allow.
        """
        self._args, self._kwargs = args, kwargs
        self._warmup_steps, self._num_steps, self._num_accepted = warmup_steps, 0, 0
        self._find_sites()
        continuous = {name: value for name, value in self._given.items() if name not in self._sites}
        if len(continuous) < len(self._given):
            self._row = row_of(self._given, self._sites)
        else:
            self._row = self._start(seed_from(_TorchBytes()))
        if self._kernel is not None:
            if continuous:
                self._kernel.initial_params = continuous
            self._kernel.setup(warmup_steps, *args, **kwargs)
            continuous = self._kernel.initial_params
        self._initial = self._params(self._row) | continuous

    def sample(self, params: Params) -> Params:
        """Move the discrete sites, then the others.

        Raises:
            ObjectError: If the discrete sites are no object of the pair, or have density zero.
            NonFiniteEnergyError: If the model's log-density is NaN or +inf.
        """
        continuous = {name: value for name, value in params.items() if name not in self._sites}

        def log_prob(row: NDArray) -> float:
            return self._log_joint(row, continuous)

        moved = step_row(self.proposals, row_of(params, self._sites), log_prob, _TorchBytes())
        self._row = moved.row
        self._num_steps += 1
        self._num_accepted += int(moved.is_accepted and self._num_steps > self._warmup_steps)
        if self._kernel is not None:
            # What it remembers is the density given the discrete values before.
            self._kernel.clear_cache()
            continuous = self._kernel.sample(continuous)
        return self._params(moved.row) | continuous

    def logging(self) -> Any:
        """Return what the progress bar shows."""
        shown = OrderedDict() if self._kernel is None else self._kernel.logging()
        shown["discrete acc. rate"] = f"{self._num_accepted / max(1, self._num_steps - self._warmup_steps):.3f}"
        return shown

    def diagnostics(self) -> dict[str, Any]:
        """Return the acceptance rate of the pair's moves after warm-up, and what the other kernel says of its own."""
        theirs = {} if self._kernel is None else self._kernel.diagnostics()
        rate = self._num_accepted / max(1, self._num_steps - self._warmup_steps)
        return {"acceptance rate": rate} | {f"continuous {name}": value for name, value in theirs.items()}

    def cleanup(self) -> None:
        if self._kernel is not None:
            self._kernel.cleanup()

    def _find_sites(self) -> None:
        self._sites, continuous = latent_sites(self._model, self._args, self._kwargs)
        num_entries = sum(site.numel for site in self._sites.values())
        if num_entries != self.proposals.num_entries:
            raise OptionError(
                f"the discrete sites {list(self._sites)} have {num_entries} entries and the objects of the pair "
                f"{self.proposals.num_entries}; give a pair for all discrete sites of the model"
            )
        if continuous and self._kernel is None:
            raise CapabilityError(
                f"the model has continuous sites too, {continuous}; say what moves them: continuous=pyro.infer.NUTS"
            )

    def _given_discrete(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with its discrete sites at the current values."""
        return poutine.condition(self._model, data=values_of(torch.from_numpy(self._row), self._sites))(*args, **kwargs)

    def _log_joint(self, row: NDArray, continuous: Params) -> float:
        # Pyro's samplers do not validate, and then a distribution gives impossible values a density all the same.
        if not self._is_supported(row):
            return -math.inf
        transforms = self.transforms or {}
        discrete = values_of(torch.from_numpy(row), self._sites)
        values = {name: transforms[name].inv(v) if name in transforms else v for name, v in continuous.items()}
        with torch.no_grad():
            return float(log_joint(self._model, discrete | values, self._args, self._kwargs))

    def _is_supported(self, row: NDArray) -> bool:
        values = values_of(torch.from_numpy(row), self._sites)
        return all(bool(site.distribution.support.check(values[name]).all()) for name, site in self._sites.items())

    def _start(self, seed: int) -> NDArray:
        """Return the first object by P_F that the model allows."""
        for row in self.proposals.start_rows(_NUM_STARTS, seed):
            if self._is_supported(row) and (self._kernel is not None or self._log_joint(row, {}) > -math.inf):
                return row
        raise ObjectError(
            f"none of {_NUM_STARTS} objects drawn by P_F is possible for the model; give MCMC initial_params, or train "
            "the pair for this model"
        )

    def _params(self, row: NDArray) -> Params:
        values = values_of(torch.from_numpy(row), self._sites)
        return {name: value.to(torch.get_default_dtype()) for name, value in values.items()}


class _TorchBytes:
    """Random bytes of torch's generator, which `pyro.set_rng_seed` seeds."""

    def bytes(self, length: int, /) -> builtins.bytes:
        return builtins.bytes(torch.randint(256, (length,)).tolist())
