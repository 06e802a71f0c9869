"""Site updates a CPU-second of the chromatic kernels, beside a checkerboard of the same chains in NumPy.

    python benchmarks/checkerboard.py
    python benchmarks/checkerboard.py --chains 64 --rounds 200

Both sweep the same periodic Ising model, as many chains at once, on one thread: Gibbs by its conditional law,
Metropolis with the laziness of the kernel. The NumPy side keeps the spins and nothing else: two half lattices of bytes,
chains innermost, neighbour sums by slices, and every array made beforehand. It is written twice:

- by a table of probabilities, with uniforms of `default_rng`, as one writes it who cares for speed;
- by counting the thresholds that a uniform exceeds, with uniforms of SFC64, as quick as we know how. That works for
  five possible sums.

The kernels also carry the log-density of each chain along and report what they did, and a chain's draws do not depend
on how many run beside it.

Rounds are interleaved, and a ratio is the median over rounds, so that a machine that slows down slows down both.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from gfnmc.core.draws import PhiloxDraws
from gfnmc.environments import Lattice
from gfnmc.kernels import ChromaticMetropolis, Gibbs, Kernel
from gfnmc.targets import Ising

SIDE = 32
COUPLING = 0.44
LAZINESS = 0.1
CHAINS = (1, 16, 64, 256)
_UPDATES_A_TURN = 2**19


class Checkerboard:
    """Sweeps of a square periodic Ising model in NumPy.

    Half lattice c has the sites whose row and column add up to c, modulo 2; in the row r its site j stands in the
    column 2 j + (r + c) % 2.

    Args:
        side: Rows and columns; even.
        num_chains: Lattices side by side.
        coupling: J, nats.
        laziness: Probability that Metropolis proposes nothing at a site.
        seed: Of the generator.
    """

    def __init__(self, side: int, num_chains: int, coupling: float, laziness: float, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._quickest_rng = np.random.Generator(np.random.SFC64(seed))
        shape = side, side // 2, num_chains
        self.halves = [2 * self._rng.integers(0, 2, shape, dtype=np.int8) - np.int8(1) for _ in range(2)]
        sums = np.arange(-4, 5)
        # By the neighbour sum, and by that times the spin.
        self._up = 1.0 / (1.0 + np.exp(-2.0 * coupling * sums))
        self._flip = (1.0 - laziness) * np.minimum(1.0, np.exp(-2.0 * coupling * sums))
        self._sums = np.empty(shape, dtype=np.int8)
        self._uniforms, self._chances = np.empty(shape), np.empty(shape)
        self._places = np.empty(shape, dtype=np.intp)
        self._is_below, self._is_drawn = np.empty(shape, dtype=bool), np.empty(shape, dtype=bool)

    def gibbs_by_table(self) -> None:
        """Draw every site from its conditional law."""
        for half in (0, 1):
            spins = self.halves[half]
            np.add(self._around(half), 4, out=self._places)
            self._up.take(self._places, out=self._chances, mode="clip")
            np.less(self._rng.random(out=self._uniforms), self._chances, out=spins.view(bool))
            spins += spins
            spins -= 1

    def gibbs_by_thresholds(self) -> None:
        """The same: a site is up if its sum is above -6 and twice the number of thresholds that its uniform exceeds."""
        for half in (0, 1):
            spins = self.halves[half]
            sums, count = self._around(half), self._exceeded(self._up[::2])
            count += count
            count -= 6
            np.greater(sums, count, out=spins.view(bool))
            spins += spins
            spins -= 1

    def metropolis_by_table(self) -> None:
        """Propose to flip every site, and accept or reject."""
        for half in (0, 1):
            spins = self.halves[half]
            sums = self._around(half)
            sums *= spins
            np.add(sums, 4, out=self._places)
            self._flip.take(self._places, out=self._chances, mode="clip")
            self._turn(spins, np.less(self._rng.random(out=self._uniforms), self._chances, out=self._is_drawn))

    def metropolis_by_thresholds(self) -> None:
        """The same: a site flips if its sum times its spin, taken as 0 below, is under 6 less twice the thresholds."""
        for half in (0, 1):
            spins = self.halves[half]
            sums = self._around(half)
            sums *= spins
            np.maximum(sums, 0, out=sums)
            count = self._exceeded(self._flip[[8, 6, 4]])
            count += count
            np.subtract(6, count, out=count)
            self._turn(spins, np.less(sums, count, out=self._is_drawn))

    def _around(self, half: int) -> np.ndarray:
        """Return the sum of the neighbours of every site of a half lattice; all are in the other half."""
        other, sums = self.halves[1 - half], self._sums
        np.add(other[:-2], other[2:], out=sums[1:-1])
        np.add(other[-1], other[1], out=sums[0])
        np.add(other[-2], other[0], out=sums[-1])
        sums += other
        even, odd = slice(half, None, 2), slice(1 - half, None, 2)
        sums[even, 1:] += other[even, :-1]
        sums[even, 0] += other[even, -1]
        sums[odd, :-1] += other[odd, 1:]
        sums[odd, -1] += other[odd, 0]
        return sums

    def _exceeded(self, thresholds: np.ndarray) -> np.ndarray:
        """Return how many thresholds a uniform number reaches, for every site."""
        uniforms = self._quickest_rng.random(out=self._uniforms)
        count = np.zeros(uniforms.shape, dtype=np.int8)
        for threshold in thresholds:
            count += np.greater_equal(uniforms, threshold, out=self._is_below).view(np.int8)
        return count

    @staticmethod
    def _turn(spins: np.ndarray, is_flipped: np.ndarray) -> None:
        # -1 and +1 differ in all bits but the last.
        spins ^= is_flipped.view(np.int8) * np.int8(-2)


def kernels() -> dict[str, Kernel]:
    """Return the kernels under test."""
    target = Ising((SIDE, SIDE), COUPLING)
    lattice = Lattice.for_target(target)
    return {
        "Gibbs": Gibbs(lattice, target, scan="chromatic"),
        "Metropolis": ChromaticMetropolis(lattice, target, laziness=LAZINESS),
    }


def measure(num_chains: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return CPU-nanoseconds of a site update, round by round: of the kernel, and of each way to do the same in NumPy.

    Args:
        num_chains: Lattices side by side, on both sides.
        rounds: Turns of each contestant.
    """
    board = Checkerboard(SIDE, num_chains, COUPLING, LAZINESS)
    contestants: dict[str, dict[str, Callable[[], object]]] = {
        name: {
            "kernel": _stepper(kernel, num_chains),
            "table": getattr(board, f"{name.lower()}_by_table"),
            "thresholds": getattr(board, f"{name.lower()}_by_thresholds"),
        }
        for name, kernel in kernels().items()
    }
    updates = SIDE**2 * num_chains
    sweeps = max(1, _UPDATES_A_TURN // updates)
    taken: dict[str, dict[str, list[float]]] = {name: {way: [] for way in ways} for name, ways in contestants.items()}
    for _ in range(rounds):
        for name, ways in contestants.items():
            for way, sweep in ways.items():
                begun = time.process_time()
                for _ in range(sweeps):
                    sweep()
                taken[name][way].append(1e9 * (time.process_time() - begun) / (sweeps * updates))
    return taken


def ratios(num_chains: int, rounds: int = 60) -> dict[str, float]:
    """Return site updates a CPU-second over those of the faster NumPy program, for Gibbs and Metropolis."""
    return {
        name: min(_ratio(ways, rival) for rival in ("table", "thresholds"))
        for name, ways in measure(num_chains, rounds).items()
    }


def main() -> None:
    """Print a line for each number of chains and kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, nargs="+", default=CHAINS)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", action="store_true", help="print the ratios to the faster NumPy program, and no more")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.json:
        print(json.dumps({num_chains: ratios(num_chains, asked.rounds) for num_chains in asked.chains}))
        return
    print("million site updates a CPU-second, medians; NumPy by table | by thresholds, and the ratios")
    for num_chains in asked.chains:
        for name, ways in measure(num_chains, asked.rounds).items():
            speed = {way: 1e3 / median(taken) for way, taken in ways.items()}
            print(
                f"{num_chains:4d} chains  {name:10s}  {speed['kernel']:6.1f}   NumPy {speed['table']:6.1f} | "
                f"{speed['thresholds']:6.1f}   ratio {_ratio(ways, 'table'):5.2f} | {_ratio(ways, 'thresholds'):5.2f}",
                flush=True,
            )


def _stepper(kernel: Kernel, num_chains: int) -> Callable[[], None]:
    """Return what makes one step after the other."""
    draws = PhiloxDraws(0, "checkerboard", num_chains)
    state, step = kernel.init(kernel.start(draws.role("start"))), 0

    def sweep() -> None:
        nonlocal state, step
        state, _ = kernel.step(draws.at(step), state)
        step += 1

    return sweep


def _ratio(ways: dict[str, list[float]], way: str) -> float:
    return median(numpy / ours for numpy, ours in zip(ways[way], ways["kernel"], strict=True))


if __name__ == "__main__":
    main()
