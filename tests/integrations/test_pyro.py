"""Pyro's own MCMC with our kernel in it: proved by enumeration, then run beside NUTS."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS

from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.environments import Lattice
from gfnmc.integrations.pyro import GFlowNetKernel, discrete_block
from tests.integrations.proofs import TOLERANCE, break_ratio, error_of, normalised, transitions
from tests.support import assert_close, random_pair, solved_pair

OBJECTS = torch.tensor([[x, z] for x in (0, 1) for z in (0, 1, 2)])
TRITS = torch.tensor([0.5, 0.3, 0.2])


def mixed(y):
    rate = pyro.sample("rate", dist.Exponential(1.0))
    x = pyro.sample("x", dist.Bernoulli(torch.sigmoid(rate)))
    z = pyro.sample("z", dist.Categorical(TRITS))
    pyro.sample("y", dist.Normal(x * rate + z, 1.0), obs=y)


def discrete(y):
    x = pyro.sample("x", dist.Bernoulli(torch.tensor([0.4, 0.7])).to_event(1))
    pyro.sample("y", dist.Normal(x @ torch.tensor([2.0, 1.0]), 0.5), obs=y)


Y = torch.tensor(1.5)


def exact_log_prob(objects, rate):
    """The joint log-density of the mixed model, by hand, up to what does not depend on the objects."""
    x, z = objects.double().T
    odds = rate * x - np.log1p(np.exp(rate))
    return odds + TRITS.double().log()[objects[:, 1]] - 0.5 * (1.5 - x * rate - z) ** 2


def pair(values=(0, 1, 2)):
    return random_pair(Lattice((2,), values, order="fixed"))


def run(kernel, *args, num_samples=5, warmup_steps=2, **options):
    mcmc = MCMC(kernel, num_samples=num_samples, warmup_steps=warmup_steps, disable_progbar=True, **options)
    mcmc.run(*args)
    return mcmc


def test_a_step_leaves_the_law_invariant():
    kernel = GFlowNetKernel(discrete, pair=pair((0, 1)))
    kernel.setup(0, Y)
    _, target = discrete_block(discrete, args=(Y,))

    def move(x):
        return kernel.sample({"x": x.float()})["x"].long()

    support, pmf = target.exact().support, target.exact().log_pmf.exp()
    assert error_of(transitions(kernel.proposals, move, support), pmf) < TOLERANCE
    # Negative control.
    break_ratio(kernel.proposals, -1.0)
    assert error_of(transitions(kernel.proposals, move, support), pmf) > 1e-3


def test_values_of_another_site_are_proposed_and_never_taken():
    pyro.set_rng_seed(0)
    kernel = GFlowNetKernel(pyro.poutine.condition(mixed, data={"rate": torch.tensor(0.4)}), pair=pair())
    proposed, propose = [], kernel.proposals.propose

    def watched(objects, draws):
        position, log_ratio = propose(objects, draws)
        proposed.append(position.tolist())
        return position, log_ratio

    kernel.proposals.propose = watched
    # Pyro's samplers do not validate, and then 2 has a density under a coin.
    samples = run(kernel, Y, num_samples=60, initial_params={"x": torch.tensor(0.0), "z": torch.tensor(0.0)})
    assert any(position[0][0] == 2 for position in proposed)
    assert set(samples.get_samples()["x"].tolist()) <= {0.0, 1.0}
    assert len(samples.get_samples()["z"].unique()) > 1


def test_a_block_is_the_model_as_a_function_of_it():
    for rate in (0.4, 2.5):
        wanted = exact_log_prob(OBJECTS, rate)
        for is_batched in (True, False):
            environment, target = discrete_block(
                mixed, args=(Y,), held={"rate": torch.tensor(rate)}, is_batched=is_batched, order="learned"
            )
            assert environment.values == (0, 1, 2)
            assert environment.order == "learned"
            found = target.log_prob(OBJECTS)
            assert_close(found - found[0], wanted - wanted[0], 1e-5)
            assert (target.log_prob(torch.tensor([[2, 0], [2, 2]])) == -torch.inf).all()
            assert target.exact().support.shape == (9, 2)


def test_a_block_of_one_site_with_event_dimensions():
    _, target = discrete_block(discrete, kwargs={"y": Y})
    assert target.values == (0, 1)
    x = target.exact().support.double()
    odds = torch.tensor([0.4, 0.7]).double()
    prior = torch.where(x == 1, odds, 1 - odds).log().sum(1)
    wanted = prior - 2.0 * (1.5 - x @ torch.tensor([2.0, 1.0]).double()) ** 2
    assert_close(target.exact().log_pmf, normalised(wanted).log(), 1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(CapabilityError, match=r"continuous sites too, \['rate'\]; say what moves them"):
        run(GFlowNetKernel(mixed, pair=pair()), Y)
    with pytest.raises(OptionError, match=r"\['x'\] have 2 entries and the objects of the pair 3"):
        run(GFlowNetKernel(discrete, pair=random_pair(Lattice((3,), (0, 1)))), Y)
    with pytest.raises(OptionError, match=r"depends on \['rate'\]; give held"):
        discrete_block(mixed, args=(Y,))
    with pytest.raises(OptionError, match="no discrete latent sites"):
        discrete_block(lambda: pyro.sample("w", dist.Normal(0.0, 1.0)), held={"w": torch.tensor(0.0)})
    with pytest.raises(OptionError, match="n, a Poisson, has no finite list of values"):
        discrete_block(lambda: pyro.sample("n", dist.Poisson(1.0)))


def test_chains_repeat_with_the_seed_and_start_where_they_are_told():
    def samples(seed, **options):
        pyro.set_rng_seed(seed)
        kernel = GFlowNetKernel(discrete, pair=pair((0, 1)))
        mcmc = run(kernel, Y, num_samples=30, warmup_steps=0, **options)
        assert 0.0 < mcmc.diagnostics()["acceptance rate"]["chain 0"] < 1.0
        return mcmc.get_samples(group_by_chain=True)["x"]

    one = samples(1)
    assert one.dtype == torch.get_default_dtype()
    assert one.shape == (1, 30, 2)
    assert torch.equal(one, samples(1))
    assert not torch.equal(one, samples(2))
    seen = []
    start = {"x": torch.tensor([1.0, 0.0])}
    kernel = GFlowNetKernel(discrete, pair=pair((0, 1)))
    inner = kernel.sample
    kernel.sample = lambda params: seen.append(params["x"].tolist()) or inner(params)
    run(kernel, Y, initial_params=start)
    assert seen[0] == [1.0, 0.0]


def test_chains_of_one_kernel_start_apart():
    pyro.set_rng_seed(0)
    starts = []
    kernel = GFlowNetKernel(discrete, pair=random_pair(Lattice((2,), (0, 1))))
    for _ in range(12):
        kernel.setup(0, Y)
        starts.append(tuple(kernel.initial_params["x"].tolist()))
        kernel.cleanup()
    assert len(set(starts)) > 1


def test_chains_start_where_the_model_allows():
    pyro.set_rng_seed(0)
    wide = pair()
    # Negative control: P_F itself draws a coin's third side, too.
    assert (GFlowNetKernel(mixed, pair=wide).proposals.start_rows(50, 0)[:, 0] == 2).any()
    kernel = GFlowNetKernel(pyro.poutine.condition(mixed, data={"rate": torch.tensor(0.4)}), pair=wide)
    for _ in range(10):
        kernel.setup(0, Y)
        assert float(kernel.initial_params["x"]) < 2.0
    nowhere = GFlowNetKernel(discrete, pair=pair((5, 6)))
    with pytest.raises(ObjectError, match="none of 256 objects drawn by P_F is possible"):
        nowhere.setup(0, Y)


def exact_means():
    """E[x] and E[rate], by quadrature."""
    rate = np.linspace(1e-4, 15.0, 4001)
    log_weight = torch.stack([exact_log_prob(OBJECTS, value) for value in rate]).numpy() - rate[:, None]
    weight = np.exp(log_weight)
    weight /= weight.sum()
    return weight.sum(0) @ OBJECTS[:, 0].numpy(), weight.sum(1) @ rate


def test_beside_nuts():
    pyro.set_rng_seed(0)
    environment, target = discrete_block(mixed, args=(Y,), held={"rate": torch.tensor(1.0)}, order="fixed")
    solved = solved_pair(environment, target)
    kernel = GFlowNetKernel(mixed, pair=solved, continuous=partial(NUTS, max_tree_depth=3))
    mcmc = run(kernel, Y, num_samples=200, warmup_steps=50)
    samples = mcmc.get_samples()
    assert (samples["rate"] > 0).all()
    for values, mean in zip((samples["x"], samples["rate"]), exact_means(), strict=True):
        batches = values.reshape(10, -1).mean(-1)
        assert abs(batches.mean() - mean) < 6.0 * batches.std() / 10**0.5
    assert "continuous divergences" in mcmc.diagnostics()


def test_chains_in_processes_of_their_own(monkeypatch):
    # Pyro leaves one of them free, and otherwise runs chains one after the other.
    monkeypatch.setattr("torch.multiprocessing.cpu_count", lambda: 3)
    pyro.set_rng_seed(0)
    kernel = GFlowNetKernel(mixed, pair=pair(), continuous=partial(NUTS, max_tree_depth=2))
    mcmc = run(kernel, Y, num_samples=20, warmup_steps=5, num_chains=2)
    samples = mcmc.get_samples(group_by_chain=True)
    assert samples["rate"].shape == (2, 20)
    # On the natural scale, though no chain was ever set up in this process.
    assert (samples["rate"] > 0).all()
    assert not torch.equal(samples["rate"][0], samples["rate"][1])
    assert set(mcmc.diagnostics()["acceptance rate"]) == {"chain 0", "chain 1"}


def test_the_other_kernel_never_sees_an_old_density():
    pyro.set_rng_seed(0)
    kernel = GFlowNetKernel(mixed, pair=pair(), continuous=NUTS)
    kernel.setup(1, Y)
    params = kernel.initial_params
    inner, seen = kernel._kernel, []
    right = inner.sample

    def watched(z):
        seen.append((inner._fetch_from_cache()[0], float(inner.potential_fn(z))))
        return right(z)

    inner.sample = watched
    for _ in range(10):
        rate = params["rate"].exp()
        params = kernel.sample(params)
        cached, potential = seen[-1]
        assert cached is None
        objects = torch.stack([params["x"], params["z"]]).long()[None]
        wanted = exact_log_prob(objects, float(rate)) - rate + rate.log() + TRITS.sum().log()
        constant = -0.5 * np.log(2.0 * np.pi)
        assert_close(-potential, wanted[0] + constant, 1e-4)
