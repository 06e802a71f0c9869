"""What training said of each sampler's pair: warnings, a table, and words for its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gfnmc.report import format as fmt
from gfnmc.report.table import Group, Row, Table

Document = Mapping[str, Any]
Training = Mapping[str, Any]


def trained(document: Document) -> dict[int, Training]:
    """Return what training recorded, by the index of the sampler; documents of older versions record nothing."""
    found = {index: sampler.get("training") for index, sampler in enumerate(document["samplers"])}
    return {index: training for index, training in found.items() if training is not None}


def warnings(document: Document) -> list[str]:
    """Return what training warned of, in plain words, a line for each sampler that it concerns."""
    samplers = document["samplers"]
    return [
        f"{fmt.plain(samplers[index]['name'])}: {fmt.plain(training['quality']['warning'])}"
        for index, training in trained(document).items()
        if training["quality"]["warning"] is not None
    ]


def exact_log_z(document: Document) -> float | None:
    """Return the exact log Z that the bounds can be held to: that of the target, if some pair was trained for it."""
    is_known = any(training["target"] == document["target"]["name"] for training in trained(document).values())
    return fmt.to_float(document["target"]["log_z"]) if is_known else None


def training_table(document: Document) -> Table:
    """Return the figures of each pair at its last look: a column a sampler, and the exact log Z where it is known.

    Args:
        document: The comparison as data.

    Returns:
        The table's content; without groups where no sampler has a pair that knows its training.
    """
    found = trained(document)
    if not found:
        return Table("training", (), (), ())
    runs = list(found.values())
    looks = [training["quality"] for training in runs]
    exact = exact_log_z(document)
    groups = (
        Group(
            "Run",
            (
                Row("trained for", tuple(fmt.plain(training["target"]) for training in runs)),
                Row("objective", tuple(_objective(training) for training in runs)),
                Row("steps", tuple(_steps(training) for training in runs)),
                Row("cost", tuple(fmt.calls_and_time(run["target_calls"], run["seconds"]) for run in runs)),
            ),
        ),
        Group(
            "Last look",
            (
                _row("acceptance of a full restart", looks, "acceptance", fmt.percent),
                _row("log Z, importance estimate", looks, "log_z", lambda value: fmt.number(value, 6)),
                _row("lower bound (ELBO)", looks, "elbo", lambda value: fmt.number(value, 6), is_part=True),
                _row("upper bound (EUBO)", looks, "eubo", lambda value: fmt.number(value, 6), is_part=True),
                _row("effective share of draws", looks, "ess_fraction", fmt.percent),
                _row("Pareto k-hat", looks, "k_hat", lambda value: fmt.number(value, 2)),
                _row("objects lost", looks, "lost", fmt.percent),
                _row("basis", looks, "label", fmt.plain),
            ),
        ),
    )
    columns, numbers = tuple(document["samplers"][index]["name"] for index in found), tuple(found)
    if exact is not None:
        groups = tuple(Group(group.title, tuple(_with_exact(row, exact) for row in group.rows)) for group in groups)
        columns, numbers = (*columns, "exact"), (*numbers, None)
    return Table("training", columns, groups, numbers)


def picture_words(document: Document) -> str:
    """Say what the picture of training shows, for who cannot see it."""
    words = []
    for index, training in trained(document).items():
        look = training["quality"]
        between = f"log Z between {fmt.number(look['elbo'], 6)} and {fmt.number(look['eubo'], 6)}"
        acceptance = f"predicted acceptance {fmt.percent(look['acceptance'])}"
        words.append(f"{fmt.plain(document['samplers'][index]['name'])} at the end: {between}, {acceptance}")
    return f"Lines against training step. {'; '.join(words)}."


def _row(label: str, looks: Sequence[Mapping[str, Any]], key: str, words: Any, *, is_part: bool = False) -> Row:
    return Row(label, tuple(words(look[key]) for look in looks), is_part=is_part)


def _with_exact(row: Row, exact: float) -> Row:
    return Row(row.label, (*row.cells, fmt.exact(exact) if row.label.startswith("log Z") else ""), is_part=row.is_part)


def _objective(training: Training) -> str:
    return fmt.plain(str(training["config"].get("objective", fmt.DASH)).replace("_", " "))


def _steps(training: Training) -> str:
    if not training["is_stopped_early"]:
        return f"{training['num_steps']:,}"
    return f"{training['num_steps']:,} of {training['max_steps']:,}\nstopped early"
