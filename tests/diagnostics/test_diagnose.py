"""All diagnostics of a run: chains that mix, and chains that do not, each in its own way."""

import functools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gfnmc
from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.diagnostics import Diagnosis, acceptance_by_depth, convergence, energy_distance, nested_r_hat
from gfnmc.diagnostics.evidence import CONDITIONAL
from gfnmc.diagnostics.figures import worst_figure
from gfnmc.environments import Direction, Lattice, enumerate_states
from gfnmc.experiments.document import sampler_figures
from gfnmc.kernels import Cycle, Gibbs, IndependenceMH, MultipleTrySuffix, RandomWalk, SuffixResampling
from gfnmc.kernels.branch import FullRestart
from gfnmc.policies import GFlowNet, TabularPolicy
from gfnmc.sampling import Chains, sample
from gfnmc.targets import Ising, NoisyCopy, Target, from_function
from tests.support import CountingTarget, is_identical, random_numbers, solved_pair

# Two modes with hardly a way between them for single changes; exactly known.
TARGET = Ising((4,), 1.2)
LATTICE = Lattice.for_target(TARGET, order="fixed")
UP = torch.ones(4, dtype=torch.int8)
OPTIONS: dict[str, Any] = {"num_chains": 4, "num_samples": 300, "num_warmup": 10, "progress_bar": False}


@functools.cache
def decent() -> GFlowNet:
    """The exact pair with noise in its logits."""
    exact, graph = solved_pair(LATTICE, TARGET), enumerate_states(LATTICE)
    noise = 0.5 * random_numbers(1, graph.num_states, LATTICE.num_actions)
    return GFlowNet(TabularPolicy(graph, Direction.FORWARD, exact.forward.logits.detach() + noise), exact.backward)


@functools.cache
def mixed() -> Chains:
    return sample(SuffixResampling(decent(), TARGET, FullRestart()), seed=1, **OPTIONS)


@functools.cache
def diagnosed() -> Diagnosis:
    return gfnmc.diagnose(mixed(), pair=decent())


def with_draws(chains: Chains, position: Tensor) -> Chains:
    """The same run, with other kept draws."""
    log_prob = TARGET.log_prob(position.flatten(0, 1)).reshape(position.shape[:2])
    return replace(chains, samples=replace(chains.samples, position=position, log_prob=log_prob))


def test_a_good_run_is_ok() -> None:
    found = diagnosed()
    assert found.status == "ok" and found.is_ok
    assert found.verdict[0].startswith("mixed: all 2 modes were visited")
    assert len(found.verdict) == 1
    assert repr(found) == f"Diagnosis('ok', {found.verdict[0]!r})"
    assert [row["name"] for row in found.scalars] == [*mixed().statistics, "in spins down", "in spins up"]
    assert found.movement["stuck"] == found.movement["trapped"] == []


def test_its_figures_are_those_of_the_parts() -> None:
    found, chains = diagnosed(), mixed()
    for name, values in chains.statistics.items():
        alone, row = convergence(values), found[name]
        assert (row["mean"], row["mcse"], row["ess_bulk"], row["r_hat"]) == (
            alone.mean,
            alone.mcse,
            alone.ess_bulk,
            alone.r_hat,
        )
        assert row["ess_mean"] == alone.ess_mean and row["behaviour"] == "moves"
        assert row["lags"] == [1, 2, 5, 10, 20, 50, 100] and len(row["autocorrelation"]) == 7
    exact = TARGET.exact()
    assert exact is not None and exact.mode_masses is not None
    for place, row in enumerate(found.modes):
        assert row["exact_mass"] == exact.mode_masses[place]
        assert abs(row["mass"] - row["exact_mass"]) < 4.9 * row["mass_error"]
        assert row["chains"] == 4 and row["mean_stay"] > 1.0
    assert found["log_prob"]["exact"] == pytest.approx(float(exact.log_pmf.exp() @ exact.log_pmf) + exact.log_z)
    assert found.worst == worst_figure(chains, found.scalars)
    assert found.proposal["acceptance"]["by_depth"] == acceptance_by_depth(chains, LATTICE)
    assert sum(found.proposal["reasons"].values()) == 4 * 300
    transitions = found.transitions
    assert transitions is not None
    counts = np.array(transitions["counts"])
    assert counts.sum() <= 4 * 299 and counts.sum() - np.trace(counts) == transitions["switches"] > 10
    assert found.discovery is not None and found.discovery["modes_found"] == [1, 2]
    assert found.discovery["calls"] == sorted(row["found_after_calls"] for row in found.modes)


