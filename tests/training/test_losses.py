"""Every objective and every backward policy, trained as a user trains them, ends at the target: terminal law and log Z.

Tables of zeros are trained, so that nothing but the objective can be the reason where it does not.
"""

import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Lattice, enumerate_paths, enumerate_states
from gfnmc.policies import GFlowNet, Path, TabularPolicy
from gfnmc.policies.flow import TabularFlow
from gfnmc.policies.max_entropy import MaxEntropyPolicy
from gfnmc.targets import EdwardsAnderson, Potts, Target, from_function
from gfnmc.training import losses
from gfnmc.training.config import Objective, TrainingConfig
from tests.support import CountingTarget, Stairs, assert_close, sample_paths, solved_pair, stairs_target
from tests.training.cases import PROBLEMS, distance, learns, log_z_error, run, tables, tiny, unchecked

OBJECTIVES = Objective.__args__
FORWARD_LOOKING = ("forward_looking_detailed_balance", "forward_looking_subtrajectory_balance")
LEARNS_LOG_Z = ("trajectory_balance", "detailed_balance", "subtrajectory_balance", *FORWARD_LOOKING)

SLOWER = {
    "detailed_balance": 2,
    "forward_looking_detailed_balance": 4,
    "forward_looking_subtrajectory_balance": 2,
    "flow_matching": 3,
    "maximum_likelihood": 2,
}
"""Where paths differ in length, objectives that pass what they learn from state to state take more steps."""


def config_for(objective: str, *, times: int = 1, **options: object) -> TrainingConfig:
    mine: dict[str, object] = {"objective": objective, "num_steps": 200 * times, "check_every": 200}
    if objective == "flow_matching":
        mine |= {"backward": "flow"}
    if objective == "maximum_likelihood":
        mine |= {"seeding": "tempering", "seed_batch_size": 192, "seed_chains": 128, "seed_warmup": 10, "seed_every": 1}
    return learns(**(mine | options))


def problems_for(objective: str) -> list[str]:
    if objective in FORWARD_LOOKING:
        return ["three spins", "grid"]
    return ["grid", "stairs"] if objective == "modified_detailed_balance" else ["three spins", "grid", "stairs"]


CASES = [(objective, name) for objective in OBJECTIVES for name in problems_for(objective)]


