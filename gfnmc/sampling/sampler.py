"""Run chains: the front door."""

import os
from contextlib import ExitStack

import torch
from torch import Tensor

from gfnmc.core.threads import thread_limit
from gfnmc.kernels.base import Kernel, check_irreducible
from gfnmc.sampling.chains import Chains
from gfnmc.sampling.loop import Run
from gfnmc.sampling.plan import Budget, OnNonFinite, Plan, Store
from gfnmc.sampling.store import locked, prepare


def sample(
    kernel: Kernel,
    *,
    num_chains: int = 16,
    num_samples: int = 1_000,
    num_warmup: int = 100,
    thinning: int = 1,
    seed: int = 0,
    init: Tensor | None = None,
    adapt: bool = False,
    budget: Budget | None = None,
    store: str | os.PathLike[str] | Store | None = None,
    on_nonfinite: OnNonFinite = "raise",
    num_threads: int | None = 1,
    progress_bar: bool = True,
) -> Chains:
    """Run chains of a kernel.

    The same seed gives the same draws, bit for bit.

    With `store`, draws go to a run directory block by block, and no more than a block of them is in memory. `resume`
    goes on with a run that was stopped, by whatever, to the same draws; `load_run` reads what is there, also while it
    is written. The chains that are returned then read each of their arrays from the store when it is first asked for.

    Args:
        kernel: What moves the chains. It must be able to reach the whole space.
        num_chains: Chains side by side.
        num_samples: Kept draws a chain.
        num_warmup: Steps before the first kept draw.
        thinning: Steps from one kept draw to the next.
        seed: Any integer; names the run.
        init: Objects to start from, `(num_chains, *event_shape)`, or one object for all chains; by default the
            kernel draws them.
        adapt: Whether the warm-up tunes the kernel, all chains together; kept draws come from the tuned kernel, the
            result's `adapted_kernel`, which no longer changes.
        budget: Ends the run early; the draws kept by then are those that a longer run begins with.
        store: A run directory, new or an empty folder; or a `Store`, which says more. None keeps draws in memory.
        on_nonfinite: "raise": a log-density that is NaN or +inf ends the run. "reject": it counts as -inf, so that the
            chain samples the target restricted to the objects where it is finite; each case is counted in
            `Chains.nonfinite_count`. That is exact if what fails once fails always; starts, differences and gradients
            that are not finite end the run all the same.
        num_threads: Torch threads during the run; None leaves torch's setting alone.
        progress_bar: Whether to show progress.

    Returns:
        The chains.

    Raises:
        OptionError: If a count makes no sense, or the kernel is to adapt in no warm-up.
        IrreducibilityError: If the kernel cannot reach the whole space.
        CapabilityError: If the target is noisy and not declared unbiased, or the kernel has nothing to adapt, or keeps
            something that it cannot store.
        ObjectError: If `init` does not fit the target.
        NonFiniteEnergyError: If the target returns NaN or +inf; the message names chain, step and object. As with any
            other error on the way, the draws finished by then are in its attribute `chains`, and in the store.
        StorageError: If there is a run in the directory already, or it cannot be written.
    """
    plan = Plan(num_chains, num_samples, num_warmup, thinning, seed, adapt, on_nonfinite)
    check_irreducible(kernel)
    run = Run(kernel, plan, budget or Budget())
    place = Store(store) if isinstance(store, str | os.PathLike) else store
    with thread_limit(num_threads), torch.no_grad(), ExitStack() as stack:
        if place is not None:
            prepare(place.folder)
            stack.enter_context(locked(place.folder))
        try:
            run.start(init)
            if place is not None:
                run.store_in(place)
            run.go(progress_bar)
            run.store_rest()
        except BaseException as error:
            run.attach(error)
            raise
        return run.chains()
