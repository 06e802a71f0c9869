"""A realistic comparison as data: a hybrid that visits both modes, a random walk that stays in one."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

_TRAINING_CALLS = 1_204_224


@pytest.fixture
def document() -> dict[str, Any]:
    """Return the comparison of a hybrid and a random walk on a target with two modes."""
    return _document()


@pytest.fixture
def document_of() -> Callable[[int, int], dict[str, Any]]:
    """Return a maker of documents with so many samplers and modes."""
    return _document_of


@pytest.fixture
def trained_document() -> dict[str, Any]:
    """Return the same comparison with what training recorded of the hybrid's pair, which has lost a mode."""
    document = _document()
    document["samplers"][0]["training"] = _training()
    document["samplers"][1]["training"] = None
    return document


def _training() -> dict[str, Any]:
    return {
        "target": "ising-8x8",
        "seed": 3,
        "num_steps": 700,
        "max_steps": 1_000,
        "is_stopped_early": True,
        "seconds": 212.1,
        "target_calls": _TRAINING_CALLS,
        "quality": {
            "elbo": 71.5821,
            "eubo": 84.2177,
            "log_z": 71.6174,
            "ess_fraction": 0.912,
            "k_hat": 0.31,
            "acceptance": 0.4712,
            "lost": 0.498,
            "label": "judged by the held-out tempered objects",
            "warning": "the pair has collapsed: P_F makes 50% of the held-out tempered objects hardly ever",
        },
        "curves": {
            "quality": {
                "step": [100, 200, 300, 400, 500, 600, 700],
                "elbo": [None, 40.2, 61.0, 70.7, 71.2, 71.4, 71.5821],
                "eubo": [None, 120.0, 101.5, 93.0, 88.3, 85.1, 84.2177],
                "acceptance": [0.0, 0.02, 0.11, 0.31, 0.42, 0.46, 0.4712],
            },
            "loss": {"step": [0, 100, 200, 300, 400, 500, 600], "loss": [900.0, 8.1, 3.3, 1.1, 0.6, 0.4, 0.3]},
        },
        "config": {"num_steps": 1_000, "objective": "trajectory_balance"},
    }


def _document() -> dict[str, Any]:
    modes = [("magnetised up", 0.4955), ("magnetised down", 0.4955)]
    return {
        "schema": "gfnmc.comparison/1",
        "title": "Ising 8 × 8 below the critical temperature",
        "created_at": "2026-03-02T14:05:11+00:00",
        "command": "gfnmc compare ising-8x8 --coupling 0.5 --seed 0 --num-chains 12 --save report.html",
        "target": {
            "name": "ising-8x8",
            "event_shape": [8, 8],
            "log_z": 72.31042,
            "modes": [{"name": name, "mass": mass} for name, mass in modes],
            "num_states": 2**64,
        },
        "setup": {
            "seed": 0,
            "num_chains": 12,
            "start": "Every chain starts with all spins up, inside the first mode.",
            "num_threads": 1,
            "versions": {"gfnmc": "0.1.0", "torch": "2.9.1", "numpy": "2.4.6", "python": "3.11.7"},
        },
        "verdict": [
            "hybrid found both modes and agrees with the exact masses; random walk never left the mode it started in.",
            "Counting training, hybrid needed 1.21 M target calls before the second mode; random walk did not find it "
            "within 2.6 M.",
        ],
        "bought": ["hybrid against random walk: 1 of 2 modes that random walk missed, in 2,604,544 target calls."],
        "cautions": ["Use no average of random walk: it is stuck."],
        "worth": [
            {
                "against": "random walk",
                "target_calls": {"ratio": None, "break_even": None},
                "seconds": {"ratio": None, "break_even": None},
            }
        ],
        "samplers": [_hybrid(modes), _random_walk(modes)],
    }


