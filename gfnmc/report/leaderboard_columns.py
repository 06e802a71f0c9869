"""The columns of a leaderboard, which the page and the terminal share, so that they cannot disagree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gfnmc.report import format as fmt

Target = Mapping[str, Any]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of figures.

    Attributes:
        group: What it belongs to.
        heading: Its heading under the group's.
        cell: Makes the text of a row; lines after the first are notes.
        terminal: Its heading in a terminal, or None where it has no place there.
    """

    group: str
    heading: str
    cell: Callable[[Row, Target], str]
    terminal: str | None = None


def rate(found: Mapping[str, Any] | None) -> str:
    """Format a rate, such as "12.3", or "< 0.0123" where only a bound is known."""
    if found is None:
        return fmt.DASH
    words = fmt.number(found["value"], 3)
    return f"< {words}" if found["is_bound"] and words != fmt.DASH else words


def value_at(mapping: Mapping[str, Any] | None, path: str) -> Any:
    """Return what stands under a path of keys, or None where any of them is missing or null."""
    found: Any = mapping
    for key in path.split("."):
        found = None if found is None else found.get(key)
    return found


def _figure(key: str) -> Callable[[Row, Target], str]:
    return lambda row, _: fmt.number(row.get(key), 3)


def _modes_found(row: Row, target: Target) -> str:
    found = row.get("modes_found")
    return fmt.DASH if found is None else f"{found} of {target['num_modes']}"


def _worst_ess(row: Row, _: Target) -> str:
    """Format the ESS: only a sampler that is stuck can be said not to have moved, others just have none known."""
    found = row.get("worst_mode_ess")
    return fmt.ess(found) if row["status"] == "stuck" else fmt.number(found, 3)


def _cost(calls: Any, duration: Any) -> str:
    """Format calls and, as a note, seconds to three digits: two samplers are compared by them."""
    if calls is None and duration is None:
        return fmt.DASH
    if calls == 0 and duration == 0:
        return "none"
    words = fmt.DASH if calls is None else fmt.num_calls(calls)
    return words if duration is None else f"{words}\n{fmt.number(duration, 3)} s"


def _part_cost(part: str) -> Callable[[Row, Target], str]:
    return lambda row, _: _cost(value_at(row, f"calls.{part}"), value_at(row, f"seconds.{part}"))


def _total_variation(row: Row, _: Target) -> str:
    found = row.get("total_variation")
    if found is None:
        return fmt.DASH
    return f"{fmt.number(found['value'], 3)}\ni.i.d. floor {fmt.number(found['iid_floor'], 3)}"


def _largest_error(row: Row, _: Target) -> str:
    found = row.get("largest_error")
    if found is None:
        return fmt.DASH
    return f"{fmt.number(found['standard_errors'], 3)}\n{fmt.plain(found['statistic'])}"


_ESS = "ESS of the worst mode statistic"
COLUMNS = (
    Column("Modes", "found", _modes_found, "modes"),
    Column("Modes", "all found after", lambda r, _: _cost(r.get("calls_to_all_modes"), r.get("seconds_to_all_modes"))),
    Column(
        "Mode switches", "per million calls", lambda r, _: rate(r.get("switches_per_million_calls")),
        "switches\nper M calls",
    ),
    Column("Mode switches", "per second", lambda r, _: rate(r.get("switches_per_second"))),
    Column("Round trips", "per million calls", _figure("round_trips_per_million_calls")),
    Column("Moves", "accepted", lambda r, _: fmt.percent(r.get("acceptance"))),
    Column(_ESS, "ESS", _worst_ess),
    Column(_ESS, "per million calls", _figure("ess_per_million_calls"), "ESS\nper M calls"),
    Column(_ESS, "same, with training", _figure("ess_per_million_calls_with_training"), "same, with\ntraining"),
    Column(_ESS, "per second", _figure("ess_per_second")),
    Column(_ESS, "same, with training", _figure("ess_per_second_with_training")),
    Column("Accuracy", "total variation", _total_variation),
    Column("Accuracy", "largest error (standard errors)", _largest_error, "error\n(s.e.)"),
    Column("Accuracy", "error of log Z (nats)", _figure("log_z_error")),
    Column("Cost", "training", _part_cost("training")),
    Column("Cost", "sampling", _part_cost("sampling")),
)  # fmt: skip
