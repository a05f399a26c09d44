import pytest

from whetstone.audit.audit import audit


def rules(text: str) -> list[str]:
    return [finding.rule for finding in audit(text).findings]


@pytest.mark.parametrize(
    "text",
    ["The gain is statistically significant.", "A t-test gave p = 1.2.", "The p-value was -0.2."],
)
def test_significance_without_a_test(text: str) -> None:
    assert rules(text) == ["untested-significance"]


@pytest.mark.parametrize(
    "text",
    [
        "The gain is statistically significant (McNemar, p = 0.02).",
        "The gain is statistically significant.\n\n# Tests\n\nWe used the Wilcoxon test.",
        "The gain is not statistically significant.",
        "The model significantly outperforms the base.",
        "Welch's t-test gave p = 1.36e-11, and another test p = 7.76e-05.",
        "Normalise with the norm p=2, or the power p = 1.2.",
        "A significance level of p < 0.05 is used.",
        "Is it statistically significant? We expect so.",
    ],
)
def test_near_misses(text: str) -> None:
    assert rules(text) == []
