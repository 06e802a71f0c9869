"""What `gfnmc sample` and `gfnmc resume` share: chains that are run, written, judged and summed up."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gfnmc.cli.output import Output

if TYPE_CHECKING:
    from gfnmc.diagnostics import Diagnosis
    from gfnmc.sampling import Chains

# Draws of a store are read to be judged, which takes memory where there are many.
_MOST_JUDGED = 10**8


def draw(run: "Callable[[], Chains]", out: Path | None, store: Path | None, output: Output) -> bool:
    """Run chains, write what was asked for, and say what came of it; on an error, what was finished by then.

    Args:
        run: Makes the chains.
        out: ArviZ file to write.
        store: Run directory that the chains write on the way.
        output: Where words and figures go.

    Returns:
        Whether the diagnosis is "ok", or there is none.
    """
    from gfnmc.core.storage import check_writable

    if out is not None:
        check_writable(out)
    try:
        chains = run()
    except BaseException as error:
        finished = getattr(error, "chains", None)
        if out is not None and finished is not None and finished.num_samples:
            finished.save(out)
            click.echo(f"the draws finished by then are in {out}", err=True)
        raise
    if out is not None:
        chains.save(out)
    cost = chains.sampling_cost
    places = ", ".join(str(path) for path in (out, store) if path is not None)
    output.say(
        f"{chains.num_chains * chains.num_samples:,} draws in {cost.seconds:.1f} s with {cost.target_calls:,} target "
        f"calls; {places}"
    )
    diagnosis = _judged(chains, output)
    output.figures(_figures(chains, diagnosis))
    return diagnosis is None or diagnosis.is_ok


def _judged(chains: "Chains", output: Output) -> "Diagnosis | None":
    """Return the diagnosis, and say its reason; None where there are too many draws to be read at once."""
    from gfnmc.diagnostics import diagnose

    if chains.num_chains * chains.num_samples * math.prod(chains.target.event_shape) > _MOST_JUDGED:
        output.say("too many draws to be judged here; gfnmc.diagnose judges what fits into memory")
        return None
    diagnosis = diagnose(chains)
    output.say(diagnosis.verdict[0])
    return diagnosis


def _figures(chains: "Chains", diagnosis: "Diagnosis | None") -> dict[str, Any]:
    """Return what a run was, cost and came to, as plain data."""
    return {
        "schema": "gfnmc.sampling/1",
        "target": chains.target.name,
        "kernel": chains.kernel_name,
        "seed": chains.seed,
        "num_chains": chains.num_chains,
        "num_samples": chains.num_samples,
        "num_warmup": chains.num_warmup,
        "thinning": chains.thinning,
        "acceptance_rate": float(chains.samples.stats["acceptance_rate"].mean()),
        "nonfinite_count": int(chains.nonfinite_count.sum()),
        "sampling_cost": asdict(chains.sampling_cost),
        "training_cost": asdict(chains.training_cost),
        "remarks": dict(chains.remarks),
        "diagnosis": None if diagnosis is None else diagnosis.to_dict(),
    }
