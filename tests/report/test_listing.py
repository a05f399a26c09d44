"""What is listed, and in which order."""

from typing import Any

import numpy as np
import pytest

from whetstone.report import listing
from whetstone.report.listing import choose
from whetstone.report.summary import Summary, summarise


@pytest.fixture(scope="module")
def summary(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return summarise(make_run(tmp_path_factory.mktemp("runs") / "listed", n=90, suites=True))


def change(summary: Summary) -> np.ndarray:
    evidence, metric = summary.held_out.evidence, summary.primary
    return evidence.scores("tuned", metric) - evidence.scores("base", metric)


def test_where_there_is_room_everything_is_listed_once(summary: Summary) -> None:
    assert summary.listing.listed == summary.listing.total == 90 + 20 + 16
    for suite in summary.all_suites:
        assert sorted(summary.listing.places[suite.name].tolist()) == list(range(suite.evidence.count))


def test_broken_stands_before_fixed_and_fixed_before_the_rest(summary: Summary) -> None:
    order = np.sign(change(summary)[summary.listing.places["held-out"]])
    rank = np.select([order < 0, order > 0], [0, 1], 2)
    assert set(rank) == {0, 1, 2}
    assert np.all(np.diff(rank) >= 0)


def test_small_suites_are_whole_and_the_changed_are_there_first(
    summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = set(np.flatnonzero(change(summary)).tolist())
    room = len(changed) + 5
    monkeypatch.setattr(listing, "_ROWS_AT_MOST", 36 + room)
    found = choose(summary.all_suites)
    assert [len(found.places[name]) for name in ("forms", "texts")] == [20, 16]
    places = found.places["held-out"].tolist()
    assert len(places) == len(set(places)) == room
    assert changed <= set(places)
    others = np.array(sorted(set(places) - changed))
    assert others[0] < 20
    assert others[-1] > 70


def test_long_answers_leave_room_for_fewer(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk = sum(suite.evidence.bytes_per_example * suite.evidence.count for suite in summary.all_suites)
    monkeypatch.setattr(listing, "_BYTES_AT_MOST", on_disk / 2)
    assert choose(summary.all_suites).listed == pytest.approx(63, abs=1)