def test_a_comparison_shows_the_same_figures() -> None:
    document = sampler_figures("it", mixed(), TARGET.exact())
    found = diagnosed()
    for row in document["statistics"]:
        assert row.items() <= found[row["name"]].items()
    for shown, row in zip(document["modes"], found.modes, strict=True):
        assert shown.items() <= row.items()
    assert document["switches_per_1000_steps"] == found.transitions["switches_per_1000_steps"]
    assert document["total_variation"]["value"] == found.distances[0]["value"]


def test_distances_stand_beside_their_floors() -> None:
    rows = {row["name"]: row for row in diagnosed().distances}
    assert list(rows) == [
        "total variation",
        "Jensen-Shannon divergence, nats",
        "energy distance",
        "sliced Wasserstein",
        "squared MMD",
    ]
    for row in rows.values():
        assert 0.0 < row["iid_floor"] < row["iid_floor_at_worst_ess"]
        assert row["value"] < 5 * row["iid_floor_at_worst_ess"]
    assert rows["energy distance"]["to"] == "exact draws" and rows["energy distance"]["num_reference"] == 1_000
    # Of a run that has lost a mode they are far away.
    lost = gfnmc.diagnose(with_draws(mixed(), UP.expand(4, 300, 4)))
    assert all(row["value"] > 5 * row["iid_floor"] for row in lost.distances)
    assert all(row["iid_floor_at_worst_ess"] is None for row in lost.distances)


def test_a_reference_of_ones_own() -> None:
    support = TARGET.exact().sample(PhiloxDraws(9, "mine", 50))
    found = gfnmc.diagnose(mixed(), reference=support, reference_name="my draws")
    row = next(row for row in found.distances if row["name"] == "energy distance")
    assert (row["to"], row["num_reference"]) == ("my draws", 50)
    assert (
        row["value"]
        == energy_distance(mixed().x.flatten(0, 1)[np.linspace(0, 1_199, 1_000).astype(int)], support).value
    )


def test_a_stuck_ensemble_is_stuck() -> None:
    objects = enumerate_states(LATTICE).objects[:4]
    found = gfnmc.diagnose(with_draws(mixed(), objects[:, None].expand(4, 300, 4)))
    assert found.status == "stuck" and not found.is_ok
    assert "none of 4 chains moved at all" in found.verdict[0]
    assert found.movement["stuck"] == [0, 1, 2, 3] and found.movement["moved"] == [0.0] * 4
    # All at one object: R-hat and ESS would be perfect.
    found = gfnmc.diagnose(with_draws(mixed(), UP.expand(4, 300, 4)))
    assert found.status == "stuck"
    assert found["log_prob"]["ess_bulk"] is found["log_prob"]["mcse"] is found["log_prob"]["r_hat"] is None
    assert found["in spins down"]["behaviour"] == "never visited"
    assert found["in spins up"]["behaviour"] == "never left"
    assert "'spins down' was never visited: its mass is not known, which is not 0." in found.verdict


def test_one_stuck_chain_of_four_is_stuck() -> None:
    position = mixed().x.clone()
    position[2] = UP
    found = gfnmc.diagnose(with_draws(mixed(), position))
    assert found.status == "stuck" and found.movement["stuck"] == [2]
    assert found.verdict[0].startswith("stuck: chain 2 of 4 never moved in 300 draws")


