"""Control limits hold what chance does, and little more."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import beta, binom

from whetstone.data.answer import count_words, is_empty
from whetstone.serve.observe.observation import OBSERVED
from whetstone.serve.proof.judged_rates import WINDOW, control_limits, design_effect, judged_rates

if TYPE_CHECKING:
    from collections.abc import Callable

    from whetstone.run import Run


@pytest.mark.parametrize(("judged", "samples", "rates"), [(0, 400, 5), (4, 400, 5), (40, 400, 1), (27, 27, 5)])
def test_limits_are_quantiles_of_the_predictive_distribution(judged: int, samples: int, rates: int) -> None:
    low, high = control_limits(judged, samples, WINDOW, rates=rates)
    # The mixture of binomials over the posterior, by quadrature over its quantiles.
    shares = beta.ppf((np.arange(50_000) + 0.5) / 50_000, judged + 0.5, samples - judged + 0.5)
    tail = 0.0005 / rates

    def at_most(count: int) -> float:
        return float(np.mean(binom.cdf(count, WINDOW, shares)))

    assert at_most(low - 1) <= tail * 1.001
    assert at_most(low) > tail * 0.999
    assert 1 - at_most(high) <= tail * 1.001
    assert high == 0 or 1 - at_most(high - 1) > tail * 0.999


def test_answers_like_the_judged_ones_seldom_alarm() -> None:
    """Judged sample and live window drawn at the same rate, anew each time: what the limits promise."""
    draw = np.random.default_rng(1)
    alarms = 0
    worlds, shares = 20_000, (0.002, 0.01, 0.05, 0.1, 0.4)
    for share in shares:
        judged = draw.binomial(400, share, worlds)
        live = draw.binomial(WINDOW, share, worlds)
        limits = {int(count): control_limits(int(count), 400, WINDOW, rates=5) for count in np.unique(judged)}
        low, high = (np.array([limits[int(count)][end] for count in judged]) for end in (0, 1))
        alarms += int(((live < low) | (live > high)).sum())
    # All five rates together may alarm in 1 of 1000 windows; twice that would be wrong by far more than luck.
    assert 0 < alarms / worlds < 0.002


def test_judged_answers_of_few_sources_widen_the_limits_as_they_must() -> None:
    """Groups of ten answers that are all alike: forty independent ones, whatever their number."""
    draw = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 10)
    worlds = 300
    naive = honest = 0
    for _ in range(worlds):
        had = np.repeat((draw.random(40) < 0.3).astype(np.int64), 10)
        live = draw.binomial(WINDOW, 0.3)
        effect = design_effect(had, groups)
        low, high = control_limits(int(had.sum()), 400, WINDOW, effect=effect)
        honest += not low <= live <= high
        low, high = control_limits(int(had.sum()), 400, WINDOW)
        naive += not low <= live <= high
    assert honest / worlds < 0.01
    assert naive / worlds > 0.05


def test_a_real_shift_alarms() -> None:
    draw = np.random.default_rng(3)
    low, high = control_limits(4, 400, WINDOW, rates=5)
    assert low == 0
    assert (draw.binomial(WINDOW, 0.1, 10_000) > high).mean() > 0.9
    low, high = control_limits(120, 400, WINDOW, rates=5)
    assert (draw.binomial(WINDOW, 0.05, 10_000) < low).mean() > 0.95


def test_design_effects() -> None:
    groups = np.repeat(np.arange(50), 4)
    draw = np.random.default_rng(4)
    assert design_effect(np.repeat(draw.integers(0, 2, 50), 4), groups) == pytest.approx(4, rel=0.05)
    assert design_effect(draw.integers(0, 2, 200), groups) < 1.5
    assert design_effect(np.zeros(200, np.int64), groups) == 1
    assert design_effect(np.array([0, 1]), np.array([0, 0])) == 1


def test_rates_of_a_run_are_counts_of_its_rows(make_run: "Callable[..., Run]", tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", n=300)
    rows = [json.loads(line) for line in (run.samples / "tuned.jsonl").read_text().splitlines()]
    examples = [json.loads(line) for line in (run.samples / "examples.jsonl").read_text().splitlines()]
    asked = [example["messages"][-1]["content"] for example in examples]
    rates = {rate.name: rate for rate in judged_rates(run, "tuned", 1)}
    assert tuple(rates) == OBSERVED
    assert {rate.samples for rate in rates.values()} == {300}
    assert rates["empty"].judged == sum(is_empty(row["text"]) for row in rows) > 0
    assert rates["over_long"].judged == sum(row["finish_reason"] == "length" for row in rows) > 0
    # These questions are 'Correct the sentence: ' and the bare text, which is what the metric compares with.
    copies = sum(row["text"] == example["source"] for row, example in zip(rows, examples, strict=True))
    assert rates["copy"].judged == copies > 0
    # References have one word more than the source at most, and the questions have three more; the faulty answers
    # put five words before a reference.
    assert rates["extra_text"].threshold == -2
    extra = sum(count_words(row["text"]) > count_words(said) - 2 for row, said in zip(rows, asked, strict=True))
    assert rates["extra_text"].judged == extra
    assert extra == sum(row["text"].startswith("Here is") for row in rows) > 0
    lengths = sorted(len(row["token_ids"]) for row in rows)
    assert rates["long_answer"].threshold == lengths[-(len(lengths) // 10) - 1]
    assert all(rate.low <= rate.judged * WINDOW / 300 <= rate.high for rate in rates.values())


def test_an_arm_that_did_not_answer_has_no_rates(make_run: "Callable[..., Run]", tmp_path: Path) -> None:
    assert judged_rates(make_run(tmp_path / "run", n=8, arms=("base",)), "tuned", 1) == ()
