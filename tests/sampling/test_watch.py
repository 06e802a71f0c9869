"""What running chains show: the same figures as the finished ones, at next to no cost."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.diagnostics.arviz import array_stats
from gfnmc.environments import HyperGrid
from gfnmc.kernels import RandomWalk
from gfnmc.sampling import sample
from gfnmc.sampling.watch import Watch
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import from_function

KERNEL = RandomWalk(HyperGrid(2, 8), HyperGridTarget(2, 8))


def still() -> float:
    """A clock that stands still: looks cost nothing."""
    return 0.0


def watched(kernel: RandomWalk, num_steps: int, num_warmup: int, clock: Callable[[], float] = still) -> Watch:
    """Run chains by hand, as `sample` does, under a watch."""
    draws = PhiloxDraws(3, "chain", 6)
    watch = Watch(kernel.target, 6, clock=clock)
    state = kernel.init(kernel.start(draws.role("start")), draws)
    for step in range(num_steps):
        state, info = kernel.step(draws.at(step), state)
        watch.see(info, state, is_kept=step >= num_warmup)
    return watch


def test_it_shows_the_figures_of_the_finished_chains() -> None:
    watch = watched(KERNEL, 140, 40)
    chains = sample(KERNEL, num_chains=6, num_samples=100, num_warmup=40, seed=3, progress_bar=False)
    shown = watch.figures()
    accepted = torch.cat([chains.warmup.stats["accepted"], chains.samples.stats["accepted"]], 1)
    assert shown["acceptance"] == pytest.approx(float(accepted.double().mean()))
    ids = [chains.mode_ids(record) for record in (chains.warmup, chains.samples)]
    visited = np.unique(np.concatenate([each.ravel() for each in ids if each is not None]))
    assert shown["modes"] == f"{(visited >= 0).sum()}/4"
    scalars = dict(chains.statistics)
    kept = chains.mode_ids(chains.samples)
    scalars |= {f"in {name}": kept == mode for mode, name in enumerate(chains.target.modes().names)}  # type: ignore[union-attr]
    name, r_hat = watch.worst_r_hat() or ("", 0.0)
    # Up to 64 blocks of draws the first half is exact; 100 draws are 50 blocks of two.
    expected = array_stats().rhat(scalars[name].astype(float), chain_axis=0, draw_axis=1, method="split")
    assert r_hat == pytest.approx(float(expected))
    assert shown["R-hat"] == (f"{r_hat:.3f} ({name})" if r_hat < 100 else f"> 100 ({name})")


def test_looks_take_a_hundredth_of_the_time() -> None:
    looks = 0

    class Slow(HyperGridTarget):
        def statistics(self, x: Tensor) -> dict[str, Tensor]:
            nonlocal looks
            looks += 1
            return super().statistics(x)

    ticks = itertools.count()
    # Every question takes a second, so a look takes one and a step without a look takes one.
    watched(RandomWalk(HyperGrid(2, 8), Slow(2, 8)), 500, 0, clock=lambda: float(next(ticks)))
    assert 2 <= looks <= 10


def test_a_target_without_modes_and_statistics_shows_what_there_is() -> None:
    target = from_function(lambda x: -x.double().sum(1), (2,), values=tuple(range(8)))
    shown = watched(RandomWalk(HyperGrid(2, 8), target), 50, 0).figures()
    assert list(shown) == ["acceptance", "R-hat"]
    assert str(shown["R-hat"]).endswith("(log_prob)")


def test_statistics_that_fail_end_the_looks_and_not_the_run() -> None:
    class Broken(HyperGridTarget):
        def statistics(self, x: Tensor) -> dict[str, Tensor]:
            raise KeyError("no such thing")

    shown = watched(RandomWalk(HyperGrid(2, 8), Broken(2, 8)), 50, 0).figures()
    assert "R-hat" not in shown
    assert 0.0 < float(shown["acceptance"]) < 1.0
