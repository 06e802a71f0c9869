"""Distances between the draws of chains and the exact law, or a reference, each beside its floor."""

from typing import Any

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from gfnmc.diagnostics.distances import iid_jensen_shannon, iid_total_variation, jensen_shannon, total_variation
from gfnmc.diagnostics.estimates import Reference
from gfnmc.diagnostics.two_samples import energy_distance, maximum_mean_discrepancy, sliced_wasserstein
from gfnmc.sampling.chains import Chains
from gfnmc.targets.base import ExactSolution

Row = dict[str, Any]

MOST_OBJECTS = 1_000
"""Most draws, and objects of a reference, that are compared pair by pair."""


def distance_figures(
    chains: Chains, exact: ExactSolution | None, reference: Reference | None, worst_ess: float | None
) -> list[Row]:
    """Return a row a distance.

    Args:
        chains: The draws.
        exact: The truth: total variation and Jensen-Shannon divergence where it lists the objects.
        reference: Independent objects: energy distance, sliced Wasserstein distance and squared MMD, of up to 1,000
            evenly spaced draws.
        worst_ess: Effective draws of the worst scalar, which the second floor is for; None where it never moved.
    """
    rows = _exact_distances(chains, exact, worst_ess)
    return rows if reference is None else rows + _sample_distances(chains, reference, worst_ess)


def _exact_distances(chains: Chains, exact: ExactSolution | None, worst_ess: float | None) -> list[Row]:
    if exact is None or exact.log_pmf is None:
        return []
    index = exact.index(chains.x.flatten(0, 1))
    rows = []
    for name, measure, floor in (
        ("total variation", total_variation, iid_total_variation),
        ("Jensen-Shannon divergence, nats", jensen_shannon, iid_jensen_shannon),
    ):
        rows.append(
            {
                "name": name,
                "to": "the exact law",
                "value": measure(index, exact.log_pmf),
                "num_draws": len(index),
                "num_reference": None,
                "iid_floor": floor(exact.log_pmf, len(index)),
                "iid_floor_at_worst_ess": None if worst_ess is None else floor(exact.log_pmf, worst_ess),
            }
        )
    return rows


def _sample_distances(chains: Chains, reference: Reference, worst_ess: float | None) -> list[Row]:
    draws = _evenly(chains.x.flatten(0, 1), MOST_OBJECTS)
    objects = _evenly(reference.objects, MOST_OBJECTS)
    if len(draws) < 2:
        return []
    rows = []
    for name, measure in (
        ("energy distance", energy_distance),
        ("sliced Wasserstein", sliced_wasserstein),
        ("squared MMD", maximum_mean_discrepancy),
    ):
        found = measure(draws, objects)
        rows.append(
            {
                "name": name,
                "to": reference.name,
                "value": found.value,
                "num_draws": found.num_draws,
                "num_reference": found.num_reference,
                "iid_floor": found.iid_floor,
                "iid_floor_at_worst_ess": None if worst_ess is None else found.floor_of(min(worst_ess, len(draws))),
            }
        )
    return rows


def _evenly(objects: Shaped[Tensor, "n *event"], most: int) -> Shaped[Tensor, "some *event"]:
    """Return at most so many objects, evenly spaced."""
    return objects[np.linspace(0, len(objects) - 1, min(most, len(objects))).astype(int)]
