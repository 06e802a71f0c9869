"""What a chain step costs with a pair of torchgfn, and where the time goes.

    python benchmarks/adapter_cost.py               # a minute
    python benchmarks/adapter_cost.py --steps 20

Untrained two-layer networks of 256 units, 256 chains, suffix resampling by its default law, one thread, CPU-seconds.
Shares are of the step: the networks; torchgfn's masks, moves and preprocessing; and what is left, which is this
package: laws in float64, drawing, recording, scoring and accepting. Needs torchgfn beside gfnmc, as
docs/how-to/pairs-from-elsewhere.md installs it.
"""

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from gfn.estimators import DiscretePolicyEstimator
from gfn.gflownet import TBGFlowNet
from gfn.gym import DiscreteEBM, HyperGrid
from gfn.gym.discrete_ebm import IsingModel
from gfn.preprocessors import IdentityPreprocessor, KHotPreprocessor
from gfn.utils.modules import MLP

from gfnmc.core.draws import PhiloxDraws
from gfnmc.integrations.torchgfn import from_torchgfn, torchgfn_target
from gfnmc.kernels import SuffixResampling

CHAINS = 256


class Stopwatch:
    """CPU-seconds by name; what runs inside another name is not counted twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: list[float] = []

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Count what happens meanwhile under a name."""
        began = time.process_time()
        self._inside.append(0.0)
        try:
            yield
        finally:
            took = time.process_time() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + took - self._inside.pop()
            if self._inside:
                self._inside[-1] += took

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Count the calls of a method under a name."""
        function: Callable[..., Any] = getattr(owner, method)

        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self.timing(name):
                return function(*arguments, **options)

        setattr(owner, method, timed)


def cases() -> Iterator[tuple[str, Any, Any]]:
    """Yield a name, an environment and what prepares its states for a network."""
    yield "hypergrid 8^4", HyperGrid(4, 8), KHotPreprocessor(8, 4)
    couplings = torch.randn(100, 100, generator=torch.Generator().manual_seed(0)) / 10
    ising = DiscreteEBM(100, IsingModel(couplings + couplings.T))
    yield "Ising 10x10", ising, IdentityPreprocessor(100, target_dtype=torch.float32)


def measured(env: Any, inputs: Any, block_rows: int | None, steps: int) -> tuple[float, float, float]:
    """Return chain steps a CPU-second, and the shares of the networks and of the rest of torchgfn."""
    estimators = [
        DiscretePolicyEstimator(
            MLP(inputs.output_dim, env.n_actions - is_backward, hidden_dim=256, n_hidden_layers=2),
            env.n_actions,
            inputs,
            is_backward=bool(is_backward),
        )
        for is_backward in (0, 1)
    ]
    watch = Stopwatch()
    # On the class: the adapter copies the modules.
    watch.watch(MLP, "forward", "network")
    watch.watch(DiscretePolicyEstimator, "forward", "torchgfn")
    for owner, method in (
        (env, "_step"),
        (env, "_backward_step"),
        (env, "states_from_tensor"),
        (env.States, "_compute_forward_masks"),
        (env.States, "_compute_backward_masks"),
    ):
        watch.watch(owner, method, "torchgfn")
    kernel = SuffixResampling(from_torchgfn(TBGFlowNet(*estimators), env, block_rows=block_rows), torchgfn_target(env))
    draws = PhiloxDraws(0, "adapter_cost", CHAINS)
    state, _ = kernel.step(draws.at(0), kernel.init(kernel.start(draws.role("start"))))
    watch.seconds.clear()
    began = time.process_time()
    for step in range(1, steps + 1):
        state, _ = kernel.step(draws.at(step), state)
    seconds = time.process_time() - began
    return CHAINS * steps / seconds, watch.seconds["network"] / seconds, watch.seconds["torchgfn"] / seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="steps of all chains that are timed")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print("| environment | block_rows | chain steps a CPU-second | networks | other torchgfn | gfnmc |")
    print("|---|---|---|---|---|---|")
    plain = {owner: owner.forward for owner in (MLP, DiscretePolicyEstimator)}
    for name, env, inputs in cases():
        for block_rows in (64, None):
            rate, network, other = measured(env, inputs, block_rows, options.steps)
            for owner, forward in plain.items():
                owner.forward = forward
            print(f"| {name} | {block_rows} | {rate:,.0f} | {network:.0%} | {other:.0%} | {1 - network - other:.0%} |")


if __name__ == "__main__":
    main()
