"""How numbers and words look in a report: one source for the terminal, the page and the pictures.

Null, which a document uses for "not known" and "not defined", is a dash everywhere.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

DASH = "—"
DID_NOT_MOVE = "did not move"

_UNITS = (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))


def plain(text: object, limit: int | None = None) -> str:
    """Return text on one line, with nothing in it that a terminal or a font would obey or choke on.

    Args:
        text: Any words, possibly from a file that somebody else wrote.
        limit: The most characters to return; what is longer ends in an ellipsis.

    Returns:
        The text with runs of white space and unprintable characters (escape codes, lone surrogates) made one space.
    """
    words = "".join(character if character.isprintable() else " " for character in str(text)).split()
    line = " ".join(words)
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def to_float(value: Any) -> float | None:
    """Return a document's number as a float; None for null and NaN.

    Args:
        value: A number, null, or "inf" (JSON has no infinity).

    Returns:
        The number, which may be infinite, or None.
    """
    if value is None:
        return None
    try:
        converted = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    return None if math.isnan(converted) else converted


def number(value: Any, digits: int = 4) -> str:
    """Format a number to so many significant digits.

    Args:
        value: The number, or null.
        digits: Significant digits; an integer part is never cut short.

    Returns:
        Such as "0.4955", "1,234" or "3.210e-07".
    """
    converted = to_float(value)
    if converted is None or math.isinf(converted):
        return DASH if converted is None else "∞" if converted > 0 else "-∞"
    if converted == 0:
        return "0"
    # The exponent after rounding: 9.99996 is 10.00, not 10.000.
    scientific = f"{converted:.{digits - 1}e}"
    exponent = int(scientific.partition("e")[2])
    if not -4 <= exponent < 7:
        return scientific
    return f"{converted:,.{max(0, digits - 1 - exponent)}f}"


def exact(value: Any) -> str:
    """Format a value that is known exactly: six significant digits, without the zeros that say nothing."""
    words = number(value, 6)
    return words.rstrip("0").rstrip(".") if "." in words and "e" not in words else words


def with_error(value: Any, error: Any, digits: int = 4) -> str:
    """Format an estimate with its standard error, both to the error's second digit.

    Args:
        value: The estimate, or null.
        error: Its standard error in the same unit, or null where none could be computed.
        digits: Significant digits of an estimate without an error.

    Returns:
        Such as "0.4955 ± 0.0021".
    """
    estimate, deviation = to_float(value), to_float(error)
    if estimate is None or math.isinf(estimate) or deviation is None:
        return number(estimate, digits)
    if deviation == 0 or math.isinf(deviation):
        return f"{number(estimate, digits)} ± {number(deviation)}"
    decimals = 1 - int(f"{deviation:.1e}".partition("e")[2])
    if decimals > 7:
        return f"{estimate:.3e} ± {deviation:.1e}"
    return f"{round(estimate, decimals):,.{max(0, decimals)}f} ± {round(deviation, decimals):,.{max(0, decimals)}f}"


def count(value: Any) -> str:
    """Format a count: in full below ten thousand, to three digits with a unit above.

    Args:
        value: How many, or null.

    Returns:
        Such as "9,876", "12.3 k" or "1.3 M".
    """
    converted = to_float(value)
    if converted is None or math.isinf(converted) or converted < 9_999.5:
        return DASH if converted is None else "∞" if math.isinf(converted) else f"{converted:,.0f}"
    for unit, scale in _UNITS:
        # From 999.5 up three digits would read 1e+03.
        if converted / scale < 999.5:
            return f"{converted / scale:.3g} {unit}"
    return f"{converted:.2e}"


def states(value: Any) -> str:
    """Format the size of a space, which may be beyond every float."""
    if value is None or value < 1_000_000:
        return DASH if value is None else f"{value:,}"
    return f"about 10^{math.log10(value):.1f}"


def seconds(value: Any) -> str:
    """Format a duration in seconds for people.

    Args:
        value: Seconds, or null.

    Returns:
        Such as "< 1 s", "4.2 s", "42 s", "3 min 20 s", "2 h 05 min" or "1 d 3 h".
    """
    converted = to_float(value)
    if converted is None or math.isinf(converted):
        return number(converted)
    if converted < 9.95:
        return "0 s" if converted == 0 else "< 1 s" if converted < 1 else f"{converted:.1f} s"
    whole = round(converted)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(converted / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def num_calls(value: Any) -> str:
    """Format a number of target calls, such as "1.31 M calls"."""
    return "1 call" if value == 1 else f"{count(value)} calls"


def calls_and_time(calls: Any, duration: Any) -> str:
    """Format a cost or a moment as target calls and, on a line of its own, seconds."""
    return f"{num_calls(calls)}\n{seconds(duration)}"


def percent(value: Any) -> str:
    """Format a fraction as a percentage to three digits, such as "41.2 %"; a tiny one is not rounded to nothing."""
    converted = to_float(value)
    if converted is None or converted == 0:
        return DASH if converted is None else "0 %"
    return "< 0.001 %" if 0 < converted < 1e-5 else f"{100 * converted:.3g} %"


def ess(value: Any) -> str:
    """Format an effective sample size; null is a statistic that never moved, and is said in words."""
    return DID_NOT_MOVE if to_float(value) is None else number(value, 3)


def r_hat(value: Any) -> str:
    """Format an R-hat, which a document gives as a number, null or the string "inf"."""
    try:
        converted = to_float(value)
    except ValueError:
        return plain(value)
    if converted is None or math.isinf(converted):
        return number(converted)
    return "> 100" if converted > 100 else f"{converted:.3f}"


def shape(value: Sequence[int]) -> str:
    """Format the shape of an object, such as "8 × 8"; an object that is one number is a "scalar"."""
    return " × ".join(str(size) for size in value) or "scalar"


def json_text(value: Any, indent: str = "") -> str:
    """Write a document as strict JSON, indented, with each list of plain values on one line.

    JSON has no NaN and no infinity: NaN is written as null and an infinity as the string "inf" or "-inf", so that one
    odd number at the end of a long run does not lose the run.

    Args:
        value: Anything made of mappings, lists, strings, numbers, booleans and None.
        indent: The white space that the value's own lines begin with.

    Returns:
        ASCII text without a final newline.

    Raises:
        TypeError: If the value holds anything else.
    """
    inner = indent + "  "
    if isinstance(value, Mapping) and value:
        lines = (f"{inner}{json.dumps(str(key))}: {json_text(item, inner)}" for key, item in value.items())
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping | list | tuple) for item in value):
            return "[\n" + ",\n".join(inner + json_text(item, inner) for item in value) + f"\n{indent}]"
        return json.dumps([_strict(item) for item in value], allow_nan=False)
    return json.dumps(_strict(value), allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(float(value))
    return value
