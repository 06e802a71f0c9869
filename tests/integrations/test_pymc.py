"""PyMC's own sampler with our step in it: proved by enumeration, then run beside NUTS."""

import multiprocessing

import cloudpickle
import numpy as np
import pymc as pm
import pytest
import torch

from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.environments import Lattice
from gfnmc.integrations.pymc import GFlowNetSMC, GFlowNetStep, discrete_block
from tests.integrations.proofs import batch_transitions, break_ratio, error_of, normalised, transitions
from tests.support import assert_close, random_pair, solved_pair

# What a block of a bit and a trit may be.
OBJECTS = torch.tensor([[x, z] for x in (0, 1) for z in (0, 1, 2)])
TRITS = np.array([0.5, 0.3, 0.2])


@pytest.fixture(scope="module")
def model():
    with pm.Model() as model:
        rate = pm.Exponential("rate", 1.0)
        x = pm.Bernoulli("x", pm.math.sigmoid(rate))
        z = pm.Categorical("z", TRITS)
        pm.Normal("y", x * rate + z, 1.0, observed=1.5)
    return model


def exact_log_prob(objects, rate):
    """The joint log-density, by hand, up to what does not depend on the objects."""
    x, z = objects.double().T
    odds = rate * x - np.log1p(np.exp(rate))
    return odds + torch.from_numpy(TRITS).log()[objects[:, 1]] - 0.5 * (1.5 - x * rate - z) ** 2


def pair(order="fixed"):
    return random_pair(Lattice((2,), (0, 1, 2), order=order))


def step_of(model, **options):
    with model:
        return GFlowNetStep([model["x"], model["z"]], pair=pair(), **options)


def moves(step, rate):
    """Return a move of an object by one step of PyMC at some value of the rest."""

    def move(x):
        start = {"x": x[0].numpy(), "z": x[1].numpy(), "rate_log__": np.log(rate)}
        end, _ = step.step(start)
        assert end["rate_log__"] == start["rate_log__"]
        return torch.tensor([int(end["x"]), int(end["z"])])

    return move


def test_a_step_leaves_the_conditional_law_invariant(model):
    step = step_of(model)
    # The same step, as it moves on while its siblings change the rest.
    moves(step, 0.4)(OBJECTS[0])
    pmf = normalised(exact_log_prob(OBJECTS, 2.5))
    matrix = transitions(step.proposals, moves(step, 2.5), OBJECTS)
    assert error_of(matrix, pmf) < 1e-12
    assert (matrix > 0).all()
    # Negative controls: the law at another value of the rest, and no correction.
    assert error_of(matrix, normalised(exact_log_prob(OBJECTS, 0.4))) > 1e-3
    break_ratio(step.proposals, 0.0)
    assert error_of(transitions(step.proposals, moves(step, 2.5), OBJECTS), pmf) > 1e-3


def test_the_state_of_a_step_brings_back_its_next_draw(model):
    step = step_of(model, rng=np.random.default_rng(3))
    move = moves(step, 1.0)
    start = OBJECTS[0]
    for _ in range(5):
        move(start)
    state = step.sampling_state
    after = [move(start).tolist() for _ in range(10)]
    step.sampling_state = state
    assert [move(start).tolist() for _ in range(10)] == after
    other = step_of(model, rng=np.random.default_rng(4))
    assert [moves(other, 1.0)(start).tolist() for _ in range(10)] != after
    other.sampling_state = state
    assert [moves(other, 1.0)(start).tolist() for _ in range(10)] == after
    # As processes that do not fork get it.
    copy = cloudpickle.loads(cloudpickle.dumps(step))
    copy.sampling_state = state
    assert [moves(copy, 1.0)(start).tolist() for _ in range(10)] == after


