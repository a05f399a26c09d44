import pytest

from whetstone.audit.audit import audit


def found(text: str) -> list[tuple[str, str]]:
    return [(finding.rule, finding.arithmetic) for finding in audit(text).findings]


def row(before: str, after: str, change: str, measure: str = "Latency", heading: str = "Improvement") -> str:
    return f"| Metric | Base | Tuned | {heading} |\n|--|--|--|--|\n| {measure} | {before} | {after} | {change} |\n"


def test_the_arithmetic_is_shown() -> None:
    ((rule, arithmetic),) = found("An epoch went from 120 s to 95 s, a 38 % speed-up.")
    assert rule == "change-against-values"
    assert arithmetic == "120 s to 95 s is -20.8 % of the first, +26.3 % of the second; not 38 %"


@pytest.mark.parametrize(
    "text",
    [
        "It went from 2.22 s to 0.58 s, 5x faster.",
        "Latency decreased 120 → 100 ms (-30 %).",
        "The time dropped by 60 % from 10 s to 8 s.",
        "Ours is 38 % faster (95 s vs 120 s).",
        "Memory: 24 GB → 18 GB (60 % less)",
        "Accuracy rose from 60 % to 75 % (a 40 % improvement).",
        "Over 5x faster (from 300 ms to 90 ms).",
        row("840 ms", "610 ms", "45 %"),
        row("145 tokens/s", "254 tokens/s", "3.5x", "Throughput", "Speed-up"),
    ],
)
def test_contradicted(text: str) -> None:
    assert [rule for rule, _ in found(text)] == ["change-against-values"]


@pytest.mark.parametrize(
    "text",
    [
        "From 100 ms to 150 ms, 50 % faster.",
        "It went from 200 tok/s to 150 tok/s, a 33 % speed-up.",
        "Accuracy rose by 10 % (from 80 % to 70 %).",
        "Start-up was reduced by 20 % (from 4.0 s to 4.8 s).",
        row("1.92", "2.31", "+20 %", "Training loss"),
        row("71 %", "61 %", "+14 %", "Accuracy"),
    ],
)
def test_wrong_direction(text: str) -> None:
    assert [rule for rule, _ in found(text)] == ["wrong-direction"]


@pytest.mark.parametrize(
    "text",
    [
        "An epoch went from 120 s to 95 s, 21 % less time.",
        "An epoch went from 120 s to 95 s, a 26 % speed-up.",
        "An epoch went from 120 s to 95 s, 1.26x faster.",
        "From 2.22 s to 0.58 s, 3.8x faster, roughly 75 % less.",
        "Accuracy rose from 60 % to 75 % (a 25 % relative improvement), 15 % better.",
        "It fell from 16 GB to 8 GB, a 2x reduction, and from 10 s to 4 s, a 60 % reduction.",
        "Latency fell from 120 ms to 95 ms while accuracy improved by 12 %.",
        "Over 3x faster (from 300 ms to 90 ms).",
        "Up to 5x faster (from 300 ms to 90 ms).",
        "It took 2 h 30 min instead of 3 h, 17 % less.",
        "Throughput went from 1,000 to 1,500 tokens/s (+50 %).",
        "Errors: 90 % → 95 % (halving them, 50 % fewer errors).",
        "4K → 32K is a 64x increase in attention operations.",
        "Phase 1 vs Phase 2: 81.6x faster (0.68 → 55.5 tok/s).",
        "The rank went from 8 to 16, which is 0.5 % more memory.",
        "Latency at p95 went up from 1.1 s to 1.3 s, 18 % slower.",
        "Version 3.2 to 3.4 is 20 % faster.",
        "A 30x speed-up (0.42 → 12+ tokens/s).",
        "From ~24 GB to ~18 GB (about 25 % less).",
        row("840 ms", "610 ms", "27 %"),
        row("840 ms", "610 ms", "38 %"),
        row("840 ms", "610 ms", "1.38x", heading="Speed-up"),
        row("1.92", "2.31", "-20 %", "Training loss"),
        row("1.92", "0.50", "-74 %", "Training loss", "Change"),
        row("150 words", "283 words", "+89 %", "Answer length"),
        row("0/10 (0.0 %)", "1/10 (10.0 %)", "+10 %", "Good matches", "Change"),
        row("0", "3", "n/a"),
    ],
)
def test_near_misses(text: str) -> None:
    assert [rule for rule, _ in found(text) if rule not in ("wide-interval", "not-beyond-chance")] == []


def test_nothing_can_be_divided_by_zero() -> None:
    ((rule, arithmetic),) = found("Failures went from 0 s to 5 s, 50 % more.")
    assert (rule, arithmetic) == ("change-against-values", "0 s and 5 s give no ratio")
