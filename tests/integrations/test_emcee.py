"""Walkers that start from exact draws stay exact, in emcee's own sampler."""

import emcee
import numpy as np
import pytest
import torch
from emcee.moves import MHMove

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import ObjectError
from gfnmc.environments import Lattice
from gfnmc.integrations.emcee import GFlowNetMove
from gfnmc.kernels import branch
from gfnmc.targets import from_function
from tests.integrations.proofs import break_ratio
from tests.support import chi_square, random_pair

NUM_WALKERS = 5_000
ENVIRONMENT = Lattice((4,), (0, 1))
TARGET = from_function(
    lambda x: torch.sin(2.0 * (x.double() @ torch.tensor([1.0, 2.0, 3.0, 5.0]).double())), (4,), values=(0, 1)
)


def log_prob(coords):
    return TARGET.log_prob(torch.from_numpy(coords[:, :4]).long()).numpy()


def flip(coords, random):
    flipped = coords.copy()
    rows, columns = np.arange(len(coords)), random.randint(4, size=len(coords))
    flipped[rows, columns] = 1 - flipped[rows, columns]
    return flipped, np.zeros(len(coords))


def sampler(moves, num_walkers=NUM_WALKERS, num_coordinates=4, seed=0, **options):
    made = emcee.EnsembleSampler(num_walkers, num_coordinates, log_prob, moves=moves, vectorize=True, **options)
    made._random.seed(seed)
    return made


def exact_start():
    return TARGET.exact().sample(PhiloxDraws(0, "start", NUM_WALKERS)).double().numpy()


def surprise(moves):
    """Return the statistic of the last walkers, and the limit that it keeps below."""
    final = sampler(moves).run_mcmc(exact_start(), 3, skip_initial_state_check=True).coords
    exact = TARGET.exact()
    counts = torch.bincount(exact.index(torch.from_numpy(final).long()), minlength=16)
    return chi_square(counts, exact.log_pmf.exp())


@pytest.mark.parametrize("law", [branch.Uniform(), branch.PrefixUniform()], ids=["suffix", "prefix"])
def test_walkers_stay_exact(law):
    move = GFlowNetMove(random_pair(ENVIRONMENT), law)
    statistic, limit = surprise(move)
    assert statistic < limit
    # In a mixture, too, and without the correction or with its inverse not.
    statistic, limit = surprise([(move, 0.7), (MHMove(flip), 0.3)])
    assert statistic < limit
    for factor in (0.0, -1.0):
        break_ratio(move.proposals, factor)
        statistic, limit = surprise(move)
        assert statistic > 2 * limit


def test_a_run_that_goes_on_is_the_uninterrupted_one(tmp_path):
    def moves():
        return [(GFlowNetMove(random_pair(ENVIRONMENT)), 0.6), (MHMove(flip), 0.4)]

    start = GFlowNetMove(random_pair(ENVIRONMENT)).start(6, seed=2)
    whole = sampler(moves(), 6)
    whole.run_mcmc(start, 12, skip_initial_state_check=True)
    file = str(tmp_path / "chain.h5")
    first = sampler(moves(), 6, backend=emcee.backends.HDFBackend(file))
    first.run_mcmc(start, 5, skip_initial_state_check=True)
    # A new sampler that knows nothing but the file.
    again = emcee.EnsembleSampler(
        6, 4, log_prob, moves=moves(), vectorize=True, backend=emcee.backends.HDFBackend(file)
    )
    again.run_mcmc(None, 7, skip_initial_state_check=True)
    assert np.array_equal(whole.get_chain(), again.get_chain())
    assert not np.array_equal(whole.get_chain()[5:10], whole.get_chain()[:5])


def test_other_columns_stay_where_they_are():
    move = GFlowNetMove(random_pair(ENVIRONMENT), columns=[2, 0, 1, 4])
    coords = np.insert(move.start(50), 3, 0.25, axis=1)
    proposed, factors = move.get_proposal(coords, np.random.RandomState(0))
    assert (proposed[:, 3] == 0.25).all()
    alone, same = GFlowNetMove(random_pair(ENVIRONMENT)).get_proposal(coords[:, [2, 0, 1, 4]], np.random.RandomState(0))
    assert np.array_equal(proposed[:, [2, 0, 1, 4]], alone)
    assert np.array_equal(factors, same)
    assert not np.array_equal(proposed, coords)


def test_a_walker_that_another_move_took_out_of_the_space_is_named():
    move = GFlowNetMove(random_pair(ENVIRONMENT))
    coords = move.start(4)
    coords[2, 1] = 0.5
    with pytest.raises(ObjectError, match="row 2 is"):
        sampler(move, 4).run_mcmc(coords, 1, skip_initial_state_check=True)
