"""Untrained torchgfn models leave the environment's own law invariant, by enumeration, and wrong moves do not."""

from typing import Any

import pytest
import torch

import gfnmc
from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, EnvironmentContractError, OptionError, PolicyError
from gfnmc.environments import Lattice, enumerate_states
from gfnmc.integrations import torchgfn_environments
from gfnmc.integrations.torchgfn import from_torchgfn, torchgfn_target
from gfnmc.kernels import Cycle, IndependenceMH, RandomWalk, Reach, SuffixResampling, suffix
from gfnmc.kernels.branch import PrefixUniform
from gfnmc.testing import transition_matrix
from tests.exact.cases import balance_error, invariance_error
from tests.integrations.torchgfn_cases import (
    ENVIRONMENTS,
    MLP,
    MODELS,
    TREES,
    DiscretePolicyEstimator,
    IdentityPreprocessor,
    TBGFlowNet,
    conditional,
    estimator,
    gym,
    table,
)

BOUND = 1e-10


def error_of(kernel: Any, env: Any, pair: Any) -> float:
    """The largest change of R/Z in a step, R as the environment says it."""
    objects = enumerate_states(pair.environment).objects
    law = env.log_reward(env.states_from_tensor(objects)).double().softmax(0)
    matrix = transition_matrix(kernel, objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    # In float32 rewards depend on the batch they are asked in, in the last bit; the target asks in blocks.
    law_asked_in_blocks = kernel.target.log_prob(objects).softmax(0)
    torch.testing.assert_close(law_asked_in_blocks, law, rtol=1e-5, atol=0.0)
    return max(invariance_error(matrix, law_asked_in_blocks), balance_error(matrix, law_asked_in_blocks))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_environment(environment: str) -> None:
    env = ENVIRONMENTS[environment]()
    pair = from_torchgfn(MODELS["trajectory balance"](env), env)
    kernel = SuffixResampling(pair, torchgfn_target(env))
    assert kernel.reach is Reach.EVERYWHERE
    assert error_of(kernel, env, pair) < BOUND


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("environment", ["spins", "small sets"])
def test_every_loss(environment: str, model: str) -> None:
    env = ENVIRONMENTS[environment]()
    pair = from_torchgfn(MODELS[model](env), env)
    target = torchgfn_target(env)
    for kernel in (SuffixResampling(pair, target, PrefixUniform()), IndependenceMH(pair, target)):
        assert error_of(kernel, env, pair) < BOUND


def test_flow_matching_where_paths_differ_in_length() -> None:
    env = ENVIRONMENTS["grid"]()
    pair = from_torchgfn(MODELS["flow matching"](env), env)
    assert error_of(SuffixResampling(pair, torchgfn_target(env)), env, pair) < BOUND


def test_a_law_of_the_users_own_is_asked_for() -> None:
    class Hesitant(DiscretePolicyEstimator):
        """An estimator that always halves its logits."""

        def to_probability_distribution(self, states: Any, module_output: torch.Tensor, **options: Any) -> Any:
            return super().to_probability_distribution(states, module_output / 2.0, **options)

    env = ENVIRONMENTS["small sets"]()
    model = MODELS["trajectory balance"](env)
    plain = from_torchgfn(model, env)
    model.pf = Hesitant(model.pf.module, env.n_actions, model.pf.preprocessor)
    pair, target = from_torchgfn(model, env), torchgfn_target(env)
    assert error_of(SuffixResampling(pair, target), env, pair) < BOUND
    state = env.s0[None]
    half = env.states_from_tensor(state).forward_masks.float().log() + model.pf(env.states_from_tensor(state)) / 2.0
    path = pair.sample_forward(state.repeat(512, 1), PhiloxDraws(0, "hesitant", 512))
    first = torch.where(path.lengths > 0, path.actions[:, 0], env.n_actions - 1)
    frequency = torch.bincount(first, minlength=env.n_actions) / 512
    assert (frequency - half.softmax(1)[0]).abs().max() < 0.12
    # Negative control: the estimator itself, unhesitating, has another law.
    assert not torch.equal(plain.log_forward(path), pair.log_forward(path))


def test_policies_may_share_a_network() -> None:
    env = ENVIRONMENTS["small sets"]()
    inputs = IdentityPreprocessor(output_dim=env.s0.numel(), target_dtype=torch.float32)
    heads = [MLP(env.s0.numel(), env.n_actions)]
    heads.append(MLP(env.s0.numel(), env.n_actions - 1, trunk=heads[0].trunk))
    model = TBGFlowNet(
        DiscretePolicyEstimator(heads[0], env.n_actions, inputs),
        DiscretePolicyEstimator(heads[1], env.n_actions, inputs, is_backward=True),
    )
    pair = from_torchgfn(model, env)
    assert error_of(SuffixResampling(pair, torchgfn_target(env)), env, pair) < BOUND


@pytest.mark.parametrize("environment", ["spins", "small sets", "tree"])
def test_negative_controls_fail(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    env = ENVIRONMENTS[environment]()
    pair = from_torchgfn(MODELS["trajectory balance"](env), env)
    kernel = SuffixResampling(pair, torchgfn_target(env))
    right = suffix.log_hastings_ratio

    def no_backward(**terms: torch.Tensor) -> torch.Tensor:
        return right(**terms | {name: torch.zeros_like(terms[name]) for name in terms if "backward" in name})

    controls = [lambda **terms: -right(**terms), lambda **terms: torch.zeros_like(terms["log_forward_new"])]
    if environment not in TREES:
        controls.append(no_backward)
    for wrong in controls:
        monkeypatch.setattr(suffix, "log_hastings_ratio", wrong)
        assert error_of(kernel, env, pair) > 1e-4


def test_tables_by_the_index_of_a_state() -> None:
    env = gym.HyperGrid(2, 2, validate_modes=False)
    pair = from_torchgfn(table(env), env)
    assert error_of(SuffixResampling(pair, torchgfn_target(env)), env, pair) < BOUND


@pytest.mark.parametrize("backward", ["flow", "uniform"])
def test_a_flow_matching_model_has_two_ways_back(backward: Any) -> None:
    env = ENVIRONMENTS["grid"]()
    pair = from_torchgfn(MODELS["flow matching"](env), env, backward=backward)
    assert error_of(SuffixResampling(pair, torchgfn_target(env)), env, pair) < BOUND
    path = pair.sample_backward(torch.tensor([[2, 2]] * 64), None, PhiloxDraws(0, "x", 64))
    is_uniform = (path.log_backward.unique() / torch.tensor(0.5).double().log()).round(decimals=6) % 1 == 0
    assert bool(is_uniform.all()) == (backward == "uniform")


def test_conditional_models_are_bound_to_a_condition() -> None:
    env = gym.ConditionalHyperGrid(1, 4, validate_modes=False, store_all_states=True)
    bound = torch.tensor([0.3])
    model = conditional(env)
    pair, target = from_torchgfn(model, env, condition=bound), torchgfn_target(env, condition=bound)
    kernel = SuffixResampling(pair, target)
    objects = enumerate_states(pair.environment).objects
    law = env.true_dist(bound).double()[env.get_states_indices(objects)]
    matrix = transition_matrix(kernel, objects)
    assert invariance_error(matrix, law / law.sum()) < 1e-7
    assert balance_error(matrix, target.log_prob(objects).softmax(0)) < BOUND
    # Negative control: the law of another condition is not left alone.
    other = torchgfn_target(env, condition=torch.tensor([1.0])).log_prob(objects).softmax(0)
    assert invariance_error(matrix, other) > 1e-3
    # And the policies do depend on it.
    free = from_torchgfn(model, env, condition=torch.tensor([1.0]))
    assert (transition_matrix(SuffixResampling(free, target), objects) - matrix).abs().max() > 1e-4


@pytest.mark.parametrize("environment", ["grid", "spins", "bits in order", "bits in any order", "sets"])
def test_the_target_is_the_environments_reward(environment: str) -> None:
    env = ENVIRONMENTS[environment]()
    target = torchgfn_target(env)
    solution = target.exact()
    assert solution is not None and solution.support is not None
    rewards = env.log_reward(env.states_from_tensor(solution.support)).double()
    torch.testing.assert_close(solution.log_pmf, rewards.log_softmax(0), rtol=0.0, atol=1e-5)
    assert target.dtype == env.s0.dtype
    # All objects that the environment builds, and no others.
    built = enumerate_states(from_torchgfn(MODELS["no P_B"](env), env).environment).objects
    assert {tuple(x) for x in built.tolist()} == {tuple(x) for x in solution.support.tolist()}


@pytest.mark.parametrize("environment", ["grid", "spins"])
def test_the_target_agrees_with_what_torchgfn_knows_exactly(environment: str) -> None:
    env = ENVIRONMENTS[environment]()
    solution = torchgfn_target(env).exact()
    assert solution is not None
    assert abs(solution.log_z - float(env.log_partition())) < 1e-5
    assert (solution.log_pmf.exp().sort().values - env.true_dist().double().sort().values).abs().max() < 1e-6


def test_sequences_of_different_length_are_undone_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    env = ENVIRONMENTS["bits in order"]()
    space = torchgfn_environments.Space(env, None, None, None)
    states, actions = torch.tensor([[1, 0, -1], [1, 1, 0]]), torch.tensor([0, 0])
    assert space.unstep(states, actions).tolist() == [[1, -1, -1], [1, 1, -1]]
    # Negative control: torchgfn 2.4.1 itself undoes in every row what it undoes in any.
    moved = space._moved(env._backward_step, states, actions)
    assert moved.tolist() == [[1, -1, -1], [1, -1, -1]]
    monkeypatch.setattr(
        torchgfn_environments.Space,
        "unstep",
        lambda self, states, actions: self._moved(self.env._backward_step, states, actions),
    )
    with pytest.raises(EnvironmentContractError, match="unstep of several states at once"):
        from_torchgfn(MODELS["no P_B"](env), env)


def test_the_pair_is_a_frozen_copy() -> None:
    env = ENVIRONMENTS["small sets"]()
    model = MODELS["trajectory balance"](env)
    kernel = SuffixResampling(from_torchgfn(model, env), torchgfn_target(env))
    objects = enumerate_states(kernel.environment).objects
    before = transition_matrix(kernel, objects)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.5)
    assert torch.equal(transition_matrix(kernel, objects), before)
    assert all(weight.requires_grad for weight in model.pf.parameters())
    # Negative control: made now, the pair is another.
    again = SuffixResampling(from_torchgfn(model, env), torchgfn_target(env))
    assert (transition_matrix(again, objects) - before).abs().max() > 1e-3


def test_local_moves_of_this_package_fit_where_objects_are_assignments() -> None:
    env = ENVIRONMENTS["spins"]()
    target = torchgfn_target(env)
    pair = from_torchgfn(MODELS["no P_B"](env), env)
    kernel = Cycle([SuffixResampling(pair, target), RandomWalk(Lattice.for_target(target), target)])
    chains = gfnmc.sample(kernel, num_chains=16, num_samples=50, num_warmup=5, progress_bar=False)
    assert chains.x.shape == (16, 50, 2)
    assert set(chains.x.unique().tolist()) == {0, 1}


class Recurrent(torch.nn.Module):
    """What a recurrent estimator looks like from outside."""

    n_actions = 3

    def init_carry(self, batch_size: int, device: torch.device) -> dict[str, torch.Tensor]:
        return {}


class Steps(gym.HyperGrid):
    """A user's own class, made from one of theirs."""


def test_classes_made_from_theirs_are_known() -> None:
    env = Steps(2, 3, validate_modes=False)
    assert from_torchgfn(MODELS["no P_B"](env), env).environment.max_depth == 4


def test_what_is_not_known_may_be_given() -> None:
    env = ENVIRONMENTS["grid"]()
    facts = torchgfn_environments._FACTS.pop("HyperGrid")
    try:
        with pytest.raises(OptionError, match="give max_depth"):
            from_torchgfn(MODELS["no P_B"](env), env)
        pair = from_torchgfn(MODELS["no P_B"](env), env, max_depth=9)
        assert not pair.environment.is_graded
        kernel = SuffixResampling(pair, torchgfn_target(env), PrefixUniform())
        assert error_of(kernel, env, pair) < BOUND
    finally:
        torchgfn_environments._FACTS["HyperGrid"] = facts


def test_what_cannot_be_adapted_is_refused_in_words() -> None:
    grid = ENVIRONMENTS["grid"]()
    model = MODELS["no P_B"](grid)
    graphs = gym.GraphBuilding(
        num_node_classes=1, num_edge_classes=1, state_evaluator=lambda states: torch.ones(len(states)), max_nodes=3
    )
    with pytest.raises(CapabilityError, match="graphs"):
        from_torchgfn(model, graphs)
    with pytest.raises(CapabilityError, match="only discrete environments"):
        from_torchgfn(model, gym.Box())
    with pytest.raises(CapabilityError, match="neither pf nor logF"):
        from_torchgfn(torch.nn.Linear(1, 1), grid)
    with pytest.raises(OptionError, match="not conditional"):
        from_torchgfn(model, grid, condition=torch.tensor([0.5]))
    with pytest.raises(OptionError, match="is conditional"):
        torchgfn_target(gym.ConditionalHyperGrid(2, 3, validate_modes=False))
    with pytest.raises(OptionError, match="choose 'own'"):
        from_torchgfn(model, grid, backward="flow")
    model.pf = Recurrent()
    with pytest.raises(CapabilityError, match="carries a memory"):
        from_torchgfn(model, grid)


def test_an_environment_that_breaks_is_named() -> None:
    # In 2.4.1 no batch of it can take a step.
    env = gym.BitSequencePlus(1, 3, n_modes=2, H=torch.tensor([[0, 0, 1], [1, 1, 0]]))
    with pytest.raises(EnvironmentContractError, match="BitSequencePlus broke while paths were built"):
        from_torchgfn(MODELS["no P_B"](env), env)


def test_an_estimator_of_another_environment_does_not_fit() -> None:
    grid, other = ENVIRONMENTS["grid"](), gym.HyperGrid(2, 3, validate_modes=False)
    model = MODELS["no P_B"](other)
    model.pf = estimator(ENVIRONMENTS["spins"]())
    with pytest.raises(PolicyError, match="was made for 5 actions, but HyperGrid has 3"):
        from_torchgfn(model, grid)
