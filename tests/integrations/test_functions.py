"""Pairs out of functions: exact by enumeration with untrained networks, and refused where functions do not fit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import gfnmc
from gfnmc.core.draws import normal
from gfnmc.core.errors import EnvironmentContractError, OptionError, PolicyError
from gfnmc.environments import DiscreteEnvironment
from gfnmc.integrations.functions import FunctionPair
from gfnmc.kernels import IndependenceMH, Kernel, MultipleTrySuffix, Reach, SuffixResampling, suffix
from gfnmc.kernels.branch import PrefixUniform
from gfnmc.policies import GFlowNet, ProposalPair
from gfnmc.targets import Target
from gfnmc.testing import assert_invariant, transition_matrix
from tests.exact.cases import ENVIRONMENTS, PAIRS, balance_error, graph_of, invariance_error, table_target

KERNELS: dict[str, Callable[[ProposalPair, Target], Kernel]] = {
    "suffix": SuffixResampling,
    "prefix": lambda pair, target: SuffixResampling(pair, target, PrefixUniform()),
    "several tries": lambda pair, target: MultipleTrySuffix(pair, target, num_tries=3),
    "independence": IndependenceMH,
}


def untrained(inputs: int, outputs: int, seed: int, dtype: torch.dtype = torch.float32) -> Callable[[Tensor], Tensor]:
    """A random network, as somebody might have trained it in torch."""
    first, second = normal(seed, "first", (inputs, 16), dtype), normal(seed, "second", (16, outputs), dtype)
    return lambda x: 0.7 * torch.tanh(x.to(dtype) @ first) @ second


def options(environment: DiscreteEnvironment, **changes: Any) -> dict[str, Any]:
    """The functions of an environment, with random networks for policies."""
    source, width = environment.source(1)[0], environment.num_actions
    up, down = untrained(source.numel(), width, 1), untrained(source.numel(), width, 2)
    exit_action = environment.exit_action
    found = {
        "log_pf": lambda x: torch.where(environment.forward_mask(x), up(x), -torch.inf),
        "log_pb": lambda x: torch.where(environment.backward_mask(x), down(x), -torch.inf),
        "step": environment.step,
        "unstep": environment.unstep,
        "is_source": environment.is_source,
        "exit": environment.is_terminal if exit_action is None else exit_action,
        "source": source,
        "max_depth": environment.max_depth,
        "is_fixed_length": environment.is_fixed_length,
        "depth": environment.depth if environment.is_graded else None,
        "objects": environment.objects,
        "states": environment.states,
    }
    return found | changes


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        *((name, "suffix") for name in ENVIRONMENTS),
        *(("words (tree)", kernel) for kernel in KERNELS if kernel != "suffix"),
    ],
)
def test_an_untrained_pair_leaves_the_target_invariant(name: str, kernel: str) -> None:
    graph = graph_of(name)
    target = table_target(graph)
    made = KERNELS[kernel](FunctionPair(**options(graph.environment)), target)
    assert made.reach is Reach.EVERYWHERE
    matrix = transition_matrix(made, graph.objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-10
    assert (matrix > 0).all()


@pytest.mark.parametrize("name", ["lattice, learned order", "subsets", "jumps (not graded)"])
def test_negative_controls_fail(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    graph = graph_of(name)
    target = table_target(graph)
    kernel = SuffixResampling(FunctionPair(**options(graph.environment)), target)
    right = suffix.log_hastings_ratio
    for wrong in (lambda **terms: -right(**terms), lambda **terms: torch.zeros_like(terms["log_forward_new"])):
        monkeypatch.setattr(suffix, "log_hastings_ratio", wrong)
        assert invariance_error(transition_matrix(kernel, graph.objects), target.pmf) > 1e-4


@pytest.mark.parametrize("name", ["lattice, learned order", "subsets", "words (tree)"])
def test_is_the_pair_whose_functions_it_was_given(name: str) -> None:
    graph = graph_of(name)
    target = table_target(graph)
    pair = PAIRS["mlp"](graph).frozen()
    laws = {
        "log_pf": lambda x: pair.forward.log_probs(pair.forward.begin(x), x),
        "log_pb": lambda x: pair.backward.log_probs(pair.backward.begin(x), x),
    }
    same = FunctionPair(**options(graph.environment, **laws))
    expected = transition_matrix(SuffixResampling(pair, target), graph.objects)
    torch.testing.assert_close(
        transition_matrix(SuffixResampling(same, target), graph.objects), expected, rtol=0.0, atol=1e-12
    )
    # Negative control: another pair has another matrix.
    other = FunctionPair(**options(graph.environment))
    assert (transition_matrix(SuffixResampling(other, target), graph.objects) - expected).abs().max() > 1e-3


def test_logits_will_do_and_the_column_of_the_exit_may_be_left_out() -> None:
    graph = graph_of("subsets")
    target = table_target(graph)
    given = options(graph.environment)
    log_pf, log_pb = given["log_pf"], given["log_pb"]
    change = {"log_pf": lambda x: log_pf(x) + 3.0 * x.sum(1, keepdim=True), "log_pb": lambda x: log_pb(x)[:, :-1]}
    kernels = [
        SuffixResampling(FunctionPair(**given), target),
        SuffixResampling(FunctionPair(**given | change), target),
    ]
    expected, found = (transition_matrix(kernel, graph.objects) for kernel in kernels)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-6)


def test_blocks_of_one_size_hide_what_a_batch_does_to_a_row() -> None:
    graph = graph_of("hypergrid")
    target = table_target(graph)
    given = options(graph.environment)
    # As matrix products do in their last digits, larger so that it shows on every machine.
    drift = 1e-5 * torch.tensor([1.0, -1.0, 0.5])
    given["log_pf"] = lambda x, log_pf=given["log_pf"]: log_pf(x) + len(x) * drift
    kernels = [SuffixResampling(FunctionPair(**given, block_rows=rows), target) for rows in (64, None)]
    exact, drifting = (balance_error(transition_matrix(kernel, graph.objects), target.pmf) for kernel in kernels)
    assert exact < 1e-10
    assert drifting > 1e-7


def test_the_public_proof_takes_such_a_kernel() -> None:
    graph = graph_of("lattice, learned order")
    target = table_target(graph)
    proof = assert_invariant(SuffixResampling(FunctionPair(**options(graph.environment)), target))
    assert "by enumeration of 9 objects" in str(proof)
    assert proof.twins


def test_runs_repeat_and_charge_what_training_cost() -> None:
    graph = graph_of("hypergrid")
    target = table_target(graph)
    pair = FunctionPair(**options(graph.environment, training_cost=gfnmc.Cost(target_calls=7)))
    assert isinstance(pair, ProposalPair) and not isinstance(pair, GFlowNet)
    runs = [
        gfnmc.sample(SuffixResampling(pair, target), num_chains=n, num_samples=5, num_warmup=2, progress_bar=False)
        for n in (8, 8, 5)
    ]
    assert torch.equal(runs[0].x, runs[1].x)
    assert torch.equal(runs[0].x[:5], runs[2].x)
    assert SuffixResampling(pair, target).training_cost.target_calls == 7


GRID = graph_of("hypergrid").environment
GIVEN = options(GRID)


def _in_place(states: Tensor, actions: Tensor) -> Tensor:
    return states.scatter_add_(1, actions[:, None], torch.ones_like(states[:, :1]))


def _all_rows_as_the_first(states: Tensor, actions: Tensor) -> Tensor:
    """What torchgfn 2.4.1 does to batches of sequences: each row loses what any row should lose."""
    undone = states.clone()
    undone[:, actions.unique()] -= 1
    return undone


BROKEN: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "masks of the other polarity": (
        {"log_pf": lambda x: torch.where(GRID.forward_mask(x), -torch.inf, 0.0)},
        PolicyError,
        "a mask allows no action",
    ),
    "P_B that forbids": (
        {"log_pb": lambda x: torch.where(GRID.backward_mask(x) & (torch.arange(3) != 1), 0.0, -torch.inf)},
        PolicyError,
        "log_pb forbids undoing the action 1",
    ),
    "the wrong way back": (
        {"unstep": lambda x, actions: GRID.unstep(x, 1 - actions)},
        EnvironmentContractError,
        "unstep does not return",
    ),
    "rows that are mixed up": (
        {"unstep": _all_rows_as_the_first},
        EnvironmentContractError,
        "unstep does not return|unstep of several states",
    ),
    "steps in place": ({"step": _in_place}, EnvironmentContractError, "changes the states it is given"),
    "another dtype": (
        {"step": lambda x, actions: GRID.step(x, actions).float()},
        EnvironmentContractError,
        "step returned torch.float32",
    ),
    "paths that are too long": ({"max_depth": 2}, EnvironmentContractError, "more than 2 actions"),
    "lengths that differ": ({"is_fixed_length": True}, EnvironmentContractError, "is_fixed_length, but"),
    "a wrong depth": ({"depth": lambda x: x.amax(1)}, EnvironmentContractError, "depth is not"),
    "a source that is none": ({"source": torch.tensor([1, 0])}, EnvironmentContractError, "is_source denies"),
    "objects that do not come back": (
        {"states": lambda x: x.flip(1)},
        EnvironmentContractError,
        "states\\(objects\\(state\\)\\)",
    ),
    "one way only": ({"states": None}, OptionError, "each other's way back"),
    "no exit there": ({"exit": 3}, OptionError, "exit is 3, but log_pf has 3 actions"),
    "NaN": ({"log_pf": lambda x: torch.full((len(x), 3), torch.nan)}, PolicyError, "log_pf returned \\[nan"),
    "no batch": ({"log_pf": lambda x: torch.zeros(3)}, PolicyError, "return a tensor of shape"),
    "too few columns": ({"log_pb": lambda x: torch.zeros(len(x), 1)}, PolicyError, "return floats of shape"),
    "no depth": ({"max_depth": 0}, OptionError, "max_depth is 0"),
    "no block": ({"block_rows": 0}, OptionError, "block_rows is 0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_functions_that_do_not_fit_are_refused(name: str) -> None:
    change, error, message = BROKEN[name]
    FunctionPair(**GIVEN)
    with pytest.raises(error, match=message):
        FunctionPair(**GIVEN | change)


def test_a_pair_that_cannot_come_back_may_say_so() -> None:
    graph = graph_of("hypergrid")
    target = table_target(graph)
    # P_F never goes from (1, 0) to (1, 1), where P_B comes from there.
    is_there = lambda x: (x == torch.tensor([1, 0])).all(1, keepdim=True)  # noqa: E731
    change = {"log_pf": lambda x: GIVEN["log_pf"](x).masked_fill(is_there(x) & (torch.arange(3) == 1), -torch.inf)}
    with pytest.raises(PolicyError, match="which log_pf forbids in \\[1, 0\\]"):
        FunctionPair(**GIVEN | change)
    kernel = SuffixResampling(FunctionPair(**GIVEN | change, is_positive=False), target)
    assert kernel.reach is Reach.PARTIAL
    matrix = transition_matrix(kernel, graph.objects)
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-10
