"""The named problems: each is complete, its parts fit, and what it recommends may sample."""

import pytest
import torch

import gfnmc
from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import OptionError
from gfnmc.environments import Direction, check_environment
from gfnmc.experiments import PROBLEMS, find_problem
from gfnmc.kernels.base import check_irreducible
from gfnmc.policies import GFlowNet, MLPPolicy, UniformPolicy
from gfnmc.targets.base import check_objects, checked_log_prob


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_parts_of_a_problem_fit(name: str) -> None:
    problem = find_problem(name)
    assert problem.name == name
    assert problem.description
    target = problem.target()
    environment = problem.environment(target)
    check_environment(environment)
    pair = GFlowNet(MLPPolicy(environment, hidden_size=8))
    kernel = problem.hybrid(pair, target)
    check_irreducible(kernel)
    objects = kernel.start(PhiloxDraws(0, "start", 64))
    check_objects(target, objects)
    assert checked_log_prob(target, objects).isfinite().all()
    assert torch.equal(environment.objects(environment.states(objects)), objects)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_truth_of_a_problem_is_known_and_its_modes_are_consistent(name: str) -> None:
    problem = find_problem(name)
    target = problem.target()
    exact, modes = target.exact(), target.modes()
    assert (exact is None) == (name == "bits-120")
    if exact is not None and exact.support is None:
        assert "exact" in problem.description
    elif exact is not None:
        assert f"{len(exact.support):,} " in problem.description
        # Of what can be listed the masses of the modes are exact.
        assert (exact.mode_masses is None) == (modes is None)
    if modes is not None:
        assert modes.assign(modes.examples).tolist() == list(range(len(modes)))
    if exact is not None and exact.mode_masses is not None:
        assert min(exact.mode_masses) > 1e-4
        assert sum(exact.mode_masses) <= 1.0 + 1e-12


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_hybrid_of_a_problem_runs_and_the_training_options_are_legal(name: str) -> None:
    problem = find_problem(name)
    target = problem.target()
    environment = problem.environment(target)
    few = {"num_steps": 2, "batch_size": 4, "seed_chains": 4, "seed_warmup": 1, "check_size": 8}
    config = gfnmc.TrainingConfig.from_dict(problem.training.to_dict() | few)
    pair = gfnmc.train(environment, target, config=config, progress_bar=False).pair
    chains = gfnmc.sample(problem.hybrid(pair, target), num_chains=4, num_samples=3, num_warmup=1, progress_bar=False)
    assert chains.x.shape == (4, 3, *target.event_shape)


def test_targets_are_made_anew() -> None:
    problem = find_problem("ising-4x4")
    assert problem.target() is not problem.target()


def test_a_problem_without_a_branch_law_uses_the_kernels() -> None:
    problem = find_problem("ising-4x4")
    target = problem.target()
    environment = problem.environment(target)
    plain = type(problem)(problem.name, problem.description, problem.target, problem.environment)
    kernel = plain.hybrid(GFlowNet(UniformPolicy(environment, Direction.FORWARD)), target)
    assert [part.name for part in kernel.kernels] == ["suffix resampling", "random walk"]


@pytest.mark.parametrize(("name", "near"), [("tfbind-klf", "tfbind-klf1"), ("hypergrid", "hypergrid-64x64")])
def test_an_unknown_name_gets_the_nearest_one(name: str, near: str) -> None:
    with pytest.raises(OptionError, match=f"did you mean {near}"):
        find_problem(name)


def test_a_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(OptionError) as caught:
        find_problem("???")
    assert "did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in PROBLEMS)
