"""Initial weights, and the bound on how many are made of a description that somebody else may have written."""

import pytest
import torch

from gfnmc.core.errors import OptionError
from gfnmc.policies.weights import InitialWeights, at_most


def test_a_bound_holds_for_all_weights_of_a_block_together() -> None:
    weights = InitialWeights(0, "test", torch.float64)
    with at_most(10):
        weights.normal("a", 2, 3, scale=1.0)
        weights.zeros(4)
        with pytest.raises(OptionError, match="more than the 0"):
            weights.ones(1)
    assert len(weights.ones(100)) == 100


def test_no_memory_is_taken_for_what_is_refused() -> None:
    weights = InitialWeights(0, "test", torch.float64)
    with at_most(10):
        for make in (weights.zeros, weights.ones, lambda *shape: weights.normal("a", *shape, scale=1.0)):
            with pytest.raises(OptionError, match="weights of shape"):
                make(10**9, 10**9)
