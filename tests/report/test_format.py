"""Numbers look the same everywhere, and odd ones are words rather than crashes."""

import json
import math

import pytest

from gfnmc.report import format as fmt


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "—"),
        (math.nan, "—"),
        ("inf", "∞"),
        (-math.inf, "-∞"),
        pytest.param(10**400, "∞", id="beyond every float"),
        (0, "0"),
        (0.4955, "0.4955"),
        (9.99996, "10.00"),
        (1234.4, "1,234"),
        (123_456.7, "123,457"),
        (3.21e-7, "3.210e-07"),
        (-2.5e9, "-2.500e+09"),
    ],
)
def test_number(value: object, expected: str) -> None:
    assert fmt.number(value) == expected


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (0.4955, 0.0021, "0.4955 ± 0.0021"),
        (0.4957, 0.00996, "0.496 ± 0.010"),
        (1234.567, 89.1, "1,235 ± 89"),
        (123_456.0, 8_910.0, "123,500 ± 8,900"),
        (1.0, 0.0, "1.000 ± 0"),
        (0.5, None, "0.5000"),
        (None, 0.1, "—"),
        (1.2e-9, 3e-11, "1.200e-09 ± 3.0e-11"),
        (math.inf, 0.1, "∞"),
        (2.0, math.inf, "2.000 ± ∞"),
    ],
)
def test_with_error_follows_the_errors_second_digit(value: object, error: object, expected: str) -> None:
    assert fmt.with_error(value, error) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "—"),
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10 k"),
        (12_345, "12.3 k"),
        (999_499, "999 k"),
        (999_600, "1 M"),
        (1_300_000, "1.3 M"),
        (2e9, "2 G"),
        (7e17, "7.00e+17"),
    ],
)
def test_count(value: object, expected: str) -> None:
    assert fmt.count(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "—"),
        (0, "0 s"),
        (0.2, "< 1 s"),
        (4.24, "4.2 s"),
        (9.97, "10 s"),
        (59.7, "1 min 00 s"),
        (200.4, "3 min 20 s"),
        (3_599.8, "1 h 00 min"),
        (7_500, "2 h 05 min"),
        (97_200, "1 d 3 h"),
    ],
)
def test_seconds(value: object, expected: str) -> None:
    assert fmt.seconds(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "—"), (1.00321, "1.003"), ("inf", "∞"), (math.inf, "∞"), (812.0, "> 100"), ("\x1b[31m<b>", "[31m<b>")],
)
def test_r_hat_takes_a_number_null_or_a_string(value: object, expected: str) -> None:
    assert fmt.r_hat(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(None, "—"), (0, "0 %"), (0.4123, "41.2 %"), (1, "100 %"), (1e-7, "< 0.001 %")]
)
def test_percent(value: object, expected: str) -> None:
    assert fmt.percent(value) == expected


def test_small_words() -> None:
    assert fmt.ess(None) == "did not move"
    assert fmt.ess(81.24) == "81.2"
    assert fmt.exact(0.4955) == "0.4955"
    assert fmt.exact(100.0) == "100"
    assert fmt.exact(72.31042) == "72.3104"
    assert fmt.num_calls(1) == "1 call"
    assert fmt.shape([8, 8]) == "8 × 8"
    assert fmt.shape([]) == "scalar"
    assert fmt.states(512) == "512"
    assert fmt.states(2**4096) == "about 10^1233.0"


def test_plain_leaves_nothing_that_a_terminal_obeys() -> None:
    assert fmt.plain("a\x1b[31m\nb\t\ud800 c\x00") == "a [31m b c"
    assert fmt.plain("abcdefgh", 5) == "abcd…"


def test_json_text_is_strict_and_round_trips() -> None:
    value = {"a": [1, 2.5, None, True, "x, [y"], "b": [{"c": []}, [[1], [2]]], "é": {}}
    assert json.loads(fmt.json_text(value)) == value
    odd = {"trace": [math.nan, math.inf, -math.inf], "mass": math.nan}
    assert json.loads(fmt.json_text(odd)) == {"trace": [None, "inf", "-inf"], "mass": None}


def test_json_text_refuses_what_is_not_json() -> None:
    with pytest.raises(TypeError):
        fmt.json_text({"a": object()})
