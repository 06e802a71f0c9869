"""Random networks of every kind on the tiny environments that they can act on."""

from collections.abc import Callable

import torch

from gfnmc.core.draws import normal
from gfnmc.core.symmetry import Symmetry
from gfnmc.environments import Direction, DiscreteEnvironment, GraphBuilding, HyperGrid, Lattice
from gfnmc.policies import (
    AveragedPolicy,
    CanonicalPolicy,
    DiscretePolicy,
    GFlowNet,
    MessagePassingPolicy,
    MLPPolicy,
    SymmetrisedPolicy,
    TransformerPolicy,
)
from tests.exact.cases import Subsets

ENVIRONMENTS: dict[str, Callable[[], DiscreteEnvironment]] = {
    "any order": lambda: Lattice((2,), (0, 1, 2)),
    "fixed order": lambda: Lattice((3,), (-1, 1), order="fixed", site_order=(1, 0, 2)),
    "learned order": lambda: Lattice((2,), (0, 1, 2), order="learned"),
    "hypergrid": lambda: HyperGrid(2, 3),
    "subsets": Subsets,
    "graph": lambda: GraphBuilding(3),
}

# Relabellings of the lattices above: sites that change places, and values that go round or change names.
SYMMETRIES = {
    "any order": (Symmetry("swap", (1, 0), (0, 1, 2)), Symmetry("go round", (0, 1), (1, 2, 0))),
    "fixed order": (Symmetry("flip", (0, 1, 2), (1, 0)),),
    "learned order": (Symmetry("swap and go round", (1, 0), (1, 2, 0)),),
}


def _network(kind: type[DiscretePolicy], **sizes: int) -> Callable[..., DiscretePolicy]:
    def make(environment: DiscreteEnvironment, direction: Direction, **options: object) -> DiscretePolicy:
        return randomised(kind(environment, direction, **sizes, **options))

    return make


NETWORKS: dict[str, Callable[..., DiscretePolicy]] = {
    "mlp": _network(MLPPolicy, hidden_size=8),
    "direct mlp": _network(MLPPolicy, hidden_size=8, direct=True),
    "transformer": _network(TransformerPolicy, hidden_size=8, num_heads=2),
    "message passing": _network(MessagePassingPolicy, hidden_size=8, num_layers=2),
}


def randomised(policy: DiscretePolicy, seed: int = 5) -> DiscretePolicy:
    """Move every weight of a network, so that its law is far from uniform and no weight is left at zero."""
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            scale = max(1.0, 0.7 / float(parameter.abs().mean().clamp(min=1e-3))) if "head" in name else 1.0
            noise = normal(seed, f"{policy.direction.value}/{name}", tuple(parameter.shape), parameter.dtype)
            parameter.copy_(scale * parameter + 0.5 * noise)
    return policy


def network_pair(
    network: str, environment: DiscreteEnvironment, *, dtype: torch.dtype = torch.float64, num_conditions: int = 0
) -> GFlowNet:
    """A random pair of networks of one kind."""
    policies = [
        NETWORKS[network](environment, direction, dtype=dtype, num_conditions=num_conditions) for direction in Direction
    ]
    return GFlowNet(*policies, condition_names=tuple(f"condition {place}" for place in range(num_conditions)))


def symmetrised_pair(kind: type[SymmetrisedPolicy], pair: GFlowNet, symmetries: tuple[Symmetry, ...]) -> GFlowNet:
    """A pair of networks made equivariant."""
    policies = [kind(policy, symmetries) for policy in (pair.forward, pair.backward)]
    return GFlowNet(*policies, condition_names=pair.condition_names)


def _plain(network: str, environment: str) -> Callable[..., GFlowNet]:
    return lambda **options: network_pair(network, ENVIRONMENTS[environment](), **options)


def _symmetrised(kind: type[SymmetrisedPolicy], network: str, environment: str) -> Callable[..., GFlowNet]:
    return lambda **options: symmetrised_pair(kind, _plain(network, environment)(**options), SYMMETRIES[environment])


NETWORK_PAIRS: dict[str, Callable[..., GFlowNet]] = {
    f"{network}, {environment}": _plain(network, environment)
    for environment in ENVIRONMENTS
    for network in NETWORKS
    # Nothing joins the coordinates of a grid, or the items of a set.
    if network != "message passing" or environment not in ("hypergrid", "subsets")
}
SYMMETRISED_PAIRS: dict[str, Callable[..., GFlowNet]] = {
    f"{kind.__name__} of {network}, {environment}": _symmetrised(kind, network, environment)
    for environment in SYMMETRIES
    for kind in (AveragedPolicy, CanonicalPolicy)
    for network in ("direct mlp", "transformer")
}
ALL_PAIRS = NETWORK_PAIRS | SYMMETRISED_PAIRS
