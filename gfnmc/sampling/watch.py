"""What running chains show of themselves: acceptance, modes found, the worst R-hat so far.

Acceptance is of every step. Modes and R-hat take a look at the objects, which costs as much as the target's statistics
do, and looks stop while they have taken more than a hundredth of the time. So R-hat is of some of the kept draws, and a
mode may be visited before it is seen.
"""

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gfnmc.kernels.base import Info, State
from gfnmc.sampling.running_r_hat import RunningRHat
from gfnmc.targets.base import ModeSet, Target

logger = logging.getLogger("gfnmc")

_SHARE = 0.01
_MOST_MODES = 64


class Watch:
    """Looks at chains while they run.

    Args:
        target: What is sampled.
        num_chains: Chains side by side.
        clock: Seconds, for the share of time that looks take.
    """

    def __init__(self, target: Target, num_chains: int, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._target, self._num_chains, self._clock = target, num_chains, clock
        self._modes: ModeSet | None = None
        self._is_found = np.zeros(0, dtype=bool)
        self._r_hat: RunningRHat | None = None
        self._names: list[str] = []
        self._accepted: Tensor | float = 0.0
        self._steps = 0
        self._begun, self._spent = clock(), 0.0
        self._is_blind = False

    def see(self, info: Info, state: State, *, is_kept: bool) -> None:
        """Count a step, and look at where the chains are if there is time.

        Args:
            info: What the kernel said of the step.
            state: Where the chains are after it.
            is_kept: Whether the draw is kept; R-hat is of kept draws only.
        """
        self._steps += 1
        self._accepted = self._accepted + info.is_accepted.sum()
        begun = self._clock()
        if self._is_blind or self._spent > _SHARE * (begun - self._begun):
            return
        try:
            if self._steps == 1:
                self._find_modes()
                begun = self._clock()
            self._look(state, is_kept=is_kept)
        except Exception as error:
            # What only shows must not end a run; whoever asks for the statistics afterwards meets the error.
            logger.debug("progress shows no modes and no R-hat: %s", error)
            self._is_blind = True
        self._spent += self._clock() - begun

    def figures(self) -> dict[str, float | str]:
        """Return what there is to show."""
        shown: dict[str, float | str] = {"acceptance": float(self._accepted) / max(1, self._steps * self._num_chains)}
        if len(self._is_found):
            shown["modes"] = f"{self._is_found.sum()}/{len(self._is_found)}"
        worst = self.worst_r_hat()
        if worst is not None:
            shown["R-hat"] = f"{worst[1]:.3f} ({worst[0]})" if worst[1] < 100.0 else f"> 100 ({worst[0]})"
        return shown

    def worst_r_hat(self) -> tuple[str, float] | None:
        """Return the scalar with the largest split R-hat so far, and that; None while nothing has one."""
        if self._r_hat is None:
            return None
        found = self._r_hat.r_hat()
        if np.isnan(found).all():
            return None
        worst = int(np.nanargmax(found))
        return self._names[worst], float(found[worst])

    def _find_modes(self) -> None:
        """Ask the target for its modes; whoever reads the chains asks too, so this is not charged to the looks."""
        self._modes = self._target.modes()
        self._is_found = np.zeros(len(self._modes or ()), dtype=bool)

    def _look(self, state: State, *, is_kept: bool) -> None:
        ids = None if self._modes is None else self._modes.assign(state.position).numpy(force=True)
        if ids is not None:
            self._is_found[ids[ids >= 0]] = True
        if not is_kept:
            return
        scalars = {"log_prob": state.log_prob, **self._target.statistics(state.position)}
        values = torch.stack([value.to(torch.float64) for value in scalars.values()]).numpy(force=True)
        names = list(scalars)
        if ids is not None and self._modes is not None:
            few = min(len(self._modes), _MOST_MODES)
            values = np.concatenate([values, (ids == np.arange(few)[:, None]).astype(np.float64)])
            names += [f"in {name}" for name in self._modes.names[:few]]
        if self._r_hat is None:
            self._names, self._r_hat = names, RunningRHat(len(names), self._num_chains)
        self._r_hat.add(values)
