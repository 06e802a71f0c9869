"""The binding landscapes against the figures that were computed independently of this package."""

import math

import numpy as np
import pytest
import torch

from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.targets import TFBinding
from gfnmc.targets.tf_binding import FACTORS, decode, encode

LOG_Z = {
    ("KLF1", 20.0): 25.430237,
    ("WT1", 20.0): 25.323962,
    ("SNAI2", 20.0): 25.816368,
    ("SIX6", 20.0): 26.157922,
    ("KLF1", 40.0): 44.342452,
    ("WT1", 40.0): 43.910264,
    ("SNAI2", 40.0): 44.884544,
    ("SIX6", 40.0): 44.957179,
}
LOG_Z_OF_CUBE = {"KLF1": 9.069786, "SIX6": 9.159562}
# Mass and number of sequences of each cluster at beta 40, then the mass of {f < 0.85}.
CLUSTERS = {
    "KLF1": ([0.4955, 0.4955], [376, 376], 0.0073),
    "WT1": ([0.461, 0.461, 0.0413], [151, 151, 286], 0.0308),
    "SNAI2": ([0.4759, 0.2501, 0.1155, 0.1155, 0.0132, 0.0132], [210, 450, 65, 65, 43, 43], 0.0135),
    "SIX6": ([0.9867], [1900], 0.0130),
}
# E-scores as the source lists them.
MEASURED = {"AAAAAAAA": 0.20112, "AAAAAAAC": -0.02967, "AAAAAAAG": 0.21430, "AAAAAAAT": 0.12494}


