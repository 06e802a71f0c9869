"""The page of a comparison: one HTML file that needs no network and runs no script.

Everything that comes from the document is escaped by the template engine, the pictures' alternative texts and the raw
data included; a content policy in the page forbids scripts and outside addresses a second time.
"""

from __future__ import annotations

import base64
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gfnmc.report import format as fmt
from gfnmc.report import table as tables
from gfnmc.report import training

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image on the page.

    Attributes:
        title: What it shows, in a few words.
        caption: How to read it.
        alternative: The finding in words, for who cannot see it.
        data: Base64 of the PNG.
    """

    title: str
    caption: str
    alternative: str
    data: str


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
        "samplers": [_sampler_summary(sampler) for sampler in document["samplers"]],
        "tables": _tables(document),
        "training": _training(document),
        "pictures": _pictures(document),
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
        "picture": _picture(training_curves, document, *_TRAINING, words),
    }


def _pictures(document: Document) -> list[Picture]:
    """Draw every picture for which the document has something."""
    from gfnmc.report import plots

    target, samplers = document["target"], document["samplers"]
    pictures = []
    if target["modes"] and samplers:
        pictures.append(_picture(plots.discovery, document, *_DISCOVERY, _discovery_words(document)))
        pictures.append(_picture(plots.masses, document, *_MASSES, _mass_words(document)))
    if any(sampler["statistics"] for sampler in samplers):
        pictures.append(_picture(plots.ess_rates, document, *_ESS, _ess_words(document)))
    if plots.acceptance_rates(document):
        pictures.append(_picture(plots.acceptance, document, *_ACCEPTANCE, _acceptance_words(document)))
    if any(sampler["curves"]["trace"]["log_prob"] for sampler in samplers):
        pictures.append(_picture(plots.traces, document, *_TRACES, _trace_words(document)))
    return pictures


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
_DISCOVERY = (
    "Mode discovery",
    "Modes found against target calls, on a log scale. Training counts: where there is a dotted line, the sampler's "
    "training ended there.",
)
_MASSES = (
    "Mass of each mode",
    "Share of draws in each mode, with one standard error; black lines are exact. A point without a bar has no error "
    "estimate; an arrow is a mass beyond the axis.",
)
_ESS = (
    "Independent information per cost",
    "Bulk effective sample size per 1,000 target calls of sampling, training not included, on a log scale. Longer is "
    "better. A cross is a statistic that never moved: it has no effective sample size.",
)
_ACCEPTANCE = (
    "Acceptance by number of steps taken back",
    "Large moves pay only where the trained pair is good: the bars say how far back it is.",
)
_TRACES = (
    "Log-density of a few chains",
    "Chains that mix look alike. Flat lines, or lines at levels of their own, do not.",
)


def _picture(draw: Any, document: Document, title: str, caption: str, alternative: str) -> Picture:
    from gfnmc.report import style

    data = base64.b64encode(style.png(draw(document))).decode("ascii")
    return Picture(title, caption, alternative, data)


def _discovery_words(document: Document) -> str:
    total = len(document["target"]["modes"])
    words = (f"{fmt.plain(s['name'])} found {s['modes_found']} of {total}" for s in document["samplers"])
    return f"Step lines of modes found against target calls: {'; '.join(words)}."


def _mass_words(document: Document) -> str:
    words = []
    for sampler in document["samplers"]:
        shares = (f"{fmt.plain(mode['name'])} {fmt.number(mode['mass'], 3)}" for mode in sampler["modes"])
        words.append(f"{fmt.plain(sampler['name'])}: {', '.join(shares)}")
    return f"Points with error bars, the mass of each mode. {'; '.join(words)}."


def _ess_words(document: Document) -> str:
    words = (
        f"{fmt.plain(s['name'])} {fmt.number(s['worst']['ess_bulk_per_1000_calls'], 3)}"
        if s["worst"]["ess_bulk"] is not None
        else f"{fmt.plain(s['name'])} {fmt.DID_NOT_MOVE}"
        for s in document["samplers"]
    )
    return f"Bars of effective sample size per 1,000 target calls; worst statistic: {'; '.join(words)}."


def _acceptance_words(document: Document) -> str:
    from gfnmc.report import plots

    words = []
    for index, rate in plots.acceptance_rates(document).items():
        few, many = min(rate), max(rate)
        name = fmt.plain(document["samplers"][index]["name"])
        words.append(f"{name} {fmt.percent(rate[few])} at {few} back, {fmt.percent(rate[many])} at {many} back")
    return f"Bars of acceptance by number of steps taken back: {'; '.join(words)}."


def _trace_words(document: Document) -> str:
    names = ", ".join(fmt.plain(sampler["name"]) for sampler in document["samplers"])
    return f"Log-density against draw for a few chains, one panel each for {names}."


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