def test_a_block_is_the_model_as_a_function_of_it(model):
    for rate in (0.4, 2.5):
        environment, target = discrete_block([model["x"], model["z"]], held={"rate": rate}, model=model)
        assert environment.values == (0, 1, 2)
        found = target.log_prob(OBJECTS)
        wanted = exact_log_prob(OBJECTS, rate)
        assert_close(found - found[0], wanted - wanted[0], 1e-10)
        # Two coins with one side too many.
        assert (target.log_prob(torch.tensor([[2, 0], [2, 2]])) == -torch.inf).all()
        support, log_pmf = target.exact().support, target.exact().log_pmf
        assert_close(log_pmf[support[:, 0] < 2], normalised(wanted).log(), 1e-10)


def test_values_of_distributions():
    with pm.Model() as model:
        free = pm.Normal("free", shape=3)
        pm.Binomial("count", 2, 0.5, shape=(2, 2))
        pm.DiscreteUniform("die", 2, 4)
        pm.Categorical("kind", logit_p=free)
        pm.Poisson("events", 1.0)
        pm.DiscreteUniform("odd", 0, free.sum().astype(int) + 5)
    assert discrete_block([model["count"]], model=model).environment.values == (0, 1, 2)
    assert discrete_block([model["count"]], model=model).target.event_shape == (4,)
    assert discrete_block([model["kind"]], model=model).environment.values == (0, 1, 2)
    both = discrete_block([model["die"], model["kind"]], model=model, order="learned").environment
    assert both.values == (0, 1, 2, 3, 4)
    assert both.order == "learned"
    assert discrete_block([model["events"]], values=range(4), model=model).environment.values == (0, 1, 2, 3)
    with pytest.raises(OptionError, match="the values of events, a poisson, have to be given"):
        discrete_block([model["events"]], model=model)
    with pytest.raises(OptionError, match="how many values odd has depends on other variables"):
        discrete_block([model["odd"]], model=model)
    with pytest.raises(OptionError, match="free is continuous"):
        discrete_block([free], model=model)
    with pytest.raises(OptionError, match="the model has no free variable 'rate'"):
        discrete_block([model["die"]], held={"rate": 1.0}, model=model)


def test_what_does_not_fit_is_refused(model):
    with model, pytest.raises(OptionError, match="x have 1 entries and the objects of the pair 2"):
        GFlowNetStep([model["x"]], pair=pair())
    with model, pytest.raises(CapabilityError, match="moves all variables of its block together"):
        GFlowNetStep([model["x"]], pair=pair(), blocked=False)
    with model, pytest.raises(OptionError, match="num_moves is 0"):
        GFlowNetSMC(draws=4, pair=pair(), num_moves=0)
    with model, pytest.raises(OptionError, match="have 3 entries and the objects of the pair 2"):
        GFlowNetSMC(draws=4, pair=pair())


def exact_means():
    """E[x] and E[rate], by quadrature."""
    rate = np.linspace(1e-4, 15.0, 4001)
    log_weight = torch.stack([exact_log_prob(OBJECTS, value) for value in rate]).numpy() - rate[:, None]
    weight = np.exp(log_weight)
    weight /= weight.sum()
    return weight.sum(0) @ OBJECTS[:, 0].numpy(), weight.sum(1) @ rate


def sampled(model, step, **options):
    options = {"draws": 150, "tune": 80, "chains": 2, "cores": 1, "random_seed": 1} | options
    with model:
        return pm.sample(step=[step], progressbar=False, compute_convergence_checks=False, **options)


def test_beside_nuts(model):
    environment, target = discrete_block([model["x"], model["z"]], held={"rate": 1.0}, model=model, order="fixed")
    with model:
        step = GFlowNetStep([model["x"], model["z"]], pair=solved_pair(environment, target))
    found = sampled(model, step)
    x, rate = (found.posterior[name].to_numpy() for name in ("x", "rate"))
    wanted = exact_means()
    for values, mean in zip((x, rate), wanted, strict=True):
        # Means of 10 batches of each chain are nearly independent.
        batches = values.reshape(2, 10, -1).mean(-1)
        assert abs(batches.mean() - mean) < 5.0 * batches.std(ddof=1) / np.sqrt(20)
    stats = found.sample_stats
    assert stats["accept"].dims == ("chain", "draw")
    assert 0.0 < float(stats["accept"].mean()) < 1.0
    assert stats["accepted"].dtype == bool
    # The log-density is that of NUTS, in every draw.
    assert stats["lp"].dims == ("chain", "draw")
    assert (stats["lp"] != 0.0).all()


