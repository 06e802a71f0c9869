"""Relabellings of sites and values: they act as written, compose and undo each other."""

import itertools

import jaxtyping
import pytest
import torch

from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.core.symmetry import Symmetry

TURN = Symmetry("turn", (1, 2, 0), (0, 1))
SWAP = Symmetry("swap", (1, 0, 2), (1, 0))
X = torch.tensor(list(itertools.product(range(2), repeat=3)))


def test_apply_is_the_definition() -> None:
    for symmetry in (TURN, SWAP):
        y = symmetry.apply(X)
        for before, after in zip(X.tolist(), y.tolist(), strict=True):
            for site in range(3):
                assert after[symmetry.sites[site]] == symmetry.values[before[site]]
    assert TURN.apply(torch.tensor([[1, 0, 0]])).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64])
def test_apply_keeps_the_dtype_and_its_input(dtype: torch.dtype) -> None:
    x = X.to(dtype)
    assert SWAP.apply(x).dtype == dtype
    assert torch.equal(x, X.to(dtype))
    assert SWAP.apply(x[:0]).shape == (0, 3)


def test_after_does_the_other_first() -> None:
    assert torch.equal(SWAP.after(TURN).apply(X), SWAP.apply(TURN.apply(X)))
    # Negative control: these two do not commute.
    assert not torch.equal(SWAP.after(TURN).apply(X), TURN.apply(SWAP.apply(X)))


@pytest.mark.parametrize("symmetry", [TURN, SWAP, SWAP.after(TURN)])
def test_the_inverse_undoes(symmetry: Symmetry) -> None:
    assert torch.equal(symmetry.inverse().apply(symmetry.apply(X)), X)
    assert symmetry.inverse().after(symmetry).is_identity
    assert symmetry.after(symmetry.inverse()).is_identity
    assert not symmetry.is_identity


def test_equality_is_what_they_do() -> None:
    assert TURN.after(TURN) == TURN.inverse()
    assert len({TURN, Symmetry("another name", (1, 2, 0), (0, 1)), SWAP}) == 2
    assert Symmetry("values only", (0, 1, 2), (1, 0)) != Symmetry("nothing", (0, 1, 2), (0, 1))


@pytest.mark.parametrize(
    ("sites", "values"), [((0, 0), (0, 1)), ((0, 1), (0, 2)), ((), (0,)), ((0,), ()), ((1, 2), (0,))]
)
def test_what_is_no_permutation_is_refused(sites: tuple, values: tuple) -> None:
    with pytest.raises(OptionError, match="permutation"):
        Symmetry("odd", sites, values)


def test_other_spaces_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(OptionError, match="one space"):
        TURN.after(Symmetry("small", (1, 0), (0, 1)))
    with pytest.raises(OptionError, match="one space"):
        TURN.after(Symmetry("colours", (0, 1, 2), (2, 0, 1)))
    with pytest.raises(ObjectError, match="3 sites"):
        TURN.apply(X[:, :2])
    for index in (2, -1):
        with pytest.raises(ObjectError, match="indices"):
            TURN.apply(torch.full((1, 3), index))