def _hybrid(modes: list[tuple[str, float]]) -> dict[str, Any]:
    generator = np.random.default_rng(1)
    raster = [_telegraph(generator, len(modes), 400) for _ in range(12)]
    found = [
        {
            "name": name,
            "found_after_calls": _TRAINING_CALLS + (12 if index == 0 else 1_932 * index),
            "found_after_seconds": 212.4 + 0.7 * index,
            "mass": mass + 0.0012 * (-1) ** index,
            "mass_error": 0.0021,
            "exact_mass": mass,
            "ess": 5_120.4,
            "r_hat": 1.0012,
        }
        for index, (name, mass) in enumerate(modes)
    ]
    return {
        "name": "hybrid",
        "kernel": "Cycle(SuffixResampling(uniform branch), RandomWalk)",
        "status": "ok",
        "verdict": "Found every mode, switches between them, and its masses agree with the exact ones.",
        "num_chains": 12,
        "num_samples": 4_000,
        "num_warmup": 400,
        "thinning": 1,
        "modes": found,
        "modes_found": len(modes),
        "switches_per_1000_steps": 31.8,
        "acceptance": {
            "overall": 0.412,
            "by_num_back_steps": [
                {"num_back_steps": k, "proposals": 0 if k == 63 else 1_500, "acceptance": float(0.97 * 0.968**k)}
                for k in range(1, 65)
            ],
            "parts": {"SuffixResampling": 0.287, "RandomWalk": 0.537},
            "lazy": 0.0,
            "no_reverse_move": 0.0,
        },
        "statistics": [
            _statistic("energy", -103.412, 0.031, -103.398, 4_310.2, 3_980.0, 1.0012),
            _statistic("magnetisation", 0.0021, 0.0043, 0.0, 5_120.4, 6_033.1, 1.0031),
            _statistic("|magnetisation|", 0.90412, 0.00041, 0.90447, 3_877.0, 4_102.9, 1.0008),
        ],
        "worst": {
            "statistic": "|magnetisation|",
            "ess_bulk": 3_877.0,
            "ess_tail": 3_980.0,
            "r_hat": 1.0031,
            "r_hat_statistic": "magnetisation",
            "ess_bulk_per_second": 26.1,
            "ess_bulk_per_1000_calls": 2.77,
            "ess_bulk_per_second_with_training": 10.7,
            "ess_bulk_per_1000_calls_with_training": 1.49,
        },
        "total_variation": {
            "value": 0.0121,
            "num_draws": 48_000,
            "iid_floor": 0.0098,
            "iid_floor_at_worst_ess": 0.0117,
        },
        "log_z": {
            "estimate": 72.3121,
            "standard_error": 0.0043,
            "exact": 72.31042,
            "k_hat": 0.41,
            "label": "importance weights of the pair",
        },
        "cost": {
            "training": {"target_calls": _TRAINING_CALLS, "policy_calls": 154_140_672, "seconds": 212.1},
            "sampling": {"target_calls": 1_400_320, "policy_calls": 90_177_536, "seconds": 148.6},
        },
        "curves": {
            "discovery": {
                "calls": [mode["found_after_calls"] for mode in found],
                "seconds": [mode["found_after_seconds"] for mode in found],
                "modes_found": list(range(1, len(found) + 1)),
            },
            "trace": {
                "draw": list(range(0, 4_000, 20)),
                "log_prob": (51.7 + generator.gamma(3, 0.9, (4, 200)) * -1.0).round(3).tolist(),
            },
            "mode_raster": {"step": list(range(0, 4_000, 10)), "mode": raster},
            "mixing": _mixing(generator, len(modes), "magnetisation"),
        },
    }


