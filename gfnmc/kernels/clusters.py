"""What the cluster methods share: the bonds of a target, drawn active or not, and the clusters that they make.

    R(x) = product over bonds of exp(K_b [bond b is satisfied])  *  product over sites of exp(h_i s_i),    K_b >= 0

Each factor of a bond is 1 + (exp(K_b) - 1) [satisfied], the sum over a bond that is active or not; so given x, a
satisfied bond is active with probability 1 - exp(-K_b), and given the active bonds all that is left to weigh is the
field. Sites that active bonds join are a cluster, and its values may be changed together: any such change keeps the
active bonds satisfied. An Ising bond J s s' has K = 2 |J| and is satisfied where J s s' > 0, a Potts bond between
equal colours has its coupling for K. To the power beta of R, K and h become beta K and beta h.

Reference: Fortuin and Kasteleyn 1972, "On the random-cluster model".
"""

import copy
import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError
from gfnmc.core.tempering import InverseTemperature, checked_inverse_temperature
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.kernels.base import Info, Kernel, KernelType, Reason, State
from gfnmc.targets.base import Target, checked_log_prob
from gfnmc.targets.edwards_anderson import EdwardsAnderson
from gfnmc.targets.ising import Ising
from gfnmc.targets.potts import Potts


class BondModel(NamedTuple):
    """A target as cluster methods see it; the values of its sites are evenly spaced.

    Attributes:
        bonds: The sites that each bond joins.
        strength: K of each bond, nats, 0 or above.
        wants_equal: Whether a bond is satisfied by equal values; else by different ones, of which there are two.
        field: h of each site, nats; 0 where there are more than two values.
    """

    bonds: Int64[Tensor, "bonds 2"]
    strength: Float64[Tensor, " bonds"]
    wants_equal: Bool[Tensor, " bonds"]
    field: Float64[Tensor, " sites"]


