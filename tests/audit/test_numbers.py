import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.audit.numbers import find_fractions, find_numbers
from whetstone.audit.readings import Readings, readings


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("70 %", 70, "%"),
        ("70.5 percent", 70.5, "%"),
        ("+25.0 points", 25, "points"),
        ("2.8x", 2.8, "x"),
        ("3-fold", 3, "x"),
        ("120 s", 120, "s"),
        ("840 ms", 0.84, "s"),
        ("4 min 05 s", 245, "s"),
        ("2h 30min", 9000, "s"),
        ("2.5 hours", 9000, "s"),
        ("145 tokens/s", 145, "/s"),
        ("145 tokens per second", 145, "/s"),
        ("1.1 GB", 1.1e9, "bytes"),
        ("2.8M", 2.8e6, ""),
        ("2.7 billion", 2.7e9, ""),
        ("4,809", 4809, ""),
        ("2e-4", 2e-4, ""),
        (".05", 0.05, ""),
        ("$60", 60, "$"),
    ],
)
def test_a_number_and_its_unit(text: str, value: float, unit: str) -> None:
    (number,) = find_numbers(f"it was {text} here")
    assert number.value == pytest.approx(value)
    assert number.unit == unit


@pytest.mark.parametrize(
    "text",
    [
        "v2.3.1",
        "phi-2",
        "Llama-3.2-3B",
        "2026-03-14",
        "#214",
        "pass@1",
        "3:21",
        "7/10",
        "4bit",
        "7x16",
        "10th",
        "1.2.3",
    ],
)
def test_names_versions_and_dates_are_no_numbers(text: str) -> None:
    assert find_numbers(f"it was {text} here") == ()


def test_ranges_signs_and_bounds() -> None:
    span, about, least, most, more = find_numbers("20-30 % then ~75 % then over 3x then up to 2x then 350+ tokens")
    assert (span.value, span.top) == (20, 30)
    assert about.low < 74 < 76 < about.high
    assert least.admits(30, 30) and not least.admits(2, 2)
    assert most.admits(1, 1) and not most.admits(4, 4)
    assert more.bound == "least"
    assert [number.sign for number in find_numbers("+5 % and -5 % and - 5 %")] == ["+", "-", ""]


def test_fractions() -> None:
    found = find_fractions("7/10, 8 of 12, 3 out of the 4; not 24/7, 11/2/2025, 12/10, 5 of 7 %, v1/2 or 3.1/4")
    assert [(one.k, one.n) for one in found] == [(7, 10), (8, 12), (3, 4)]


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(0, 2), st.booleans())
def test_every_change_that_was_printed_honestly_is_admitted(a: int, b: int, digits: int, cut: bool) -> None:
    """Rounded or cut off, relative to either value, as a ratio or in percent."""
    before, after = find_numbers(f"{a} s and {b} s")
    for exact, unit in ((100 * abs(b - a) / a, "%"), (100 * abs(b - a) / b, "%"), (b / a, "x"), (a / b, "x")):
        scaled = exact * 10**digits
        printed = (int(scaled + 1e-9) if cut else round(scaled)) / 10**digits
        (claimed,) = find_numbers(f"{printed:.{digits}f}{unit}")
        spans = readings(before, after)
        assert any(claimed.admits(*span) for name, span in spans.items() if name.endswith(unit))


@given(st.lists(st.integers(1, 500), min_size=2, max_size=8), st.integers(1, 300))
def test_looking_up_a_change_equals_trying_all_pairs(values: list[int], percent: int) -> None:
    numbers = find_numbers(", then ".join(f"{value} s" for value in values))
    (claimed,) = find_numbers(f"{percent} %")
    slow = any(
        claimed.admits(*span)
        for at, one in enumerate(numbers)
        for other in numbers[at + 1 :]
        if one.value != other.value
        for name, span in readings(one, other).items()
        if name.endswith("1, %")
    )
    assert Readings.among(numbers).give(claimed) == slow


def test_points_are_a_reading_of_two_percentages_only() -> None:
    before, after = find_numbers("45.8 % and 70.8 %")
    low, high = readings(before, after)["difference, %"]
    assert low < 25.0 < high
    first, second = find_numbers("45.8 s and 70.8 s")
    assert "difference, %" not in readings(first, second)
