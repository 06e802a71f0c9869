"""The pictures of a comparison's page: which there are, how to read each, and its finding in words."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gfnmc.report import format as fmt

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


def pictures(document: Document) -> list[Picture]:
    """Draw every picture for which the document has something.

    Args:
        document: The comparison as data.
    """
    return [picture_of(draw, document, *reading, words(document)) for draw, reading, words in drawable(document)]


def picture_of(draw: Any, document: Document, title: str, caption: str, alternative: str) -> Picture:
    """Draw one picture.

    Args:
        draw: Makes the figure from the document.
        document: The comparison as data.
        title: What it shows.
        caption: How to read it.
        alternative: The finding in words.
    """
    from gfnmc.report import style

    data = base64.b64encode(style.png(draw(document))).decode("ascii")
    return Picture(title, caption, alternative, data)


def drawable(document: Document) -> Iterator[tuple[Any, tuple[str, str], Callable[[Document], str]]]:
    """Yield what there is to draw: the figure, title and caption, and what finds the words."""
    from gfnmc.report import cost_pictures, mixing_pictures, plots

    samplers = document["samplers"]
    has_statistics = any(sampler["statistics"] for sampler in samplers)
    if document["target"]["modes"] and samplers:
        yield plots.discovery, _DISCOVERY, _discovery_words
        yield plots.masses, _MASSES, _mass_words
    if mixing_pictures.samplers_with(document, "transitions"):
        yield mixing_pictures.transitions, _TRANSITIONS, transition_words
    if any(ranked["share"] for ranked in mixing_pictures.samplers_with(document, "ranks").values()):
        yield mixing_pictures.ranks, _RANKS, _rank_words
    if has_statistics:
        yield cost_pictures.ess_rates, _ESS, _ess_words
        yield cost_pictures.ess_per_second, _ESS_PER_SECOND, _ess_per_second_words
    if plots.acceptance_rates(document):
        yield plots.acceptance, _ACCEPTANCE, _acceptance_words
    if samplers:
        yield cost_pictures.cost_split, _COSTS, _cost_words
    if len(cost_pictures.priced_samplers(document)) > 1:
        yield cost_pictures.break_even, _BREAK_EVEN, _break_even_words
    if any(sampler["curves"]["trace"]["log_prob"] for sampler in samplers):
        yield plots.traces, _TRACES, _trace_words


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
_TRANSITIONS = (
    "Moves between modes",
    "Where chains went from each mode: rows are modes that were left, columns those that were entered next, numbers "
    "count moves between kept draws. Time outside all modes is skipped. A grey row was never left.",
)
_RANKS = (
    "Ranks of the statistic that mixed worst",
    "A row a chain, those that stray most first; columns hold equal numbers of draws of all chains, from low values to "
    "high ones. White is an equal share. A row with dark blue in one place is a chain that stays there.",
)
_ESS_PER_SECOND = (
    "Independent information per second",
    "As before, per second of sampling on the machine that ran the chains.",
)
_COSTS = (
    "What was spent",
    "Training pale and hatched, paid once for all runs of a pair; sampling in full colour.",
)
_BREAK_EVEN = (
    "When training is paid back",
    "What so many effective draws of the worst statistic cost, training included, at the rate of this run. To the "
    "right of a crossing the lower line is the cheaper sampler. A sampler that is stuck, did not move or has an R-hat "
    "above 1.1 has no line.",
)
_TRACES = (
    "Log-density of a few chains",
    "Chains that mix look alike. Flat lines, or lines at levels of their own, do not.",
)


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


def _ess_per_second_words(document: Document) -> str:
    words = (f"{fmt.plain(s['name'])} {_rate(s['worst'], 'ess_bulk_per_second')}" for s in document["samplers"])
    return f"Bars of effective sample size per second; worst statistic: {'; '.join(words)}."


def _rate(worst: Mapping[str, Any], key: str) -> str:
    return fmt.DID_NOT_MOVE if worst["ess_bulk"] is None else fmt.number(worst[key], 3)


def transition_words(document: Document) -> str:
    """Say how many moves between modes each sampler made, and which modes it never left."""
    from gfnmc.report.mixing_pictures import samplers_with

    words = []
    for index, moves in samplers_with(document, "transitions").items():
        count = sum(moves[row][column] for row in range(len(moves)) for column in range(len(moves)) if row != column)
        never = [
            fmt.plain(mode["name"])
            for place, mode in enumerate(document["target"]["modes"])
            if sum(moves[place]) == moves[place][place]
        ]
        left = f", none out of {', '.join(never)}" if never and count else ""
        words.append(f"{fmt.plain(document['samplers'][index]['name'])} {fmt.count(count)} moves{left}")
    return f"Heat maps of moves from mode to mode: {'; '.join(words)}."


def _rank_words(document: Document) -> str:
    from gfnmc.report.mixing_pictures import samplers_with

    words = []
    for index, ranked in samplers_with(document, "ranks").items():
        shares = [share for row in ranked["share"] for share in row]
        if shares:
            found = f"{fmt.number(min(shares), 2)} to {fmt.number(max(shares), 2)} times the share of all chains"
            words.append(f"{fmt.plain(document['samplers'][index]['name'])}, {fmt.plain(ranked['statistic'])}: {found}")
    return f"Heat maps of ranks, a row a chain. {'; '.join(words)}."


def _cost_words(document: Document) -> str:
    words = []
    for sampler in document["samplers"]:
        training, sampling = (sampler["cost"][part] for part in ("training", "sampling"))
        trained = fmt.num_calls(training["target_calls"]) + " and " + fmt.seconds(training["seconds"])
        sampled = fmt.num_calls(sampling["target_calls"]) + " and " + fmt.seconds(sampling["seconds"])
        words.append(f"{fmt.plain(sampler['name'])} {trained} of training, {sampled} of sampling")
    return f"Bars of costs: {'; '.join(words)}."


def _break_even_words(document: Document) -> str:
    from gfnmc.report.cost_pictures import priced_samplers

    words = []
    for index in priced_samplers(document):
        sampler = document["samplers"][index]
        trained = fmt.num_calls(sampler["cost"]["training"]["target_calls"])
        rate = fmt.number(sampler["worst"]["ess_bulk_per_1000_calls"], 3)
        words.append(f"{fmt.plain(sampler['name'])} starts at {trained}, then {rate} effective draws per 1,000 calls")
    return f"Lines of cost against effective draws: {'; '.join(words)}."
