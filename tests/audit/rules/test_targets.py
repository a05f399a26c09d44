import pytest

from whetstone.audit.audit import audit


def rules(text: str) -> list[str]:
    return [finding.rule for finding in audit(text, widest_points=100).findings]


def row(measure: str, before: str, after: str, target: str, status: str) -> str:
    head = "| Metric | Before | After | Target | Status |\n|--|--|--|--|--|"
    return f"{head}\n| {measure} | {before} | {after} | {target} | {status} |"


@pytest.mark.parametrize(
    "text",
    [
        row("Accuracy", "62 %", "57 %", "60 %", "95 % of target"),
        row("Accuracy", "62 %", "57 %", "60 %", "✅"),
        row("Latency", "310 ms", "345 ms", "350 ms", "✅ met"),
        row("Politeness", "62", "57", "90", "achieved"),
        "Throughput was 57 tokens/s, 95 % of the target of 60 tokens/s (baseline: 62 tokens/s).",
        "Fluency improved to 96 % of the target.",
    ],
)
def test_hidden_regressions(text: str) -> None:
    assert rules(text) == ["target-hides-regression"]


@pytest.mark.parametrize(
    "text",
    [
        row("Accuracy", "52 %", "57 %", "60 %", "95 % of target"),
        row("Accuracy", "62 %", "57 %", "60 %", "❌ worse than before"),
        row("Accuracy", "62 %", "57 %", "60 %", ""),
        row("Latency", "345 ms", "310 ms", "350 ms", "✅ met"),
        row("Loss", "1.2", "0.9", "1.0", "✅"),
        row("Accuracy", "57.4 %", "57 %", "60 %", "95 % of target"),
        row("Accuracy", "-", "57 %", "60 %", "95 % of target"),
        "Accuracy reached 57 %, 95 % of the target of 60 % (baseline: 52 %).",
        "We are at 95 % of the target of 60 tokens/s.",
        "Accuracy dropped to 95 % of the target of 60 % (baseline: 62 %).",
    ],
)
def test_near_misses(text: str) -> None:
    assert rules(text) == []
