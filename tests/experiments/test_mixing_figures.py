"""Figures of mixing: moves between modes, and ranks that show a chain that stays apart."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from gfnmc.environments import Lattice
from gfnmc.experiments.mixing_figures import mixing_figures
from gfnmc.kernels import RandomWalk
from gfnmc.sampling import Chains, sample
from gfnmc.targets import Ising, from_function

TARGET = Ising((2, 2), coupling=0.2)


@pytest.fixture(scope="module")
def chains() -> Chains:
    kernel = RandomWalk(Lattice.for_target(TARGET), TARGET)
    return sample(kernel, num_chains=20, num_samples=400, seed=1, progress_bar=False)


def test_moves_are_counted_from_mode_to_mode(chains: Chains) -> None:
    moves = mixing_figures(chains, "log_prob")["transitions"]
    ids = chains.mode_ids(chains.samples)
    assert ids is not None
    counted = np.zeros((2, 2), dtype=int)
    for chain in ids:
        inside = chain[chain >= 0]
        for before, after in itertools.pairwise(inside):
            counted[before, after] += before != after
    assert [moves[0][1], moves[1][0]] == [counted[0, 1], counted[1, 0]]


def test_chains_that_mixed_have_equal_shares_and_one_that_stays_apart_is_first(chains: Chains) -> None:
    mixed = mixing_figures(chains, "magnetisation")["ranks"]
    assert len(mixed["chain"]) == 16
    assert 0.3 < np.min(mixed["share"]) <= np.max(mixed["share"]) < 2.0
    position = chains.x.clone()
    position[7] = 1
    stays = replace(chains, samples=replace(chains.samples, position=position))
    ranks = mixing_figures(stays, "magnetisation")["ranks"]
    assert ranks["chain"][0] == 7
    # All of its draws are among the highest of all.
    assert ranks["share"][0][-1] > 3.0
    assert not np.any(ranks["share"][0][:-1])


def test_the_indicator_of_a_mode_has_two_pieces(chains: Chains) -> None:
    ranks = mixing_figures(chains, "in spins up")["ranks"]
    assert ranks["statistic"] == "in spins up"
    assert {len(row) for row in ranks["share"]} == {2}


@pytest.mark.parametrize("share_of_ones", [0.001, 0.999])
def test_rare_values_are_a_piece_of_their_own(chains: Chains, share_of_ones: float) -> None:
    position = -torch.ones_like(chains.x)
    where = torch.from_numpy(np.random.default_rng(0).random((20, 400)) < share_of_ones)
    position[where] = 1
    rare = replace(chains, samples=replace(chains.samples, position=position))
    assert {len(row) for row in mixing_figures(rare, "magnetisation")["ranks"]["share"]} == {2}


def test_a_constant_has_no_ranks_and_a_target_without_modes_no_moves(chains: Chains) -> None:
    still = replace(chains, samples=replace(chains.samples, position=torch.ones_like(chains.x)))
    assert mixing_figures(still, "magnetisation")["ranks"]["share"] == []
    plain = replace(chains, target=from_function(TARGET.log_prob, (2, 2), values=(-1, 1), dtype=torch.int8))
    assert mixing_figures(plain, "log_prob")["transitions"] == []
    assert mixing_figures(plain, "in spins up")["ranks"]["share"] == []
