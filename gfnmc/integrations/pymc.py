"""A pair as a step method of PyMC, beside NUTS or any other: `pm.sample(step=[GFlowNetStep([x], pair=pair)])`.

    accept x' with probability min(1, A),   log A = logp(x', rest) - logp(x, rest) + log q(x' -> x) - log q(x -> x')

The density is the model's own, at the values that the other steps have given the rest, so the chain is exact whatever
the pair was trained for. `train_block` trains one for the block with the rest held at a point; the nearer the rest
stays to it, the more proposals are accepted.

PyMC moves one chain at a time, so a proposal is a batch of one row. In `pm.sample_smc(kernel=GFlowNetSMC)` all
particles move at once, and there is an estimate of log Z.

References: Hastings 1970; Salvatier, Wiecki and Fonnesbeck 2016, "Probabilistic programming in Python using PyMC3".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pymc as pm
import torch
from numpy.typing import NDArray
from pymc.blocking import RaveledVars
from pymc.smc.kernels import SMC_KERNEL
from pymc.step_methods.arraystep import ArrayStep
from pymc.step_methods.compound import Competence, StepMethodState
from pymc.util import get_value_vars_from_user_vars

from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.integrations.proposals import PairProposals, seed_from, step_row
from gfnmc.integrations.pymc_models import DiscreteBlock, Variables, discrete_block, train_block
from gfnmc.kernels.branch import BranchLaw
from gfnmc.policies.pair import ProposalPair

__all__ = ["DiscreteBlock", "GFlowNetSMC", "GFlowNetStep", "discrete_block", "train_block"]

_STEP_STATS: Any = {"accept": (np.float64, []), "accepted": (bool, []), "log_ratio": (np.float64, [])}
_SMC_STATS: Any = {**SMC_KERNEL.stats_dtypes_shapes, "accept": (float, [])}


class GFlowNetStep(ArrayStep):
    """Undo a part of a block of discrete variables and rebuild it.

    Statistics of a draw: `accept`, min(1, A); `accepted`; `log_ratio`, log A in nats.

    Args:
        vars: The variables of the block; their entries, in this order, are the objects of the pair.
        pair: P_F and P_B.
        branch: How much is undone; uniform over all legal numbers of actions by default.
        model: The model; that of the context by default.
        rng: What names the random decisions; PyMC gives each chain its own.
        blocked: Whether the variables move together; they always do.
        initial_point: Not needed; PyMC hands it to every step.
        compile_kwargs: For PyTensor.

    Raises:
        CapabilityError: If `blocked` is False, or the environment has no `max_depth`, which branch laws need.
        OptionError: If the law does not fit the environment, or the block has another number of entries than the pair.
    """

    name = "gflownet"
    default_blocked = True
    default_tune_steps = 0
    stats_dtypes_shapes = _STEP_STATS
    _state_class = StepMethodState

    def __init__(
        self,
        vars: Variables,
        *,
        pair: ProposalPair,
        branch: BranchLaw | None = None,
        model: pm.Model | None = None,
        rng: Any = None,
        blocked: bool = True,
        initial_point: Any = None,
        compile_kwargs: dict[str, Any] | None = None,
    ) -> None:
        model = pm.modelcontext(model)
        value_vars = get_value_vars_from_user_vars(vars, model)
        if not blocked:
            raise CapabilityError("a pair moves all variables of its block together; leave out blocked=False")
        self.proposals = PairProposals(pair, branch)
        point = model.initial_point() if initial_point is None else initial_point
        names = [str(var.name) for var in value_vars]
        _check_size(self.proposals, sum(np.size(point[name]) for name in names), names)
        super().__init__(value_vars, [model.compile_logp(**(compile_kwargs or {}))], blocked=blocked, rng=rng)

    def astep(self, apoint: RaveledVars, *args: Any) -> tuple[RaveledVars, list[dict[str, Any]]]:
        """Move the block once.

        Args:
            apoint: The values of the block, flattened.
            args: The log-density of the model as a function of such values, everything else as it is now.

        Raises:
            ObjectError: If the values are no object of the pair.
            NonFiniteEnergyError: If the model's log-density is NaN or +inf.
        """
        (logp,) = args

        def log_prob(row: NDArray) -> float:
            return float(logp(RaveledVars(row, apoint.point_map_info)))

        moved = step_row(self.proposals, apoint.data, log_prob, self.rng)
        stats = {"accept": moved.acceptance_rate, "accepted": moved.is_accepted, "log_ratio": moved.log_ratio}
        return RaveledVars(moved.row, apoint.point_map_info), [stats]

    @staticmethod
    def competence(var: Any, has_grad: bool = False) -> Any:
        """Say that PyMC should not choose this step by itself."""
        return Competence.INCOMPATIBLE


class GFlowNetSMC(SMC_KERNEL):
    """Proposals of a pair between the stages of `pm.sample_smc`, for models whose every variable is in the block.

    Args:
        args: PyMC's own.
        pair: P_F and P_B.
        branch: How much is undone; uniform over all legal numbers of actions by default.
        num_moves: Proposals a particle and stage.
        kwargs: PyMC's own.

    Raises:
        CapabilityError: If the environment has no `max_depth`, which branch laws need.
        OptionError: If the law does not fit the environment, the model has another number of entries than the pair, or
            `num_moves` is below 1.
    """

    stats_dtypes_shapes = _SMC_STATS

    def __init__(
        self, *args: Any, pair: ProposalPair, branch: BranchLaw | None = None, num_moves: int = 3, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if num_moves < 1:
            raise OptionError(f"num_moves is {num_moves}; particles have to move once a stage at least")
        self.proposals = PairProposals(pair, branch)
        self.num_moves = num_moves
        self._accept = 0.0
        _check_size(self.proposals, sum(size for _, size in self.var_info.values()), list(self.var_info))

    def mutate(self) -> None:
        """Move every particle `num_moves` times."""
        rates = [self._move() for _ in range(self.num_moves)]
        self._accept = float(np.mean(rates))

    def sample_stats(self) -> dict[str, Any]:
        log_z = self.log_marginal_likelihood if self.beta == 1 else np.nan
        return {"log_marginal_likelihood": log_z, "beta": self.beta, "accept": self._accept}

    def sample_settings(self) -> dict[str, Any]:
        return {"_n_draws": self.draws, "threshold": self.threshold, "_n_tune": self.num_moves}

    def _move(self) -> float:
        """Move every particle once and return the mean acceptance rate."""
        current = self.proposals.objects(self.tempered_posterior)
        draws = self.proposals.draws(seed_from(self.rng), len(current))
        objects, log_hastings = self.proposals.propose(current, draws)
        rows = objects.flatten(1).numpy().astype(self.tempered_posterior.dtype)
        prior = np.array([self.prior_logp_func(row) for row in rows]).reshape(-1)
        likelihood = np.array([self.likelihood_logp_func(row) for row in rows]).reshape(-1)
        posterior = prior + self.beta * likelihood
        change = torch.from_numpy(posterior - np.asarray(self.tempered_posterior_logp))
        log_ratio = (change + log_hastings).clamp(max=0.0)
        is_accepted = draws.role("accept").bernoulli(log_ratio).numpy()
        self.tempered_posterior[is_accepted] = rows[is_accepted]
        moved = {"prior_logp": prior, "likelihood_logp": likelihood, "tempered_posterior_logp": posterior}
        for name, values in moved.items():
            getattr(self, name)[is_accepted] = values[is_accepted]
        return float(log_ratio.exp().mean())


def _check_size(proposals: PairProposals, num_entries: int, names: Sequence[str]) -> None:
    if num_entries != proposals.num_entries:
        raise OptionError(
            f"{', '.join(names)} have {num_entries} entries and the objects of the pair {proposals.num_entries}; give "
            "the variables that the pair was trained for, and no others"
        )