def test_a_chain_in_one_mode_is_trapped() -> None:
    position = mixed().x.clone()
    ids = mixed().mode_ids(mixed().samples)
    assert ids is not None
    # Draws of the chain that are spins up, again and again: it moves, but never leaves.
    inside = position[1][torch.from_numpy(ids[1] == 1)]
    position[1] = inside[torch.arange(300) % len(inside)]
    found = gfnmc.diagnose(with_draws(mixed(), position))
    assert found.status == "trapped"
    assert found.movement["trapped"] == [{"chain": 1, "mode": "spins up"}]
    assert found.verdict[0].startswith("trapped: chain 1 of 4 stayed in 'spins up' for all 300 draws")


def test_a_walk_that_misses_a_mode_is_trapped_though_it_agrees_with_itself() -> None:
    cold = Ising((4,), 3.0)
    lattice = Lattice.for_target(cold, order="fixed")
    chains = sample(RandomWalk(lattice, cold), init=UP, **{**OPTIONS, "num_samples": 200})
    found = gfnmc.diagnose(chains)
    assert found.status in ("trapped", "stuck") and not found.is_ok
    assert found.modes[0]["mass"] == 0.0 and found.modes[0]["mass_error"] is None
    assert found.modes[0]["chains"] == 0 and found.modes[0]["mean_stay"] is None


def test_the_seed_of_the_trap_is_the_target_not_the_words() -> None:
    """The negative control: single changes at a temperature where they mix are ok."""
    warm = Ising((4,), 0.2)
    lattice = Lattice.for_target(warm, order="fixed")
    chains = sample(Gibbs(lattice, warm, "systematic"), init=UP, **OPTIONS)
    assert gfnmc.diagnose(chains).status == "ok"


def test_few_draws_are_too_short_and_no_trouble() -> None:
    for num_samples in (1, 2, 3):
        chains = sample(RandomWalk(LATTICE, TARGET), **{**OPTIONS, "num_samples": num_samples})
        found = gfnmc.diagnose(chains, pair=solved_pair(LATTICE, TARGET), num_draws=20)
        assert found.status == "too short"
        assert [row["method"] for row in found.evidence] == ["importance sampling"]
        assert Diagnosis.from_dict(json.loads(json.dumps(found.to_dict()))).to_dict() == found.to_dict()


def test_short_chains_are_judged_by_superchains() -> None:
    starts = TARGET.exact().sample(PhiloxDraws(0, "starts", 20)).repeat_interleave(10, 0)
    groups = np.repeat(np.arange(20), 10)
    options = {"num_chains": 200, "num_samples": 20, "num_warmup": 20, "progress_bar": False}
    chains = sample(SuffixResampling(decent(), TARGET), init=starts, **options)
    found = gfnmc.diagnose(chains, superchains=groups.tolist())
    assert found["log_prob"]["r_hat_nested"] == nested_r_hat(chains.statistics["log_prob"], groups.tolist())
    assert gfnmc.diagnose(chains)["log_prob"]["r_hat_nested"] is None
    with pytest.raises(OptionError, match="3 superchains for 200 chains"):
        gfnmc.diagnose(chains, superchains=[0, 1, 2])


def test_log_z_is_vouched_for_by_exact_draws() -> None:
    found, exact = diagnosed(), TARGET.exact()
    assert exact is not None and found.pair is not None and found.bounds is not None
    assert [row["method"] for row in found.evidence] == ["importance sampling", "bridge sampling"]
    for row in found.evidence:
        assert row["label"] == "exact draws cover the modes" and row["exact"] == exact.log_z
        assert abs(row["log_z"] - exact.log_z) < 4.9 * row["standard_error"]
        assert row["low"] < row["log_z"] < row["high"]
    assert found.bounds["elbo"] < exact.log_z < found.bounds["eubo"]
    assert found.bounds["gap"] == pytest.approx(found.bounds["eubo"] - found.bounds["elbo"])
    assert found.bounds["label"] == "exact draws cover the modes" and found.bounds["eubo_from"] == "the reference"
    assert found.pair["importance_ess"] == found.pair["ess_fraction"] * 2_048
    assert 1.0 < found.pair["max_weight"] < 1_000.0


