"""The page of a comparison: one HTML file that needs no network and runs no script.

Everything that comes from the document is escaped by the template engine, the pictures' alternative texts and the raw
data included; a content policy in the page forbids scripts and outside addresses a second time.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from typing import Any

from gfnmc.report import format as fmt
from gfnmc.report import table as tables
from gfnmc.report import training
from gfnmc.report.gallery import picture_of, pictures

Document = Mapping[str, Any]


def render(document: Document) -> str:
    """Render a comparison as one HTML page.

    Args:
        document: The comparison as data.

    Returns:
        The whole page; equal documents give equal pages.

    Raises:
        OptionError: If the document is not a comparison that this version reads.
    """
    import jinja2

    tables.check_schema(document)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = fmt.plain
    source = importlib.resources.files("gfnmc.report").joinpath("template.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(_content(document))


def _content(document: Document) -> dict[str, Any]:
    """Return everything that the template names."""
    from gfnmc.report import style

    return {
        "document": document,
        "facts": _facts(document),
        # Documents of older versions have neither.
        "bought": document.get("bought", []),
        "cautions": document.get("cautions", []),
        "samplers": [_sampler_summary(sampler) for sampler in document["samplers"]],
        "tables": _tables(document),
        "training": _training(document),
        "pictures": pictures(document),
        "settings": _settings_table(document),
        "provenance": _provenance(document),
        "raw": fmt.json_text(document),
        "colours": style.SAMPLER_COLOURS,
    }


def _facts(document: Document) -> list[str]:
    """Return the line under the title: what was compared on what."""
    target, setup = document["target"], document["setup"]
    facts = [f"target {fmt.plain(target['name'])}", f"objects {fmt.shape(target['event_shape'])}"]
    if target["num_states"] is not None:
        facts.append(f"{fmt.states(target['num_states'])} states")
    if target["modes"]:
        facts.append(f"{len(target['modes'])} modes" if len(target["modes"]) > 1 else "1 mode")
    if target["log_z"] is not None:
        facts.append(f"exact log Z {fmt.exact(target['log_z'])}")
    return [*facts, f"{setup['num_chains']} chains", f"seed {setup['seed']}"]


def _sampler_summary(sampler: Mapping[str, Any]) -> dict[str, str]:
    status = sampler["status"]
    known = status in tables.STATUS_WORDS
    return {
        "name": sampler["name"],
        "kernel": sampler["kernel"],
        "verdict": sampler["verdict"],
        "status": tables.STATUS_WORDS[status] if known else status,
        # A class name, so only words of our own.
        "status_class": status if known else "unknown",
    }


def _tables(document: Document) -> list[dict[str, Any]]:
    """Return the tables with their headings and a sentence on how to read them."""
    found = (
        ("Comparison", "", tables.comparison(document)),
        ("Modes", "When a chain first entered the mode, and the share of draws in it.", tables.mode_table(document)),
        (
            "Statistics",
            "Estimates over all chains. A statistic that did not move has no effective sample size.",
            tables.statistics_table(document),
        ),
        ("Costs", "Training is paid once, sampling by every run.", tables.cost_table(document)),
    )
    return [{"title": title, "note": note, "table": table} for title, note, table in found if table.groups]


_TRAINING_NOTE = (
    "How good the pair was when training ended. The chain is exact whatever stands here; what a good pair buys is "
    "large steps that are accepted. An object is lost when the pair makes it less than a hundredth as often as it "
    "should. Figures that are conditional on the modes visited cannot see a mode that nothing has visited."
)
_TRAINING = (
    "Quality during training",
    "Above, bounds on log Z: the lower one from objects of the pair, the upper one from objects that the pair did not "
    "make, where there are any. They close as the pair gets exact, and stay apart if it has lost a mode. Early values "
    "may lie outside. Below, the predicted acceptance of a full restart.",
)


def _training(document: Document) -> dict[str, Any] | None:
    """Return the section on training: warnings, the table and its picture; None where no pair knows its training."""
    table = training.training_table(document)
    if not table.groups:
        return None
    from gfnmc.report.training_picture import training_curves

    words = training.picture_words(document)
    return {
        "note": _TRAINING_NOTE,
        "warnings": training.warnings(document),
        "table": table,
        "picture": picture_of(training_curves, document, *_TRAINING, words),
    }


_SETTINGS = {
    "num_chains": "chains",
    "num_samples": "draws kept, each chain",
    "num_warmup": "warm-up steps",
    "thinning": "steps a draw",
}


def _settings_table(document: Document) -> tables.Table:
    """Return the samplers' settings as a table."""
    samplers = document["samplers"]
    rows = [tables.Row("kernel", tuple(sampler["kernel"] for sampler in samplers))]
    for key, label in _SETTINGS.items():
        rows.append(tables.Row(label, tuple(f"{sampler[key]:,}" for sampler in samplers)))
    columns = tuple(sampler["name"] for sampler in samplers)
    return tables.Table("setting", columns, (tables.Group("", tuple(rows)),), tuple(range(len(samplers))))


def _provenance(document: Document) -> list[tuple[str, str]]:
    """Return what is needed to run the comparison again, as terms and their values."""
    setup = document["setup"]
    threads = setup["num_threads"]
    return [
        ("Made", document["created_at"]),
        ("Seed", str(setup["seed"])),
        ("Chains", str(setup["num_chains"])),
        ("Start", setup["start"]),
        ("Threads", fmt.DASH if threads is None else str(threads)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in setup["versions"].items()) or fmt.DASH),
    ]