@pytest.mark.parametrize(("factor", "beta"), LOG_Z)
def test_log_z(factor: str, beta: float) -> None:
    solution = TFBinding(factor, beta).exact()
    assert solution.log_z == pytest.approx(LOG_Z[factor, beta], abs=6e-7)
    assert len(solution.support) == 65_536
    assert solution.expectations["purines"] == pytest.approx(0.5)
    assert solution.expectations["gc_skew"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("factor", LOG_Z_OF_CUBE)
def test_log_z_of_a_power(factor: str) -> None:
    target = TFBinding(factor, 0.0, power=3.0)
    solution = target.exact()
    assert solution.log_z == pytest.approx(LOG_Z_OF_CUBE[factor], abs=6e-7)
    assert abs(TFBinding(factor, 0.0, power=2.99).exact().log_z - LOG_Z_OF_CUBE[factor]) > 1e-4
    weight = target.scores.numpy() ** 3
    assert np.allclose(solution.log_pmf.exp().numpy(), weight / weight.sum(), rtol=1e-12, atol=0)
    assert solution.expectations["score"] == pytest.approx(target.scores.numpy() @ weight / weight.sum(), abs=1e-12)


@pytest.mark.parametrize("factor", FACTORS)
def test_with_a_power_the_weakest_binders_are_impossible(factor: str) -> None:
    target = TFBinding(factor, 20.0, power=0.5)
    support = target.exact().support
    log_prob = target.log_prob(support)
    assert torch.equal(log_prob == -math.inf, target.scores == 0)
    possible = target.scores > 0
    wanted = 20.0 * target.scores + 0.5 * target.scores.log()
    assert torch.allclose(log_prob[possible], wanted[possible], rtol=0, atol=1e-12)
    weakest = support[~possible]
    assert 1 <= len(weakest) <= 6
    assert all(value.isfinite().all() for value in target.statistics(weakest).values())
    with pytest.raises(ObjectError, match="density zero"):
        target.log_prob_delta(weakest, torch.zeros(len(weakest), dtype=torch.int64))
    # A neighbour sees a change that is impossible, no NaN.
    neighbour = weakest[:1].clone()
    neighbour[0, 0] = (neighbour[0, 0] + 1) % 4
    delta = target.log_prob_delta(neighbour, torch.zeros(1, dtype=torch.int64))
    assert delta[0, weakest[0, 0].to(torch.int64)] == -math.inf
    assert delta[0].isfinite().sum() == 3
    assert TFBinding(factor, 20.0).log_prob(weakest).tolist() == [0.0] * len(weakest)


def test_a_steep_power_has_the_twins_for_modes() -> None:
    target = TFBinding("KLF1", 0.0, power=50.0)
    assert target.exact().mode_masses == pytest.approx((0.5, 0.5), abs=0.01)
    weight = target.scores.numpy() ** 50
    strong = weight[target.scores.numpy() >= 0.85].sum() / weight.sum()
    assert sum(target.exact().mode_masses) == pytest.approx(strong, abs=0.01)


def test_names_tell_laws_apart() -> None:
    assert TFBinding("KLF1", 40.0).name == "tfbind-klf1"
    assert TFBinding("KLF1", 20.0).name == "tfbind-klf1-beta20"
    assert TFBinding("WT1", 2.5).name == "tfbind-wt1-beta2.5"
    assert TFBinding("KLF1", 0.0).name == "tfbind-klf1-beta0"
    assert TFBinding("SIX6", 0.0, power=3.0).name == "tfbind-six6-power3"
    assert TFBinding("SIX6", 40.0, power=3.0).name == "tfbind-six6-beta40-power3"


@pytest.mark.parametrize("factor", FACTORS)
def test_clusters(factor: str) -> None:
    target = TFBinding(factor, 40.0)
    modes, solution = target.modes(), target.exact()
    masses, sizes, mass_of_weak = CLUSTERS[factor]
    assert solution.mode_masses == pytest.approx(masses, abs=6e-5)
    assert torch.bincount(modes.assign(solution.support) + 1)[1:].tolist() == sizes
    weak = solution.log_pmf.exp()[target.scores < 0.85].sum()
    assert float(weak) == pytest.approx(mass_of_weak, abs=6e-5)
    assert modes is target.modes()
    assert solution is target.exact()


@pytest.mark.parametrize("factor", FACTORS)
def test_examples_are_the_strongest_binders_of_their_clusters(factor: str) -> None:
    target = TFBinding(factor, 20.0)
    modes, solution = target.modes(), target.exact()
    assert modes.assign(modes.examples).tolist() == list(range(len(modes)))
    assert list(modes.names) == [f"cluster {i + 1} ({text})" for i, text in enumerate(decode(modes.examples))]
    label = modes.assign(solution.support)
    for mode in range(len(modes)):
        best = target.log_prob(modes.examples[mode : mode + 1])
        assert best == target.log_prob(solution.support[label == mode]).max()


def test_a_cluster_is_one_mutation_connected() -> None:
    target = TFBinding("SNAI2", 40.0)
    label = target.modes().assign(target.exact().support).numpy()
    strong = (target.scores >= 0.85).numpy()
    digits = np.arange(65_536)[:, None] // 4 ** np.arange(7, -1, -1) % 4
    for position, place in enumerate(4 ** np.arange(7, -1, -1)):
        for shift in range(1, 4):
            step = (digits[:, position] + shift) % 4 - digits[:, position]
            neighbour = np.arange(65_536) + step * place
            linked = strong & strong[neighbour]
            assert (label[linked] == label[neighbour[linked]]).all()
    assert (label[~strong] == -1).all()
    # Connected, not only closed: a search from the example reaches the whole cluster.
    for mode, example in enumerate(target.modes().examples):
        members = digits[label == mode]
        reached = (members == example.numpy()).all(1)
        while True:
            near = ((members[:, None] != members[reached]).sum(2) <= 1).any(1)
            if (near == reached).all():
                break
            reached = near
        assert reached.all()


def test_klf1_twins_are_reverse_complements_which_the_strand_statistics_tell_apart() -> None:
    target = TFBinding("KLF1", 40.0)
    modes, support = target.modes(), target.exact().support
    twins = (3 - support).flip(1)
    label = modes.assign(support)
    inside = label >= 0
    assert torch.equal(modes.assign(twins)[inside], 1 - label[inside])
    assert torch.equal(target.log_prob(twins), target.log_prob(support))
    here, there = target.statistics(support), target.statistics(twins)
    assert torch.equal(here["gc_content"], there["gc_content"])
    assert torch.equal(here["purines"], 1 - there["purines"])
    assert torch.equal(here["gc_skew"], -there["gc_skew"])
    pmf = target.exact().log_pmf.exp()
    means = [float(pmf[label == mode] @ here["purines"][label == mode] / pmf[label == mode].sum()) for mode in (0, 1)]
    assert abs(means[0] - means[1]) > 0.3


def test_scores_are_the_measured_ones_scaled() -> None:
    scores = TFBinding("KLF1", 1.0).scores
    assert (scores.min(), scores.max()) == (0.0, 1.0)
    low, high = -0.45149, 0.49336
    wanted = [(score - low) / (high - low) for score in MEASURED.values()]
    target = TFBinding("KLF1", 3.0)
    assert target.log_prob(encode(list(MEASURED))).tolist() == pytest.approx([3 * score for score in wanted], abs=1e-12)
    assert target.statistics(encode(list(MEASURED)))["score"].tolist() == pytest.approx(wanted, abs=1e-12)


def test_statistics() -> None:
    statistics = TFBinding("WT1", 1.0).statistics(encode(["AACGGGTT", "CCCCCCCC"]))
    assert statistics["gc_content"].tolist() == [0.5, 1.0]
    assert statistics["purines"].tolist() == [0.625, 0.0]
    assert statistics["gc_skew"].tolist() == [0.25, -1.0]


def test_encode_and_decode() -> None:
    texts = ["ACGTACGT", "GGGTGTGG"]
    x = encode(texts)
    assert x.dtype == torch.int8
    assert x[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert decode(x) == texts
    assert encode([]).shape == (0, 8)
    for text in ("ACGT", "ACGTACGU", "acgtacgt"):
        with pytest.raises(ObjectError, match="sequence 1"):
            encode(["ACGTACGT", text])
    with pytest.raises(ObjectError):
        decode(torch.full((1, 8), -1, dtype=torch.int8))


def test_a_flat_law_has_no_modes() -> None:
    target = TFBinding("KLF1", 0.0)
    assert target.modes() is None
    assert target.exact().mode_masses is None
    assert target.exact().log_z == pytest.approx(8 * math.log(4))


def test_targets_do_not_share_scores() -> None:
    TFBinding("KLF1", 1.0).scores.zero_()
    assert TFBinding("KLF1", 1.0).scores.max() == 1.0


@pytest.mark.parametrize(
    "x", [torch.zeros(1, 8), torch.zeros(1, 7, dtype=torch.int8), 4 * torch.ones(1, 8).to(torch.int8)]
)
def test_objects_that_are_no_8_mers_are_refused(x: torch.Tensor) -> None:
    with pytest.raises(ObjectError):
        TFBinding("KLF1", 1.0).log_prob(x)


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(OptionError, match="KLF1, WT1, SNAI2, SIX6"):
        TFBinding("GATA1", 1.0)
    for beta in (-1.0, math.nan, math.inf):
        with pytest.raises(OptionError, match="beta"):
            TFBinding("KLF1", beta)
        with pytest.raises(OptionError, match="power"):
            TFBinding("KLF1", 1.0, power=beta)