def _random_walk(modes: list[tuple[str, float]]) -> dict[str, Any]:
    generator = np.random.default_rng(2)
    walk = copy.deepcopy(_hybrid(modes))
    walk.update(
        name="random walk",
        kernel="RandomWalk(single spin flips)",
        status="stuck",
        verdict="Never left the mode that it started in: its other numbers describe that mode alone.",
        modes_found=1,
        switches_per_1000_steps=0.0,
        total_variation={"value": 0.5046, "num_draws": 48_000, "iid_floor": 0.0098, "iid_floor_at_worst_ess": None},
        log_z=None,
    )
    for index, mode in enumerate(walk["modes"]):
        first = index == 0
        mode.update(found_after_calls=12 if first else None, found_after_seconds=0.002 if first else None)
        mode.update(mass=0.9908 if first else 0.0, mass_error=0.0004 if first else None, ess=None, r_hat=None)
    walk["acceptance"].update(overall=0.538, by_num_back_steps=[], parts={})
    walk["statistics"] = [
        _statistic("energy", -103.377, 0.052, -103.398, 1_204.0, 1_377.0, 1.0104),
        _statistic("magnetisation", 0.90388, 0.00083, 0.0, None, None, "inf"),
        _statistic("|magnetisation|", 0.90388, 0.00083, 0.90447, 988.0, 1_120.0, 1.0122),
    ]
    walk["worst"] = {
        "statistic": "magnetisation",
        "ess_bulk": None,
        "ess_tail": None,
        "r_hat": "inf",
        "r_hat_statistic": "magnetisation",
        "ess_bulk_per_second": None,
        "ess_bulk_per_1000_calls": None,
        "ess_bulk_per_second_with_training": None,
        "ess_bulk_per_1000_calls_with_training": None,
    }
    walk["cost"] = {
        "training": {"target_calls": 0, "policy_calls": 0, "seconds": 0.0},
        "sampling": {"target_calls": 2_604_544, "policy_calls": 0, "seconds": 96.2},
    }
    walk["curves"] = {
        "discovery": {"calls": [12], "seconds": [0.002], "modes_found": [1]},
        "trace": {
            "draw": list(range(0, 4_000, 20)),
            "log_prob": (51.9 - generator.gamma(3, 0.8, (4, 200))).round(3).tolist(),
        },
        "mode_raster": {
            "step": list(range(0, 4_000, 10)),
            "mode": np.where(generator.random((12, 400)) < 0.004, -1, 0).tolist(),
        },
        "mixing": {
            "transitions": np.diag([47_000, *[0] * (len(modes) - 1)]).tolist(),
            "ranks": {"statistic": "magnetisation", "chain": [], "share": []},
        },
    }
    return walk


def _mixing(generator: np.random.Generator, num_modes: int, statistic: str) -> dict[str, Any]:
    """Return moves between modes, about as many back as forth, and ranks of twelve chains that mixed."""
    moves = generator.integers(20, 60, (num_modes, num_modes)) + np.diag([9_000] * num_modes)
    share = generator.gamma(80.0, 1 / 80.0, (12, 20)).round(3)
    return {
        "transitions": moves.tolist(),
        "ranks": {"statistic": statistic, "chain": list(range(12)), "share": share.tolist()},
    }


def _statistic(
    name: str,
    mean: float,
    mcse: float,
    exact: float,
    ess_bulk: float | None,
    ess_tail: float | None,
    r_hat: float | str,
) -> dict[str, Any]:
    return {
        "name": name,
        "mean": mean,
        "mcse": mcse,
        "exact": exact,
        "ess_bulk": ess_bulk,
        "ess_tail": ess_tail,
        "r_hat": r_hat,
    }


def _telegraph(generator: np.random.Generator, num_modes: int, num_points: int) -> list[int]:
    """Return the modes of a chain that jumps now and then and is rarely in none."""
    jumps = generator.random(num_points) < 0.06
    modes = generator.integers(0, num_modes, num_points)[np.maximum.accumulate(np.where(jumps, range(num_points), 0))]
    return np.where(generator.random(num_points) < 0.009, -1, modes).tolist()


def _document_of(num_samplers: int, num_modes: int) -> dict[str, Any]:
    modes = [(f"mode {index}", 0.99 / num_modes) for index in range(num_modes)]
    document = _document()
    document["target"]["modes"] = [{"name": name, "mass": mass} for name, mass in modes]
    samplers = [_hybrid(modes), _random_walk(modes), _hybrid(modes)]
    samplers[2]["name"] = "hybrid, multiple tries"
    document["samplers"] = samplers[:num_samplers]
    return document