class ClusterKernel(Kernel):
    """A kernel that changes whole clusters; nothing is ever rejected, and a step asks for one log-density.

    Args:
        environment: How objects are built.
        target: What to sample: `Ising`, `EdwardsAnderson` or `Potts`.

    Raises:
        CapabilityError: If the target is none of them, or its bonds favour different values of more than two.
    """

    def __init__(self, environment: DiscreteEnvironment, target: Target) -> None:
        self.environment = environment
        self.target = target
        self._model = bond_model(target)
        self._values = torch.tensor(target.values, dtype=target.dtype)

    @abstractmethod
    def _turns(
        self,
        draws: Draws,
        values: Int64[Tensor, "chains sites"],
        labels: Int64[Tensor, "chains sites"],
        power: Float64[Tensor, " chains"],
    ) -> tuple[Int64[Tensor, "chains sites"], dict[str, Tensor]]:
        """Return by how many values each site is turned, the same within a cluster, and what is worth recording."""

    def start(self, draws: Draws) -> Tensor:
        """Return objects with every site drawn uniformly: exact draws of the law at inverse temperature 0."""
        num_values, num_sites = len(self._values), len(self._model.field)
        uniform = torch.full((num_values,), -math.log(num_values), dtype=torch.float64)
        sites = draws.role("value").repeated(num_sites).categorical(uniform)
        return self._values[sites].reshape(-1, *self.target.event_shape)

    def tempered(self: KernelType, inverse_temperature: InverseTemperature) -> KernelType:
        tempered = copy.copy(self)
        tempered.inverse_temperature = checked_inverse_temperature(inverse_temperature)
        return tempered

    @torch.no_grad()
    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        num_chains = len(state.position)
        power = torch.as_tensor(self.inverse_temperature, dtype=torch.float64).expand(num_chains)
        lowest, spacing = self._values[0], self._values[1] - self._values[0]
        values = ((state.position.flatten(1) - lowest) // spacing).to(torch.int64)
        labels = find_clusters(self._model.bonds, self._draw_active(draws, values, power), values.shape[1])
        turns, extras = self._turns(draws, values, labels, power)
        turned = self._values[(values + turns) % len(self._values)].reshape(state.position.shape)
        log_prob = checked_log_prob(self.target, turned)
        zero = torch.zeros(num_chains, dtype=torch.int64)
        info = Info(
            proposal=turned,
            is_accepted=torch.ones(num_chains, dtype=torch.bool),
            log_ratio=torch.zeros_like(log_prob),
            acceptance_rate=torch.ones_like(log_prob),
            num_back_steps=zero,
            num_forward_steps=zero,
            target_calls=zero + 1,
            policy_calls=zero,
            reason=torch.full_like(zero, Reason.ACCEPTED, dtype=torch.int8),
            extras=extras,
        )
        return State(turned, log_prob, state.cache), info

    @property
    def _may_all_part(self) -> bool:
        """Whether every bond, satisfied or not, may be found inactive, so that every site may be on its own."""
        highest = torch.as_tensor(self.inverse_temperature, dtype=torch.float64).max()
        return bool((log_active_probability(self._model.strength, highest.expand(1)) < 0.0).all())

    def _draw_active(
        self, draws: Draws, values: Int64[Tensor, "chains sites"], power: Float64[Tensor, " chains"]
    ) -> Bool[Tensor, "chains bonds"]:
        model = self._model
        if len(model.bonds) == 0:
            return torch.zeros(len(values), 0, dtype=torch.bool)
        ends = values[:, model.bonds]
        is_satisfied = (ends[:, :, 0] == ends[:, :, 1]) == model.wants_equal
        log_probability = log_active_probability(model.strength, power)
        decides = is_satisfied & (log_probability > -torch.inf)
        bond_draws = draws.role("bonds").repeated(len(model.bonds))
        return bond_draws.bernoulli(log_probability.flatten(), decides.flatten()).reshape(decides.shape)


def bond_model(target: Target) -> BondModel:
    """Return a target as cluster methods see it.

    Raises:
        CapabilityError: If they cannot sample the target.
    """
    if isinstance(target, Ising) and _has_energy_of(target, Ising):
        return BondModel(target.bonds, 2.0 * target.coupling.abs(), target.coupling > 0, target.field.flatten())
    no_field = torch.zeros(math.prod(target.event_shape), dtype=torch.float64)
    if isinstance(target, EdwardsAnderson) and _has_energy_of(target, EdwardsAnderson):
        return BondModel(target.bonds, 2.0 * target.coupling.abs(), target.coupling > 0, no_field)
    if isinstance(target, Potts) and _has_energy_of(target, Potts):
        if target.coupling < 0:
            raise CapabilityError(
                f"{target.name} has coupling {target.coupling}: bonds that favour different colours make no clusters "
                "that can be turned together; use Gibbs"
            )
        strength = torch.full((len(target.bonds),), target.coupling, dtype=torch.float64)
        return BondModel(target.bonds, strength, torch.ones_like(strength, dtype=torch.bool), no_field)
    raise CapabilityError(
        "cluster methods know the bonds of Ising, EdwardsAnderson and Potts with the package's own energies, not those "
        f"of {target.name} ({type(target).__name__}); use Gibbs, or a kernel that proposes by a pair"
    )


def log_active_probability(
    strength: Float64[Tensor, " bonds"], power: Float64[Tensor, " chains"]
) -> Float64[Tensor, "chains bonds"]:
    """Return log(1 - exp(-beta K)), the log-probability that a satisfied bond is active, nats; -inf where K is 0."""
    return (-torch.expm1(-power[:, None] * strength)).log()


def find_clusters(
    bonds: Int64[Tensor, "bonds 2"], is_active: Bool[Tensor, "chains bonds"], num_sites: int
) -> Int64[Tensor, "chains sites"]:
    """Return the lowest site of the cluster that each site is in.

    Every active bond hooks the higher one of its ends' labels onto the lower, then every site takes the label of its
    label until none has another; both are repeated until no bond joins two labels. About log(num_sites) rounds.

    Args:
        bonds: The sites that each bond joins.
        is_active: Which bonds join their sites, a chain.
        num_sites: Number of sites.
    """
    labels = torch.arange(num_sites).expand(len(is_active), num_sites).contiguous()
    while True:
        first, second = labels[:, bonds[:, 0]], labels[:, bonds[:, 1]]
        low = torch.minimum(first, second)
        high = torch.where(is_active, torch.maximum(first, second), low)
        if torch.equal(low, high):
            return labels
        labels = _followed(labels.scatter_reduce(1, high, low, "amin"))


def _has_energy_of(target: Target, kind: type[Target]) -> bool:
    """Say whether a target is one of the package's; a child with terms of its own would be sampled without them."""
    return type(target).log_prob is kind.log_prob


def _followed(labels: Int64[Tensor, "chains sites"]) -> Int64[Tensor, "chains sites"]:
    while not torch.equal(further := labels.gather(1, labels), labels):
        labels = further
    return labels
