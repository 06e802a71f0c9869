import math

import numpy as np
import pytest
import torch

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, NonFiniteEnergyError, ObjectError
from gfnmc.environments import Lattice, enumerate_states
from gfnmc.integrations.proposals import PairProposals, seed_from, step_row
from gfnmc.kernels import SuffixResampling, branch
from gfnmc.targets import from_function
from tests.integrations.proofs import break_ratio, error_of, normalised, transitions
from tests.support import Stairs, is_identical, random_pair

LATTICE = Lattice((2,), (0, 2), dtype=torch.int8)


def density(x):
    return torch.sin(2.0 * x.double().flatten(1).sum(1)) - 0.3 * x.double().flatten(1)[:, 0]


def log_prob(row):
    return float(density(torch.from_numpy(row)[None])[0])


def test_a_step_of_one_row_leaves_the_density_invariant():
    environment = Stairs(2)
    objects = enumerate_states(environment).objects
    pmf = normalised(density(objects))
    proposals = PairProposals(random_pair(environment))

    def move(x):
        moved = step_row(proposals, x.numpy().astype(np.float64), log_prob, np.random.default_rng(0))
        return torch.from_numpy(moved.row).to(x.dtype)

    assert error_of(transitions(proposals, move, objects), pmf) < 1e-12
    for factor in (0.0, -1.0):
        break_ratio(proposals, factor)
        assert error_of(transitions(proposals, move, objects), pmf) > 1e-3


def test_rows_are_what_the_kernel_proposes():
    environment = Lattice((2, 3), (0, 2), dtype=torch.int8)
    pair = random_pair(environment)
    target = from_function(density, (2, 3), values=(0, 2), dtype=torch.int8)
    proposals = PairProposals(pair, branch.Fixed(3))
    rows = proposals.start_rows(300, seed=1)
    assert rows.shape == (300, 6)
    assert rows.dtype == np.float64
    assert {*np.unique(rows)} == {0.0, 2.0}
    for dtype in (np.float64, np.int64):
        proposed, log_ratio = proposals.propose_rows(rows.astype(dtype), 5)
        assert proposed.dtype == dtype
        kernel = SuffixResampling(pair, target, branch.Fixed(3))
        wanted, log_hastings = kernel.propose(proposals.objects(rows), PhiloxDraws(5, "proposal", 300))
        assert np.array_equal(proposed, wanted.flatten(1).numpy())
        assert is_identical(torch.from_numpy(log_ratio), log_hastings)
    assert not np.array_equal(proposed, proposals.propose_rows(rows, 6)[0])


def test_threads_are_left_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        proposals = PairProposals(random_pair(LATTICE))
        seen = []
        kernel = proposals._kernel

        class Watched:
            def propose(self, objects, draws):
                seen.append(torch.get_num_threads())
                return kernel.propose(objects, draws)

        proposals._kernel = Watched()
        proposals.propose_rows(np.zeros((1, 2)), 0)
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_is_no_object_is_refused():
    proposals = PairProposals(random_pair(LATTICE))
    with pytest.raises(ObjectError, match=r"row 1 is \[0.0, 1.9\], which is no object of the pair"):
        proposals.propose_rows(np.array([[0.0, 2.0], [0.0, 1.9]]), 0)
    with pytest.raises(ObjectError, match="has a value that is not one of"):
        proposals.propose_rows(np.array([[0.0, 1.0]]), 0)
    with pytest.raises(ObjectError, match=r"rows of 2 numbers and the array has shape \(1, 3\)"):
        proposals.propose_rows(np.zeros((1, 3)), 0)
    with pytest.raises(CapabilityError, match="the framework knows the density"):
        proposals._kernel.target.log_prob(torch.zeros(1, 2))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_densities_that_are_no_numbers_are_errors(value):
    proposals = PairProposals(random_pair(LATTICE))
    with pytest.raises(NonFiniteEnergyError, match="it must be finite, or -inf for the impossible"):
        step_row(proposals, np.zeros(2), lambda row: value, np.random.default_rng(0))


def test_impossible_objects_are_rejected_and_no_place_to_start():
    proposals = PairProposals(random_pair(LATTICE), branch.Fixed(2))
    start = np.zeros(2)

    def only_the_start(row):
        return 0.0 if not row.any() else -math.inf

    generator = np.random.default_rng(0)
    steps = [step_row(proposals, start, only_the_start, generator) for _ in range(20)]
    assert all(np.array_equal(step.row, start) for step in steps)
    rejected = [step for step in steps if not step.is_accepted]
    assert rejected
    assert all(step.acceptance_rate < 1.0 for step in rejected)
    with pytest.raises(ObjectError, match="where the model has density zero; start it elsewhere"):
        step_row(proposals, np.array([2.0, 2.0]), only_the_start, generator)


def test_seeds_come_from_either_kind_of_generator():
    for make in (np.random.RandomState, np.random.default_rng):
        first, second = seed_from(make(3)), seed_from(make(3))
        assert first == second
        assert first != seed_from(make(4))
        assert first.bit_length() > 64