def collapsed() -> GFlowNet:
    """The exact pair, but for the first spin: up e^12 times too rarely."""
    exact, graph = solved_pair(LATTICE, TARGET), enumerate_states(LATTICE)
    logits = exact.forward.logits.detach().clone()
    logits[graph.index(LATTICE.source(1)), 1] -= 12.0
    return GFlowNet(TabularPolicy(graph, Direction.FORWARD, logits), exact.backward)


class Unknown(Ising):
    """The same spins, of which nobody knows the truth."""

    def exact(self) -> None:
        return None


def test_a_pair_that_collapsed_is_labelled_with_and_without_a_reference() -> None:
    chains = sample(IndependenceMH(collapsed(), TARGET), init=-UP, **OPTIONS)
    found = gfnmc.diagnose(chains, pair=collapsed())
    # The chains come and go, and agree; the truth is what gives them away.
    assert found.status == "not converged" and found.pair is not None
    assert "R-hat and effective draws are fine, but the mean of" in found.verdict[0]
    assert {row["label"] for row in found.evidence} == {CONDITIONAL} == {found.bounds["label"]}
    assert any("the pair has collapsed" in line for line in found.verdict)
    assert any(line.startswith("log Z is conditional on the modes visited") for line in found.verdict)
    # What they are conditional on: half of Z, with a confident error.
    for row in found.evidence:
        assert row["high"] < TARGET.exact().log_z - 0.5
        assert row["log_z"] == pytest.approx(TARGET.exact().log_z - math.log(2), abs=0.1)
    # Without a reference everything looks fine, and says what it rests on.
    chains = replace(chains, target=Unknown((4,), 1.2))
    found = gfnmc.diagnose(chains, pair=collapsed())
    assert found.status == "ok" and found["in spins up"]["deviation"] is None
    assert found.pair["warning"] is None and found.bounds["eubo_from"] == "the chains"
    assert {row["label"] for row in found.evidence} == {CONDITIONAL} == {found.bounds["label"]}
    assert found.bounds["gap"] < 0.1
    # A reference of one's own gives it away again.
    elsewhere = TARGET.exact().sample(PhiloxDraws(4, "elsewhere", 100))
    found = gfnmc.diagnose(chains, pair=collapsed(), reference=elsewhere)
    assert found.status == "not converged" and found["in spins up"]["deviation"] > 5.0
    assert any("the pair has collapsed" in line for line in found.verdict)


def test_a_good_pair_does_not_vouch_for_chains_that_missed_a_mode() -> None:
    chains = with_draws(mixed(), UP.expand(4, 300, 4))
    found = gfnmc.diagnose(chains, pair=solved_pair(LATTICE, TARGET))
    labels = {row["method"]: row["label"] for row in found.evidence}
    assert labels == {"importance sampling": "exact draws cover the modes", "bridge sampling": CONDITIONAL}
    assert any(line.startswith("log Z by 'bridge sampling' is conditional") for line in found.verdict)


def test_it_costs_a_call_for_each_draw_of_the_pair_and_object_of_the_reference() -> None:
    counted = CountingTarget(TARGET)
    chains = sample(SuffixResampling(decent(), counted), **{**OPTIONS, "num_samples": 20})
    before = counted.num_rows
    gfnmc.diagnose(chains)
    assert counted.num_rows == before
    objects = enumerate_states(LATTICE).objects
    one = gfnmc.diagnose(chains, pair=decent(), reference=objects, num_draws=30, seed=3)
    assert counted.num_rows == before + 30 + len(objects) + len(objects), "draws, the reference, and max pi / P_F"
    again = {"pair": decent(), "reference": objects, "num_draws": 30}
    assert gfnmc.diagnose(chains, **again, seed=3, num_threads=2) == one
    assert gfnmc.diagnose(chains, **again, seed=4) != one


