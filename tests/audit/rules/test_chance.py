import pytest

from whetstone.audit.audit import audit


def findings(text: str) -> list[tuple[str, str]]:
    return [(finding.rule, finding.arithmetic) for finding in audit(text).findings]


def test_wilson_by_hand() -> None:
    """7/10: centre (0.7 + 1.92 / 10) / (1 + 3.84 / 10) = 0.6446, half-width 0.2476."""
    assert findings("Exact match was 7/10.") == [("wide-interval", "7/10 = 70 %: 95 % interval 40-89 %")]


def test_fisher_and_newcombe() -> None:
    """Fisher on (6, 4; 4, 6): 1 - C(10,5)^2 / C(20,10) = 0.656."""
    ((rule, arithmetic),) = findings("Exact match rose from 4/10 to 6/10.")
    assert rule == "not-beyond-chance"
    assert "difference +20 points, 95 % interval -21 to +53 (Newcombe), p = 0.66 (Fisher)" in arithmetic


@pytest.mark.parametrize(
    "text",
    [
        "Accuracy improved from 50 % to 60 % on 20 questions.",
        "Exact match: 4/10 (40 %) → 6/10 (60 %).",
        "It was correct on 9 of 20 prompts against 12 of 20 prompts.",
        "| Metric | Base | Tuned |\n|--|--|--|\n| Exact match | 9/20 | 12/20 |",
        "- Test samples: 20\n\n| Metric | Before | After |\n|--|--|--|\n| Accuracy | 45 % | 60 % |",
    ],
)
def test_differences_that_may_be_chance(text: str) -> None:
    assert [rule for rule, _ in findings(text)] == ["not-beyond-chance"]


def test_an_n_that_stands_elsewhere_is_named() -> None:
    text = (
        "## Setup\n- Test samples: 10 representative examples\n\n## Results\n- Exact match: 70 %\n- Exact match: 70 %\n"
    )
    assert findings(text) == [("wide-interval", "7/10 (the 10 of line 2) = 70 %: 95 % interval 40-89 %")]


@pytest.mark.parametrize(
    "text",
    [
        "Exact match rose from 20/100 to 60/100.",
        "Exact match was 700/1,000.",
        "7/10 exact (95 % interval 40-89 %).",
        "Exact match rose from 4/10 to 6/10, which is within noise.",
        "Exact match rose from 4/10 to 6/10 (McNemar p = 0.5).",
        "All tests passed: 12/12 correct.",
        "10 of 10 models were trained successfully.",
        "5/5 checks passed.",
        "Each GPU holds 1/4 of the outputs.",
        "Tier 1/2: correct.",
        "We should reach 8/10 correct answers.",
        "| Exact match | n |\n|--|--|\n| 70.0% (62.2 to 78.2), n = 20 | 20 |",
        "- Test samples: 10\n- Validation samples: 20\n\nExact match: 70 %",
        "Exact match was 7/10 [0.40, 0.89].\n\nIn short: 7/10 correct answers.",
    ],
)
def test_near_misses(text: str) -> None:
    assert findings(text) == []
