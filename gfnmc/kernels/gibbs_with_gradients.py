"""Gibbs with gradients: change one site to one value, chosen by how a gradient says the log-density would change.

    d_{i,v} = g_{i,v} - g_{i,x_i},    g = gradient of the relaxed log-density at x,
    q(x with v at i | x)  proportional to  exp(d_{i,v} / temperature)    over v != x_i

with beta d for d where the kernel is tempered. At temperature 2 and where the relaxed log-density is linear in each
site's weights, this is the locally balanced proposal with g(t) = sqrt(t), for one gradient a step in place of all the
single changes. The true log-density accepts or rejects, so the chain is exact however poor the approximation.

Reference: Grathwohl, Swersky, Hashemi, Duvenaud and Maddison 2021 (2102.04509), "Oops I took a gradient".
"""

import math

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, EnergyError, NonFiniteEnergyError, OptionError
from gfnmc.core.numerics import masked_log_softmax
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.kernels.base import Reach
from gfnmc.kernels.informed import InformedKernel, Move, SiteChanges, chosen, draw_change
from gfnmc.targets.base import Target
from gfnmc.targets.checks import checked_log_densities
from gfnmc.targets.relaxed import object_weights


class SiteGradients(SiteChanges):
    """Changes of one site, to first order: by the gradient of the target's `log_prob_relaxed`.

    Value and gradient at an object count as one call.

    Args:
        target: What to ask; it declares `values`.

    Raises:
        CapabilityError: If it does not, or has no relaxed log-density.
    """

    is_exact = False
    counted_as = "gradient_calls"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        if not target.offers_relaxed:
            raise CapabilityError(
                f"{target.name} has no relaxed log-density to take a gradient of: implement `log_prob_relaxed`, or use "
                "LocallyBalanced"
            )

    def num_calls(self, x: Tensor) -> Int64[Tensor, " batch"]:
        return torch.ones(len(x), dtype=torch.int64, device=x.device)

    def look(
        self, x: Tensor, log_prob: Float64[Tensor, " batch"], rows: Int64[Tensor, " batch"]
    ) -> Float64[Tensor, "batch changes"]:
        weights, source = object_weights(self.target, x), f"{self.target.name}.log_prob_relaxed"
        with torch.enable_grad():
            leaves = weights.clone().requires_grad_()
            value = self.target.log_prob_relaxed(leaves)
            checked_log_densities(value.detach(), source, x, rows)
            gradient = None
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
        if gradient is None:
            raise EnergyError(f"{source} returned something without a gradient; compute it from the weights in torch")
        is_wrong = ~gradient.isfinite().flatten(1).all(1)
        if is_wrong.any():
            row = int(is_wrong.nonzero()[0, 0])
            bad = float(gradient[row][~gradient[row].isfinite()][0])
            raise NonFiniteEnergyError(
                f"the gradient of {source} is {bad} in row {int(rows[row])} for the object {x[row].tolist()}; it is "
                "finite where an object is possible",
                row=int(rows[row]),
                value=bad,
                state=x[row].tolist(),
            )
        return (gradient - (gradient * weights).sum(-1, keepdim=True)).flatten(1)


class GibbsWithGradients(InformedKernel):
    """Single-site Metropolis-Hastings, informed by a gradient.

    A step costs one target call, a gradient call too, for value and gradient at the proposal; one more where the
    gradient at the current object is not known from the step before, and no gradient at impossible proposals and at
    inverse temperature 0.

    Args:
        environment: How objects are built.
        target: What to sample; it declares `values` and offers `log_prob_relaxed`.
        temperature: Divides the changes of the log-density; above 2 proposes more timidly.

    Raises:
        CapabilityError: If the environment does not build every assignment of values to sites, the target declares no
            `values` or has no relaxed log-density, or it is noisy.
        OptionError: If the temperature is not finite and positive.
    """

    name = "Gibbs with gradients"
    calls_per_step = 2

    def __init__(self, environment: DiscreteEnvironment, target: Target, temperature: float = 2.0) -> None:
        if not 0.0 < temperature < math.inf:
            raise OptionError(f"a temperature of {temperature}; it must be finite and positive")
        check_assignments(environment, self.name)
        self.surroundings: SiteGradients
        super().__init__(environment, target, SiteGradients(target))
        self.temperature = float(temperature)

    @property
    def reach(self) -> Reach:
        return Reach.CONNECTED

    @property
    def may_stay(self) -> bool:
        # On a flat target every move is accepted.
        return False

    def _draw(self, draws: Draws, position: Tensor, log_changes: Float64[Tensor, "chains changes"]) -> Move:
        return draw_change(draws, self.surroundings, position, self._tempered(log_changes) / self.temperature)

    def _log_back(
        self, position: Tensor, move: Move, log_changes: Float64[Tensor, "chains changes"]
    ) -> Float64[Tensor, " chains"]:
        assert move.changes is not None
        log_weights = self._tempered(log_changes) / self.temperature
        law = masked_log_softmax(log_weights, self.surroundings.mask(move.position))
        site = move.changes // self.surroundings.num_values
        value = self.surroundings.present(position).gather(1, site[:, None])[:, 0]
        return chosen(law, site * self.surroundings.num_values + value)


def check_assignments(environment: DiscreteEnvironment, kernel_name: str) -> None:
    """Refuse an environment whose objects are not all assignments of values to sites.

    Raises:
        CapabilityError: If they are not.
    """
    if not environment.builds_every_assignment:
        raise CapabilityError(
            f"{type(environment).__name__} does not build every assignment of values to sites, and {kernel_name} may "
            "put any value at any site; use LocallyBalanced"
        )
