"""What a training run says of itself at a glance."""

from typing import TYPE_CHECKING

from gfnmc.core.summary import Grid, Summary, duration, names_and_values, of_size

if TYPE_CHECKING:
    from gfnmc.training.run import TrainingResult

_MOST_LOOKS = 12


def training_summary(result: "TrainingResult") -> Summary:
    """Return the summary of a training run."""
    quality, cost, report = result.quality, result.cost, result.pair.training_report or {}
    steps = of_size(report["num_steps"], "step") if report else "steps unknown"
    if report.get("is_stopped_early"):
        steps += ", stopped early"
    figures = {
        "trained for": str(report.get("target", "unknown")),
        "steps": steps,
        "acceptance of a full restart": f"{quality.acceptance:.3g} (predicted)",
        "log Z": f"{quality.log_z:.4f}, between {_number(quality.elbo)} (ELBO) and {_number(quality.eubo)} (EUBO)",
        "effective share of draws": f"{quality.ess_fraction:.3g}",
        "judged": quality.label,
        "cost": f"{of_size(cost.target_calls, 'target call')}, {duration(cost.seconds)}",
    }
    details = {"Looks during training": _looks(result)}
    if report.get("config"):
        details["Options"] = names_and_values({name: str(value) for name, value in report["config"].items()})
    return Summary(
        "TrainingResult",
        f"{steps}, predicted acceptance {quality.acceptance:.3g}, log Z {quality.log_z:.2f}",
        names_and_values(figures),
        warning=quality.warning,
        details=details,
    )


def _looks(result: "TrainingResult") -> Grid:
    """Return the figures of the last looks."""
    rows = tuple(
        (f"{look['step']:,}", _number(look["acceptance"]), _number(look["elbo"]), _number(look["eubo"]))
        for look in result.qualities[-_MOST_LOOKS:]
    )
    return Grid(("step", "acceptance", "ELBO", "EUBO"), rows)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
