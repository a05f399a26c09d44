from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.audit.audit import audit
from whetstone.audit.numbers import find_numbers
from whetstone.audit.rules.rates import possible_counts


def rules(text: str) -> list[str]:
    return [finding.rule for finding in audit(text, widest_points=100).findings]


@given(st.integers(1, 300), st.data(), st.integers(0, 2))
def test_no_rate_that_a_count_gives_is_impossible(n: int, data: st.DataObject, digits: int) -> None:
    k = data.draw(st.integers(0, n))
    exact = 100 * k / n
    for printed in (f"{exact:.{digits}f}", f"{floor(exact * 10**digits + 1e-9) / 10**digits:.{digits}f}"):
        (number,) = find_numbers(f"{printed} %")
        assert k in possible_counts(number, n)


@pytest.mark.parametrize(
    ("percent", "n"), [("70 %", 15), ("73.3 %", 10), ("50 %", 7), ("33 %", 10), ("99.9 %", 100), ("85.71 %", 8)]
)
def test_rates_that_no_count_gives(percent: str, n: int) -> None:
    """Slow reference: every count out of n, printed to as many digits, rounded and cut off."""
    (number,) = find_numbers(percent)
    digits = len(percent.removesuffix(" %").partition(".")[2])
    printed = {f"{100 * k / n:.{digits}f} %" for k in range(n + 1)}
    printed |= {f"{floor(10**digits * 100 * k / n) / 10**digits:.{digits}f} %" for k in range(n + 1)}
    assert percent not in printed
    assert list(possible_counts(number, n)) == []
    assert rules(f"It solved {percent} of {n} prompts.") == ["impossible-rate"]


@pytest.mark.parametrize(
    "text",
    [
        "Accuracy was 71 % of 15 prompts.",
        "Accuracy of 73.3 % (n = 10).",
        "On 15 prompts, task completion was 70 %.",
        "| Metric | n | Rate |\n|--|--|--|\n| Exact match | 15 | 70 % |",
        "| Metric | Rate (n = 15) |\n|--|--|\n| Exact match | 70 % |",
        "The pass rate reached 130 %.",
    ],
)
def test_impossible(text: str) -> None:
    assert rules(text) == ["impossible-rate"]


@pytest.mark.parametrize(
    "text",
    ["It got 7/10 = 72 %.", "85 % (8/10)", "7 of 10 (72 %)", "18/24 sentences (70 %)", "| a |\n|--|\n| 7/10 (72%) |"],
)
def test_against_its_count(text: str) -> None:
    assert rules(text) == ["rate-against-count"]


@pytest.mark.parametrize(
    "text",
    [
        "66.6 % (2/3), 66.7 % (2/3), 67 % (2/3), 66 % (2/3)",
        "Mean BLEU was 42.5 % on 15 prompts.",
        "Token accuracy of 93.7 % on 10 sentences.",
        "Averaged over 3 seeds, accuracy was 71.4 % on 10 problems.",
        "Accuracy is 72.5 % over 4 folds of 10 examples.",
        "About 70 % of 15 prompts were answered.",
        "10 % of 45 rows were held out.",
        "We keep 90 % of 15 GB for the cache.",
        "Coverage is 95 % (12/12 modules pass).",
        "Accuracy rose by 130 %, from 10 % to 23 %.",
        "We reached 150 % of the target accuracy.",
        "Phase 1 completion: 80 %.",
        "The score was 4.5/5 (90 %).",
        "70 % of 15,000 prompts were answered.",
    ],
)
def test_near_misses(text: str) -> None:
    assert rules(text) == []
