"""The recommended kernel: what it is made of, that it is exact, and that it reaches everything."""

import pytest
import torch

from gfnmc.core.errors import CapabilityError, IrreducibilityError
from gfnmc.kernels import RandomWalk, Reach, SuffixResampling, suffix
from gfnmc.kernels.base import check_irreducible
from gfnmc.kernels.branch import Fixed, PrefixLaw, Uniform
from gfnmc.kernels.recommended import recommended
from gfnmc.sampling import sample
from gfnmc.testing import transition_matrix
from tests.exact.cases import ENVIRONMENTS, PAIRS, graph_of, invariance_error, is_connected, table_target

WITHOUT_CHANGES = ["subsets", "words (tree)"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_it_is_exact_and_reaches_everything_at_once(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    kernel = recommended(PAIRS["mlp"](graph), target)
    matrix = transition_matrix(kernel, graph.objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert kernel.reach is Reach.EVERYWHERE
    assert (matrix > 0).all()
    # Negative control: the same enumeration sees a wrong part.
    right = suffix.log_hastings_ratio
    monkeypatch.setattr(suffix, "log_hastings_ratio", lambda **terms: -right(**terms))
    assert invariance_error(transition_matrix(kernel, graph.objects), target.pmf) > 1e-5


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_it_is_large_steps_and_then_a_small_one_where_there_are_any(environment: str) -> None:
    graph = graph_of(environment)
    kernel = recommended(PAIRS["tabular"](graph), table_target(graph))
    large, *small = kernel.kernels
    assert isinstance(large, SuffixResampling)
    assert [type(part) for part in small] == ([] if environment in WITHOUT_CHANGES else [RandomWalk])
    assert kernel.name == ("suffix resampling" if environment in WITHOUT_CHANGES else "suffix resampling + random walk")
    assert isinstance(large.branch, PrefixLaw) != graph.environment.is_fixed_length
    source = 0 if isinstance(large.branch, PrefixLaw) else -1
    assert float(large._log_pmf.exp()[source]) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("environment", ["lattice, fixed order (tree)", "hypergrid"])
def test_under_a_law_that_never_restarts_the_random_walk_connects(environment: str) -> None:
    graph = graph_of(environment)
    kernel = recommended(PAIRS["mlp"](graph), table_target(graph), Fixed(1))
    large, small = kernel.kernels
    assert isinstance(large, SuffixResampling)
    assert large.branch == Fixed(1)
    assert large.reach is Reach.PARTIAL and large.may_stay
    assert small.reach is Reach.CONNECTED and not small.may_stay
    assert kernel.reach is Reach.CONNECTED
    assert is_connected(transition_matrix(kernel, graph.objects))
    assert not is_connected(transition_matrix(large, graph.objects))


@pytest.mark.parametrize("environment", WITHOUT_CHANGES)
def test_without_single_changes_the_large_steps_have_to_reach_everything(environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    pair = PAIRS["tabular"](graph)
    assert recommended(pair, target, Uniform()).reach is Reach.EVERYWHERE
    with pytest.raises(CapabilityError, match="has no single changes") as caught:
        recommended(pair, target, Fixed(1))
    assert any("is not known to reach every object under Fixed(num_steps=1)" in note for note in caught.value.__notes__)


def test_what_reaches_a_part_only_is_refused_when_sampling_starts() -> None:
    graph = graph_of("hypergrid")
    pair = PAIRS["tabular"](graph)
    with torch.no_grad():
        pair.forward.get_parameter("logits")[2, 0] = -torch.inf
    kernel = recommended(pair, table_target(graph))
    assert kernel.reach is Reach.PARTIAL
    with pytest.raises(IrreducibilityError):
        check_irreducible(kernel)


def test_it_samples_and_adapts() -> None:
    graph = graph_of("hypergrid")
    kernel = recommended(PAIRS["tabular"](graph), table_target(graph))
    chains = sample(kernel, num_chains=8, num_samples=5, num_warmup=60, adapt=True, progress_bar=False)
    assert chains.kernel_name == kernel.name
    assert chains.adapted_kernel is not None and chains.adapted_kernel.reach is Reach.EVERYWHERE