def test_draws_are_left_as_they_were() -> None:
    before = mixed().x.clone()
    gfnmc.diagnose(mixed())
    assert is_identical(before, mixed().x)


def test_figures_are_plain_data_and_come_back() -> None:
    found = diagnosed()
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["schema"] == "gfnmc.diagnosis/1"
    again = Diagnosis.from_dict(json.loads(text))
    assert again.to_dict() == found.to_dict() and again.verdict == found.verdict
    with pytest.raises(KeyError, match="'nothing' is none of"):
        found["nothing"]


def test_every_figure_is_in_arviz_too(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import xarray

    found = diagnosed()
    group = found.to_dataset()
    tree = xarray.DataTree.from_dict({"diagnosis": group})
    tree.to_netcdf(tmp_path / "diagnosis.nc", engine="h5netcdf")
    with xarray.open_datatree(tmp_path / "diagnosis.nc", engine="h5netcdf") as kept:
        read = kept["diagnosis"]
        assert float(read["ess_bulk"].sel(scalar="log_prob")) == found["log_prob"]["ess_bulk"]
        assert float(read["mass"].sel(mode="spins up")) == found.modes[1]["mass"]
        assert read["transitions"].values.tolist() == found.transitions["counts"]
        assert read.attrs["status"] == "ok"
        assert json.loads(read.attrs["figures"]) == found.to_dict()
    stuck = gfnmc.diagnose(with_draws(mixed(), UP.expand(4, 300, 4))).to_dataset()
    assert np.isnan(stuck["ess_bulk"]).all()


def test_a_target_that_knows_nothing_is_judged_by_its_density() -> None:
    plain: Target = from_function(lambda x: -0.3 * x.sum(1).double(), (20,), values=(0, 1, 2))
    lattice = Lattice.for_target(plain, order="fixed")
    found = gfnmc.diagnose(sample(RandomWalk(lattice, plain), **OPTIONS))
    assert [row["name"] for row in found.scalars] == ["log_prob"]
    assert found.modes == found.distances == found.evidence == found.recycled == ()
    assert found.transitions is found.discovery is found.pair is found.bounds is None
    assert found.status == "not converged"
    assert "mass" not in found.to_dataset()


def test_a_noisy_target_is_judged_without_a_bridge() -> None:
    noisy = NoisyCopy(TARGET, (0.25, 1.75), (0.5, 0.5))
    pair = decent()
    chains = sample(SuffixResampling(pair, noisy), **{**OPTIONS, "num_samples": 40})
    found = gfnmc.diagnose(chains, pair=pair, num_draws=200)
    assert [row["method"] for row in found.evidence] == ["importance sampling"]
    assert any(line.startswith("no bridge: ") for line in found.verdict)
    assert found.evidence[0]["label"] == CONDITIONAL


def test_recycled_means_come_with_their_gain() -> None:
    kernel = MultipleTrySuffix(decent(), TARGET, num_tries=6, recycle=True)
    chains = sample(Cycle([kernel, RandomWalk(LATTICE, TARGET)]), **{**OPTIONS, "num_samples": 40})
    rows = {row["name"]: row for row in gfnmc.diagnose(chains).recycled}
    assert set(rows) == {*TARGET.statistics(UP[None]), "occ[spins down]", "occ[spins up]"}
    for name, row in rows.items():
        if name in chains.statistics:
            plain = convergence(chains.statistics[name])
            assert row["plain_mcse"] == plain.mcse
            assert row["gain"] == pytest.approx((plain.mcse / row["mcse"]) ** 2)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(OptionError, match="num_draws is 1; it must be at least 2"):
        gfnmc.diagnose(mixed(), num_draws=1)
    with pytest.raises(OptionError, match="a reference of 1 objects says nothing"):
        gfnmc.diagnose(mixed(), reference=UP[None])
    with pytest.raises(ObjectError):
        gfnmc.diagnose(mixed(), reference=torch.ones(4, 5, dtype=torch.int8))
