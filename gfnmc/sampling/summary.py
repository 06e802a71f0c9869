"""What chains say of themselves at a glance: what is known already, and nothing that would have to be computed."""

from typing import TYPE_CHECKING

from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.summary import Grid, Summary, duration, names_and_values, of_size

if TYPE_CHECKING:
    from gfnmc.sampling.chains import Chains


def chains_summary(chains: "Chains") -> Summary:
    """Return the summary of some chains."""
    size = f"{of_size(chains.num_chains, 'chain')} x {of_size(chains.num_samples, 'draw')}"
    cost = chains.sampling_cost
    figures = {
        "target": chains.target.name,
        "kernel": chains.kernel_name,
        "objects": "x".join(map(str, chains.target.event_shape)) or "scalar",
        "warm-up": of_size(chains.num_warmup, "step"),
        "thinning": of_size(chains.thinning, "step") + " a draw",
        "acceptance": ", ".join(_acceptance(chains)) or "not known",
        "sampling": cost_words(cost),
        "training": cost_words(chains.training_cost),
    }
    details = {
        "seed": str(chains.seed),
        "policy calls": f"{cost.policy_calls:,} in sampling, {chains.training_cost.policy_calls:,} in training",
        "recorded of each draw": ", ".join(_known_stats(chains)) or "not read yet",
    }
    return Summary(
        "Chains",
        f"{chains.kernel_name} on {chains.target.name}, {size}",
        names_and_values(figures),
        details={"Seed, calls and what was recorded": names_and_values(details), **_means(chains)},
    )


def cost_words(cost: Cost) -> str:
    """Return a cost in words."""
    if not cost.target_calls and not cost.seconds:
        return "none"
    return f"{of_size(cost.target_calls, 'target call')}, {duration(cost.seconds)}"


def _acceptance(chains: "Chains") -> list[str]:
    """Return the mean acceptance over all kept draws, and by kernel of a cycle."""
    found = []
    for name, rates in _known_stats(chains).items():
        if name.startswith("acceptance_rate") and rates.numel():
            part = name.removeprefix("acceptance_rate").strip("[]")
            found.append(f"{float(rates.mean()):.3g}{f' ({part})' if part else ''}")
    return found


def _known_stats(chains: "Chains") -> dict[str, Tensor]:
    """Return what the kernel said; nothing while it lies in a file that nobody has asked for."""
    return vars(chains.samples).get("stats", {})


def _means(chains: "Chains") -> dict[str, Grid]:
    """Return the means of the statistics, if somebody has asked for these before."""
    known = vars(chains).get("statistics")
    if not known:
        return {}
    rows = tuple((name, f"{values.mean():.4g}", f"{values.std():.3g}") for name, values in known.items())
    return {"Statistics": Grid(("statistic", "mean", "standard deviation"), rows)}
