"""What a comparison says of itself at a glance: its own words, and a line a sampler."""

from typing import TYPE_CHECKING, Any

from gfnmc.core.summary import Grid, Summary, duration, names_and_values

if TYPE_CHECKING:
    from gfnmc.experiments.compare import Comparison

_COLUMNS = ("sampler", "status", "modes found", "worst bulk ESS", "worst R-hat", "target calls", "time")


def comparison_summary(comparison: "Comparison") -> Summary:
    """Return the summary of a comparison."""
    document = comparison.document
    samplers, setup = document["samplers"], document["setup"]
    num_modes = len(document["target"]["modes"])
    settings = {name: str(setup[name]) for name in ("seed", "num_chains", "start", "num_threads")}
    kernels = {sampler["name"]: sampler["kernel"] for sampler in samplers}
    return Summary(
        "Comparison",
        f"{document['title']}: " + ", ".join(f"{sampler['name']} {sampler['status']}" for sampler in samplers),
        Grid(_COLUMNS, tuple(_row(sampler, num_modes) for sampler in samplers)),
        said=document["verdict"],
        details={"Set-up": names_and_values(settings), "Kernels": names_and_values(kernels)},
    )


def _row(sampler: dict[str, Any], num_modes: int) -> tuple[str, ...]:
    worst, cost = sampler["worst"], sampler["cost"]
    calls = cost["training"]["target_calls"] + cost["sampling"]["target_calls"]
    seconds = cost["training"]["seconds"] + cost["sampling"]["seconds"]
    return (
        sampler["name"],
        sampler["status"],
        f"{sampler['modes_found']} of {num_modes}" if num_modes else "not known",
        "did not move" if worst["ess_bulk"] is None else f"{worst['ess_bulk']:,.0f} ({worst['statistic']})",
        "unknown" if worst["r_hat"] is None else f"{float(worst['r_hat']):.3f} ({worst['r_hat_statistic']})",
        f"{calls:,}",
        duration(seconds),
    )