def walk(step, queue):
    move = moves(step, 1.0)
    queue.put([move(OBJECTS[0]).tolist() for _ in range(20)])


def multiply(queue):
    torch.set_num_threads(2)
    queue.put(float((torch.ones(1000, 1000) @ torch.ones(1000, 1000))[0, 0]))


def result_of_fork(function, *args, patience):
    """Return what a forked process has to say; None if it hangs."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=function, args=(*args, queue))
    process.start()
    process.join(patience)
    if process.is_alive():
        process.kill()
        process.join()
        return None
    return queue.get()


def test_processes_that_fork_after_torch_has_used_its_threads(model):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        multiply(multiprocessing.SimpleQueue())
        step = step_of(model, rng=np.random.default_rng(5))
        # Negative control: torch's threads did not survive the fork.
        assert result_of_fork(multiply, patience=2.0) is None
        assert len(result_of_fork(walk, step, patience=60.0)) == 20
        alone, together = (sampled(model, step, draws=5, tune=5, cores=cores) for cores in (1, 2))
        assert np.array_equal(alone.posterior["x"], together.posterior["x"])
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def discrete_model():
    with pm.Model() as model:
        x = pm.Bernoulli("x", 0.4)
        z = pm.Categorical("z", TRITS)
        pm.Normal("y", 2.0 * x + z, 0.5, observed=1.5)
    return model


def test_particles_move_by_the_tempered_law(discrete_model):
    with discrete_model:
        kernel = GFlowNetSMC(draws=6, pair=pair(), num_moves=1)
    x, z = OBJECTS.double().T
    prior = (0.6 - 0.2 * x).log() + torch.from_numpy(TRITS).log()[OBJECTS[:, 1]]
    likelihood = torch.distributions.Normal(2.0 * x + z, 0.5).log_prob(torch.tensor(1.5, dtype=torch.float64))
    kernel.beta = 0.3

    def move(objects):
        rows = objects.double().numpy()
        index = (objects[:, 0] * 3 + objects[:, 1]).numpy()
        kernel.tempered_posterior = rows.copy()
        kernel.prior_logp, kernel.likelihood_logp = prior.numpy()[index], likelihood.numpy()[index]
        kernel.tempered_posterior_logp = kernel.prior_logp + kernel.beta * kernel.likelihood_logp
        kernel.mutate()
        end = torch.from_numpy(kernel.tempered_posterior).long()
        index = (end[:, 0] * 3 + end[:, 1]).numpy()
        # What goes with a particle goes along.
        assert np.allclose(kernel.prior_logp, prior.numpy()[index])
        assert np.allclose(kernel.likelihood_logp, likelihood.numpy()[index])
        return end

    pmf = normalised(prior + 0.3 * likelihood)
    assert error_of(batch_transitions(kernel.proposals, move, OBJECTS), pmf) < 1e-9
    for factor in (0.0, -1.0):
        break_ratio(kernel.proposals, factor)
        assert error_of(batch_transitions(kernel.proposals, move, OBJECTS), pmf) > 1e-3


def test_smc_finds_log_z(discrete_model):
    _, target = discrete_block([discrete_model["x"], discrete_model["z"]], model=discrete_model)
    with discrete_model:
        found = pm.sample_smc(300, kernel=GFlowNetSMC, pair=pair(), chains=2, cores=1, random_seed=1, progressbar=False)
    log_z = [np.ravel(values[-1])[-1] for values in found.sample_stats["log_marginal_likelihood"].to_numpy()]
    assert np.allclose(log_z, target.exact().log_z, atol=0.2)
    rates = [np.ravel(values[0])[-1] for values in found.sample_stats["accept"].to_numpy()]
    assert all(0.0 < rate < 1.0 for rate in rates)
