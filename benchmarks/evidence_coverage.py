"""How often intervals of log Z cover the exact value, on small targets of every kind whose log Z is known.

    python benchmarks/evidence_coverage.py --json benchmarks/results/evidence_coverage.json

Each replication draws paths from a mediocre pair, the exact one with noise in its logits, and takes slow chains, random
walks that start from exact draws. A nominal interval of 95 % should cover the truth in 90 to 99 of 100 replications.

Two wrong ways of the bridge stand beside it. One counts every draw of the chains in full, by reading them in random
order; it fails where the chains are slow and much of the error is theirs. The other turns the weights upside down, and
fails everywhere. Some minutes on one core.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from provenance import provenance
from torch import Tensor

from gfnmc import targets
from gfnmc.core.draws import PhiloxDraws, normal
from gfnmc.core.threads import thread_limit
from gfnmc.diagnostics.bridge import bridge, chain_weights
from gfnmc.diagnostics.evidence import Evidence, importance_evidence
from gfnmc.environments import DAGs, Direction, DiscreteEnvironment, HyperGrid, Lattice, Subsets, enumerate_states
from gfnmc.kernels import RandomWalk
from gfnmc.policies import GFlowNet, TabularPolicy, solve_forward
from gfnmc.sampling import sample
from gfnmc.targets import Target

CHAINS, SAMPLES, DRAWS = 4, 1_000, 1_000
NOISE = 0.5
HALF_WIDTH = 1.959963984540054

Problem = tuple[DiscreteEnvironment, Target]


def problems() -> dict[str, Callable[[], Problem]]:
    """Return a small problem of every kind."""
    return {
        "ising": lambda: _lattice(targets.Ising((3, 2), 0.4)),
        "ising in a field, fixed order": lambda: _lattice(targets.Ising((6,), 0.5, field=0.3), order="fixed"),
        "potts": lambda: _lattice(targets.Potts((2, 2), 3, 0.4)),
        "spin glass": lambda: _lattice(targets.EdwardsAnderson((3, 2), 0.6, seed=0)),
        "hypergrid": lambda: _of(HyperGrid, targets.HyperGrid(2, 6)),
        "bit strings": lambda: _lattice(targets.BitSequences(8, num_modes=3, beta=1.0, motifs=("0000", "0110"))),
        "variable selection": _variable_selection,
        "change points": _change_points,
        "graphs": _graphs,
        "table": lambda: _lattice(
            targets.from_function(lambda x: torch.sin(3.0 * x.double().sum(1)), (3,), values=(0, 1, 2))
        ),
    }


def run(problem: Problem, replications: int, seed: int) -> dict[str, Any]:
    """Return how often each way covers the truth of one problem."""
    environment, target = problem
    exact = target.exact()
    assert exact is not None
    pair = _mediocre(environment, target, seed)
    chains = sample(
        RandomWalk(environment, target), num_chains=CHAINS * replications, num_samples=SAMPLES, num_warmup=0, seed=seed,
        init=exact.sample(PhiloxDraws(seed, "coverage/starts", CHAINS * replications)), progress_bar=False,
    )  # fmt: skip
    of_chains = chain_weights(chains, pair, CHAINS * replications * SAMPLES, seed)
    of_chains = of_chains.reshape(replications, CHAINS, SAMPLES, -1)
    path = pair.sample_forward(
        environment.source(replications * DRAWS), PhiloxDraws(seed, "coverage/own", replications * DRAWS)
    )
    assert path.log_forward is not None
    own = target.log_prob(environment.objects(path.end)) + pair.log_backward(path) - path.log_forward
    own = own.reshape(replications, DRAWS)
    order = torch.randperm(CHAINS * SAMPLES, generator=torch.Generator().manual_seed(seed))
    shuffled = of_chains.flatten(1, 2)[:, order].reshape(of_chains.shape)
    bridges = [bridge(a, b) for a, b in zip(own, of_chains, strict=True)]
    return {
        "log_z": exact.log_z,
        "replications": replications,
        "importance": _covered(exact.log_z, [importance_evidence(a) for a in own]),
        "bridge": _covered(exact.log_z, bridges),
        "bridge_every_draw_in_full": _covered(exact.log_z, [bridge(a, b) for a, b in zip(own, shuffled, strict=True)]),
        "bridge_inverted": _covered(exact.log_z, [bridge(-a, -b) for a, b in zip(own, of_chains, strict=True)]),
        "mean_chain_ess": sum(found.chain_ess for found in bridges) / replications,
        "mean_error": {
            "importance": sum(importance_evidence(a).standard_error for a in own) / replications,
            "bridge": sum(found.standard_error for found in bridges) / replications,
        },
    }


def main() -> None:
    """Run every problem, print a line each, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    begun, rows = time.perf_counter(), {}
    with thread_limit(1), torch.no_grad():
        for name, make in problems().items():
            row = rows[name] = run(make(), options.replications, options.seed)
            print(
                f"{name:30} importance {row['importance']:3}  bridge {row['bridge']:3}  in full "
                f"{row['bridge_every_draw_in_full']:3}  inverted {row['bridge_inverted']:3}  of {options.replications}",
                flush=True,
            )
    if options.json is not None:
        settings = {"chains": CHAINS, "samples": SAMPLES, "draws": DRAWS, "noise": NOISE, "seed": options.seed}
        figures = provenance() | {"settings": settings, "seconds": time.perf_counter() - begun, "problems": rows}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _covered(truth: float, found: list[Any] | list[Evidence]) -> int:
    return sum(abs(one.log_z - truth) <= HALF_WIDTH * one.standard_error for one in found)


def _mediocre(environment: DiscreteEnvironment, target: Target, seed: int) -> GFlowNet:
    graph = enumerate_states(environment)
    backward = TabularPolicy(graph, Direction.BACKWARD)
    solved, _ = solve_forward(graph, target.log_prob(graph.objects), backward)
    noise = normal(seed, "coverage/noise", tuple(solved.logits.shape), torch.float64)
    return GFlowNet(TabularPolicy(graph, Direction.FORWARD, solved.logits.detach() + NOISE * noise), backward)


def _lattice(target: Any, **options: Any) -> Problem:
    return Lattice.for_target(target, **options), target


def _of(environment: Any, target: Any) -> Problem:
    return environment.for_target(target), target


def _variable_selection() -> Problem:
    design = normal(0, "coverage/design", (30, 5), torch.float64)
    response: Tensor = design[:, 0] - 0.5 * design[:, 1] + normal(0, "coverage/noise", (30,), torch.float64)
    return _of(Subsets, targets.VariableSelection(design, response))


def _change_points() -> Problem:
    series = torch.tensor([0.1, -0.2, 0.3, 1.9, 2.2, 1.8, 2.0], dtype=torch.float64)
    return _of(Subsets, targets.ChangePoints(series, noise_scale=0.5, level_scale=2.0))


def _graphs() -> Problem:
    data = targets.simulate_linear_gaussian(3, 30, seed=0)
    return _of(DAGs, targets.DAGPosterior(targets.bge_local_scores(data.data)))


if __name__ == "__main__":
    main()
