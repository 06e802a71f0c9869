"""Walks that are made at once, proved like walks step by step: P_F a network, P_B the law that fits the order."""

import pytest
import torch
from torch import Tensor

from gfnmc.environments import Lattice, enumerate_states
from gfnmc.kernels import IndependenceMH, Kernel, MultipleTrySuffix, SuffixResampling, suffix
from gfnmc.policies import GFlowNet, MLPPolicy, filled
from gfnmc.policies.mlp_filler import MLPFiller
from gfnmc.testing import transition_matrix
from tests.exact.cases import LAWS, TableTarget, balance_error, invariance_error, mlp_pair, table_target

LATTICES = {
    "two sites": Lattice((2,), (-1, 1)),
    "any order": Lattice((3,), (-1, 1)),
    "any order, three values": Lattice((2,), (0, 1, 2)),
    "fixed order": Lattice((3,), (0, 1), order="fixed", site_order=(2, 0, 1)),
}
GRAPHS = {name: enumerate_states(lattice) for name, lattice in LATTICES.items()}
KERNELS = {
    "suffix": lambda pair, target, law: SuffixResampling(pair, target, LAWS[law]),
    "suffix, shared branch": lambda pair, target, law: SuffixResampling(pair, target, LAWS[law], branching="shared"),
    "multiple tries": lambda pair, target, law: MultipleTrySuffix(pair, target, LAWS[law], num_tries=3),
    "independence": lambda pair, target, law: IndependenceMH(pair, target),
}
# Three tries of several sites in any order have too many outcomes to list.
CASES = [
    (name, kernel)
    for name in LATTICES
    for kernel in KERNELS
    if kernel != "multiple tries" or name in ("two sites", "fixed order")
]


def make_pair(name: str, dtype: torch.dtype, **exploration: float) -> GFlowNet:
    pair = GFlowNet(mlp_pair(GRAPHS[name], dtype).forward.with_exploration(**exploration))
    assert pair.forward.filler() is not None and pair.backward.empties_as_filled
    return pair


def target_of(name: str) -> TableTarget:
    return table_target(GRAPHS[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("name", "kernel"), CASES)
def test_leaves_the_target_invariant_and_is_reversible(name: str, kernel: str, law: str, dtype: torch.dtype) -> None:
    target = target_of(name)
    matrix = transition_matrix(KERNELS[kernel](make_pair(name, dtype), target, law), GRAPHS[name].objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12


@pytest.mark.parametrize("exploration", [{"temperature": 1.7}, {"epsilon": 0.15}], ids=str)
@pytest.mark.parametrize("name", LATTICES)
def test_so_it_is_with_exploration(name: str, exploration: dict[str, float]) -> None:
    target = target_of(name)
    kernel = SuffixResampling(make_pair(name, torch.float64, **exploration), target)
    matrix = transition_matrix(kernel, GRAPHS[name].objects)
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12


def wrong_matrix(name: str, kernel: Kernel) -> Tensor:
    return transition_matrix(kernel, GRAPHS[name].objects)


@pytest.mark.parametrize("name", LATTICES)
def test_an_inverted_ratio_fails(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    target = target_of(name)
    right = suffix.log_hastings_ratio
    monkeypatch.setattr(suffix, "log_hastings_ratio", lambda **terms: -right(**terms))
    matrix = wrong_matrix(name, SuffixResampling(make_pair(name, torch.float64), target))
    assert invariance_error(matrix, target.pmf) > 1e-5


@pytest.mark.parametrize("name", LATTICES)
def test_values_drawn_by_another_law_than_the_scored_one_fail(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    target = target_of(name)
    monkeypatch.setattr(
        MLPFiller,
        "chosen",
        lambda self, differences, actions: (
            type(self)._laws(self, 1.3 * differences.transpose(0, 1)).gather(0, (actions % self.num_values)[None])[0]
        ),
    )
    draw = MLPFiller.walk

    def walk(self: MLPFiller, *args: Tensor) -> filled.Walked:
        walked = draw(self, *args)
        differences = walked.walked.differences.transpose(0, 1)
        laws = self._laws(differences).gather(0, (walked.actions % self.num_values)[None])[0]
        return walked._replace(log_probs=laws)

    monkeypatch.setattr(MLPFiller, "walk", walk)
    matrix = wrong_matrix(name, SuffixResampling(make_pair(name, torch.float64), target))
    assert invariance_error(matrix, target.pmf) > 1e-5


def test_rows_put_back_in_the_wrong_order_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "any order"
    target = target_of(name)
    monkeypatch.setattr(filled._Rows, "back", lambda self, values: values)
    matrix = wrong_matrix(name, SuffixResampling(make_pair(name, torch.float64), target))
    assert invariance_error(matrix, target.pmf) > 1e-5


def test_the_probability_of_the_order_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fact of fixed length: whatever a choice among so many is worth, both ways have the same choices."""
    name = "any order"
    target = target_of(name)
    lattice = LATTICES[name]
    monkeypatch.setattr(
        type(lattice.filling), "log_choice", lambda self, num_left: torch.log(num_left.double().clamp(min=1))
    )
    pair = make_pair(name, torch.float64)
    right = invariance_error(transition_matrix(SuffixResampling(pair, target), GRAPHS[name].objects), target.pmf)
    assert right < 1e-10


def test_the_network_is_far_from_uniform() -> None:
    pair = make_pair("any order", torch.float64)
    assert isinstance(pair.forward, MLPPolicy)
    states = LATTICES["any order"].source(1)
    law = pair.forward.log_probs(pair.forward.begin(states), states)
    assert float(law.detach().std()) > 0.1
