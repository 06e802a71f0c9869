"""Proposals that somebody else accepts: by the textbook rule, and the law of a step of the kernel itself."""

import pytest
import torch

from gfnmc.environments import HyperGrid, Lattice, enumerate_states
from gfnmc.kernels import IndependenceMH, SuffixResampling, branch
from gfnmc.targets import from_function
from gfnmc.testing import move_matrix, transition_matrix
from tests.support import Stairs, assert_close, random_pair

ENVIRONMENTS = {
    "lattice": Lattice((2,), (0, 2)),
    "grid": HyperGrid(2, 2),
    "stairs": Stairs(3),
}
KERNELS = {
    "suffix": lambda pair, target: SuffixResampling(pair, target),
    "prefix": lambda pair, target: SuffixResampling(pair, target, branch.PrefixUniform()),
    "independence": IndependenceMH,
}


def density(x):
    return torch.sin(2.0 * x.double().sum(1)) - 0.3 * x.double()[:, 0]


def accepted_elsewhere(kernel, objects, factor=1.0):
    """Return the transition matrix of proposals that are accepted here."""

    def moved(draws, rows):
        x = objects[rows]
        proposal, log_ratio = kernel.propose(x, draws)
        assert proposal.shape == x.shape
        assert log_ratio.dtype == torch.float64
        log_accept = density(proposal) - density(x) + factor * log_ratio
        is_accepted = draws.bernoulli(log_accept.clamp(max=0.0))
        return torch.where(is_accepted[:, None], proposal, x)

    return move_matrix(moved, objects)


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_proposals_and_ratios_make_an_exact_chain(name, kind):
    environment = ENVIRONMENTS[name]
    objects = enumerate_states(environment).objects
    target = from_function(density, tuple(objects.shape[1:]))
    kernel = KERNELS[kind](random_pair(environment), target)
    pmf = density(objects).softmax(0)
    matrix = accepted_elsewhere(kernel, objects)
    assert_close(pmf @ matrix, pmf, 1e-12)
    assert_close(matrix, transition_matrix(kernel, objects), 1e-12)
    for factor in (0.0, -1.0):
        wrong = accepted_elsewhere(kernel, objects, factor)
        assert (pmf @ wrong - pmf).abs().max() > 1e-3
