"""Category by category, against a loop over examples."""

from typing import Any

import pytest

from whetstone.report import categories
from whetstone.report.categories import category_table
from whetstone.report.summary import Summary, summarise


@pytest.fixture(scope="module")
def summary(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return summarise(make_run(tmp_path_factory.mktemp("runs") / "categories", n=90, suites=True))


def test_the_worst_stands_first_and_what_was_not_compared_last(summary: Summary) -> None:
    for suite in summary.all_suites:
        gains = [row.gain for row in suite.categories.rows]
        known = [gain for gain in gains if gain is not None]
        assert known == sorted(known)
        assert gains == [*known, *[None] * (len(gains) - len(known))]
    rare = summary.suites[0].categories.rows[-1]
    assert (rare.name, rare.n, rare.compared, rare.gain, rare.side) == ("rare <kind>", 1, None, None, None)
    assert rare.arms["tuned"] is not None


def test_a_gain_is_turned_where_lower_is_better(summary: Summary) -> None:
    for row in summary.suites[1].categories.rows:
        assert row.compared is not None
        assert row.compared.paired is not None
        assert row.gain == -row.compared.paired.difference
        low, high = row.compared.paired.interval.low, row.compared.paired.interval.high
        assert row.side == ("better" if high < 0 else "worse" if low > 0 else "unclear")


def test_of_many_categories_those_with_the_most_examples_are_compared(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(categories, "_AT_MOST", 2)
    evidence = summary.held_out.evidence
    table = category_table(evidence, summary.primary, 0.95)
    counts = {name: int((evidence.category_numbers == place).sum()) for place, name in enumerate(evidence.categories)}
    assert table.total == 3
    largest = sorted(counts, key=lambda name: -counts[name])[:2]
    assert {row.name for row in table.rows} == set(largest)
    for row in table.rows:
        assert row.n == counts[row.name]
        assert row.compared is not None
        assert row.compared.paired is not None
        assert row.compared.q_value is not None
        assert row.compared.q_value >= row.compared.paired.p_value


def test_colours_of_other_units_run_from_the_least_to_the_greatest(summary: Summary) -> None:
    table = summary.suites[1].categories
    means = [mean.mean for row in table.rows for mean in row.arms.values() if mean is not None]
    assert table.tint(min(means), "nats/token") == 0
    assert table.tint(max(means), "nats/token") == 100
    assert table.tint(0.4, "share") == 40