@pytest.mark.parametrize(("objective", "name"), CASES)
def test_every_objective_finds_the_law_and_its_constant(
    objective: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unchecked(monkeypatch)
    environment, target = PROBLEMS[name]()
    pair = tables(environment, from_flow=objective == "flow_matching")
    before = distance(pair, target)
    times = 1 if name == "three spins" else SLOWER.get(objective, 1)
    result = run(environment, target, config_for(objective, times=times), pair=pair)
    assert distance(result.pair, target) <= 2e-2
    # Where it is not learned, log Z is estimated from 1,024 draws of a pair that is nearly exact.
    assert abs(log_z_error(result.pair, target)) <= (2e-2 if objective in LEARNS_LOG_Z else 5e-2)
    # Negative control: what it started from is far away.
    assert before > 0.1


@pytest.mark.parametrize("objective", FORWARD_LOOKING)
@pytest.mark.parametrize("name", ["potts", "edwards-anderson", "annealed spins"])
def test_forward_looking_objectives_with_partial_energies(
    name: str, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unchecked(monkeypatch)
    targets: dict[str, Target] = {
        "potts": Potts((2,), 3, 0.9),
        "edwards-anderson": EdwardsAnderson((3,), 0.7, seed=2),
        "annealed spins": PROBLEMS["three spins"]()[1],
    }
    target = targets[name]
    environment = Lattice.for_target(target)
    schedule = "annealed" if name == "annealed spins" else "fixed"
    config = config_for(objective, reward_schedule=schedule, anneal_until=0.3)
    result = run(environment, target, config, pair=tables(environment))
    assert distance(result.pair, target) <= 2e-2
    assert abs(log_z_error(result.pair, target)) <= 2e-2


def test_partial_energies_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: with the energies of unfinished objects the first steps learn something else."""
    environment, target = PROBLEMS["three spins"]()
    plain, looking = (
        run(environment, target, tiny(objective=objective), pair=tables(environment))
        for objective in ("subtrajectory_balance", "forward_looking_subtrajectory_balance")
    )
    assert plain.history["loss"] != looking.history["loss"]
    steps = from_function(lambda x: x.sum(1), (2,), values=(0, 1, 2))
    with pytest.raises(CapabilityError, match="has no energy of unfinished objects"):
        run(HyperGrid(2, 3), steps, tiny(objective="forward_looking_detailed_balance"))


def test_large_energies_do_not_hide_the_partial_ones() -> None:
    """What is best is far above 0, where the energies of unfinished objects begin; both stay told apart."""

    class Far(Potts):
        def log_prob(self, x: Tensor) -> Tensor:
            return super().log_prob(x) + 500.0

    target = Far((3,), 3, 0.9)
    environment = Lattice.for_target(target)
    pair = tables(environment)
    path = sample_paths(pair, 20)
    log_reward = target.log_prob(environment.objects(path.end))
    config = tiny(objective="forward_looking_detailed_balance", log_reward_range=20.0)
    batch = losses.Batch(path, log_reward, torch.ones(20, dtype=torch.bool), 1.0, float(log_reward.max()) - 20.0)
    partial = losses.Losses(config, pair, target)._partial_log_reward(batch)
    assert_close(partial[:, 0], torch.zeros(20).double())
    bonds_of_two = Potts((3,), 3, 0.9).partial_log_prob(*environment.assigned(path.states[:, 2]))
    assert_close(partial[:, 2], bonds_of_two)
    assert len(partial[:, 2].unique()) == 2


@pytest.mark.parametrize("spoil", ["P_B", "reward", "log Z"])
def test_what_does_not_converge(spoil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative controls: the measures above see a forgotten P_B, a reward that is off, and a log Z that is held."""
    unchecked(monkeypatch)
    environment, target = PROBLEMS["grid"]()

    def spoiled(self: losses.Losses, batch: losses.Batch) -> Tensor:
        log_forward, log_backward = self.pair.log_forward(batch.path), self.pair.log_backward(batch.path)
        reward = batch.log_reward + (0.5 * batch.path.lengths if spoil == "reward" else 0.0)
        log_z = self.pair.log_z.detach() if spoil == "log Z" else self.pair.log_z
        return (log_z + log_forward - reward - (0.0 if spoil == "P_B" else log_backward)).square()

    monkeypatch.setitem(losses._OBJECTIVES, "trajectory_balance", spoiled)
    result = run(environment, target, config_for("trajectory_balance"), pair=tables(environment))
    wrong = abs(log_z_error(result.pair, target)) if spoil == "log Z" else distance(result.pair, target)
    assert wrong > 5e-2


@pytest.mark.parametrize("objective", ["trajectory_balance", "detailed_balance", "subtrajectory_balance"])
def test_a_backward_policy_learns_by_the_same_loss(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch)
    environment, target = PROBLEMS["grid"]()
    backward = random_table(environment)
    before = backward.logits.detach().clone()
    config = config_for(objective, times=SLOWER.get(objective, 1), backward="learned")
    result = run(environment, target, config, pair=tables(environment, backward=backward))
    assert distance(result.pair, target) <= 2e-2
    assert abs(log_z_error(result.pair, target)) <= 2e-2
    assert float((backward.logits.detach() - before).abs().max()) > 0.05


def random_table(environment: DiscreteEnvironment) -> TabularPolicy:
    graph = enumerate_states(environment)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(graph.num_states, environment.num_actions, generator=generator, dtype=torch.float64)
    return TabularPolicy(graph, Direction.BACKWARD, logits)


def every_path(pair: GFlowNet) -> tuple[Path, Tensor]:
    """All paths of an environment, and where each one's object stands among the objects."""
    graph = enumerate_states(pair.environment)
    found = enumerate_paths(graph)
    path = Path(graph.states[found.states], found.actions, found.lengths, torch.ones(len(found.lengths)) > 0)
    place = graph.index(path.end)
    return path, (graph.is_terminal.cumsum(0) - 1)[place]


@pytest.mark.parametrize("known", [True, False])
def test_the_backward_policy_of_greatest_entropy(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every path to an object equally likely, by the environment's own count or by a learned one."""
    unchecked(monkeypatch)
    environment, target = PROBLEMS["grid" if known else "stairs"]()
    log_count = None if known else TabularFlow(enumerate_states(environment))
    pair = tables(environment, backward=MaxEntropyPolicy(environment, log_count=log_count))
    config = config_for("trajectory_balance", backward="max_entropy", num_steps=400)
    result = run(environment, target, config, pair=pair)
    assert distance(result.pair, target) <= 2e-2
    assert abs(log_z_error(result.pair, target)) <= 2e-2
    path, place = every_path(result.pair)
    log_num_paths = torch.bincount(place).double().log()[place]
    assert float((result.pair.log_backward(path) + log_num_paths).abs().max()) < (1e-12 if known else 5e-2)
    if not known:
        # Negative control: a count that has learned nothing is another law.
        assert float((pair_of_zeros(environment).log_backward(path) + log_num_paths).abs().max()) > 0.2


def pair_of_zeros(environment: DiscreteEnvironment) -> GFlowNet:
    backward = MaxEntropyPolicy(environment, log_count=TabularFlow(enumerate_states(environment)))
    return tables(environment, backward=backward)


def test_a_backward_policy_that_retraces_the_forward_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its best P_B is what Bayes' rule makes of P_F: then every path has the same weight."""
    unchecked(monkeypatch)
    environment, target = PROBLEMS["grid"]()
    config = config_for("trajectory_balance", backward="trajectory_likelihood", num_steps=400, batch_size=128)
    result = run(environment, target, config, pair=tables(environment, backward=random_table(environment)))
    assert distance(result.pair, target) <= 2e-2
    path, _ = every_path(result.pair)
    log_weights = target.log_prob(path.end) + result.pair.log_backward(path) - result.pair.log_forward(path)
    likely = result.pair.log_forward(path) > math.log(1e-3)
    assert float(log_weights[likely].std()) < 0.1
    assert result.quality.ess_fraction > 0.99


@pytest.mark.parametrize("objective", ["trajectory_balance", "detailed_balance", "log_partition_variance"])
def test_what_retraces_is_not_taught_by_the_balance(objective: str) -> None:
    environment, target = PROBLEMS["grid"]()
    backward = random_table(environment)
    pair = tables(environment, backward=backward)
    path = sample_paths(pair, 30)
    log_reward = target.log_prob(environment.objects(path.end))
    own = torch.zeros(30, dtype=torch.bool)
    batch = losses.Batch(path, log_reward, own, 1.0, -50.0)
    for option, learns_by_balance in (("learned", True), ("trajectory_likelihood", False)):
        backward.zero_grad()
        config = tiny(objective=objective, backward=option)
        losses.Losses(config, pair, target).of(batch, objective).mean().backward()
        has_gradient = backward.logits.grad is not None and bool(backward.logits.grad.any())
        assert has_gradient == learns_by_balance
    # Of the pair's own paths it learns by likelihood.
    backward.zero_grad()
    mine = losses.Batch(path, log_reward, ~own, 1.0, -50.0)
    config = tiny(objective=objective, backward="trajectory_likelihood")
    by_path = losses.Losses(config, pair, target).of(mine, objective)
    balance = losses.Losses(config, pair, target).of(batch, objective)
    assert_close(by_path - balance, -pair.log_backward(path), 1e-10)
    by_path.mean().backward()
    assert backward.logits.grad.any()


@pytest.mark.parametrize("power", [0.3, 1.0])
def test_modified_balance_holds_for_the_scheduled_reward(power: float) -> None:
    """The pair that is exact for R^b has no loss at power b, and one at any other."""
    environment, target = PROBLEMS["grid"]()
    raised = from_function(lambda x: power * target.log_prob(x), (2,), values=(0, 1, 2))
    pair = solved_pair(environment, raised)
    path = sample_paths(pair, 30)
    log_prob = target.log_prob(environment.objects(path.end))
    own = torch.ones(30, dtype=torch.bool)
    config = tiny(objective="modified_detailed_balance")
    for at, is_exact in ((power, True), (0.6, False)):
        batch = losses.Batch(path, at * log_prob, own, at, -50.0)
        loss = float(losses.Losses(config, pair, target).of(batch, "modified_detailed_balance").detach().max())
        assert (loss < 1e-20) == is_exact


def test_every_state_that_modified_balance_asks_about_is_counted() -> None:
    environment, target = PROBLEMS["stairs"]()
    counted = CountingTarget(target)
    result = run(environment, counted, tiny(objective="modified_detailed_balance"), pair=tables(environment))
    assert result.cost.target_calls == counted.num_rows
    # Negative control: more than one call for each path and look.
    assert counted.num_rows > 12 * 8 + 3 * 16


def test_objectives_that_ask_for_what_is_not_there_are_refused() -> None:
    environment, target = PROBLEMS["three spins"]()
    with pytest.raises(CapabilityError, match="has no exit action"):
        run(environment, target, tiny(objective="modified_detailed_balance"))
    pair = GFlowNet(TabularPolicy(enumerate_states(environment), Direction.FORWARD))
    for objective in ("detailed_balance", "subtrajectory_balance", *FORWARD_LOOKING):
        with pytest.raises(OptionError, match=f"{objective} learns a state flow, and the pair has none"):
            run(environment, target, tiny(objective=objective), pair=pair)


def test_likelihood_comes_first_and_then_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    environment, target = PROBLEMS["three spins"]()
    asked: list[str] = []
    of = losses.Losses.of
    monkeypatch.setattr(losses.Losses, "of", lambda self, batch, name: asked.append(name) or of(self, batch, name))
    options = {"num_steps": 10, "likelihood_until": 0.35, "objective": "subtrajectory_balance"}
    run(environment, target, tiny(seeding="tempering", **options))
    assert asked == ["maximum_likelihood"] * 4 + ["subtrajectory_balance"] * 6
    asked.clear()
    run(environment, target, tiny(seeding="none", **options))
    assert asked == ["subtrajectory_balance"] * 10


def test_maximum_likelihood_needs_seeds_that_exist() -> None:
    environment = Stairs(5)
    nothing = from_function(lambda x: torch.full((len(x),), -math.inf), (1,), values=tuple(range(6)), name="nothing")
    config = tiny(objective="maximum_likelihood", seeding="auto")
    with pytest.raises(OptionError, match="maximum likelihood learns seeds, and nothing can have none"):
        run(environment, nothing, config)

    class Islands(Stairs):
        changes_connect = False

    with pytest.raises(OptionError, match="maximum likelihood learns seeds, and stairs can have none"):
        run(Islands(5), stairs_target(Stairs(5)), config)
