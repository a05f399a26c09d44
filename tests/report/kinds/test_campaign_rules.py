"""Each rule of a campaign on both sides of what it looks at, with the numbers that it names."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from whetstone.report.kinds.advice import Advice
from whetstone.report.kinds.campaign import rules
from whetstone.report.kinds.campaign.schema import (
    Best,
    Bounds,
    CampaignReport,
    CampaignRun,
    Effect,
    Measured,
    Primary,
    Recipe,
    RunGroup,
)

EXACT = Primary(name="exact_match", title="Exact match", unit="share", direction="higher")
LOSS = Primary(name="nll", title="Loss", unit="nats/token", direction="lower")


def bounds(low: float, high: float, level: float = 0.95) -> Bounds:
    return Bounds(low=low, high=high, level=level, method="by hand")


def run(name: str, low: float, high: float, primary: Primary = EXACT, *, stopped_early: bool = False) -> CampaignRun:
    effect = Effect(
        baseline_mean=0.5,
        candidate_mean=0.5 + (low + high) / 2,
        difference=(low + high) / 2,
        interval=bounds(low, high),
        p_value=0.01,
        n=100,
        groups=100,
    )
    measured = Measured(data_hash="ab", primary=primary, effect=effect, verdict="SHIP", stopped_early=stopped_early)
    return CampaignRun(name=name, base="a", method="lora", seed=0, training=None, measured=measured, reason=None)


def unmeasured(name: str) -> CampaignRun:
    return CampaignRun(name=name, base=None, method=None, seed=None, training=None, measured=None, reason="gone")


def recipe(low: float | None, high: float | None, seeds: tuple[float, ...], share: float | None = 0.2) -> Recipe:
    return Recipe(
        group=0,
        runs=tuple(range(len(seeds))),
        seeds=tuple(range(len(seeds))),
        seed_count=len(seeds),
        repeated=(),
        n=100,
        groups=100,
        seed_differences=seeds,
        spread=max(seeds) - min(seeds),
        difference=sum(seeds) / len(seeds),
        interval=None if low is None or high is None else bounds(low, high),
        p_value=None if low is None else 0.01,
        seed_share=share,
    )


def report(
    *runs: CampaignRun,
    recipes: tuple[Recipe, ...] = (),
    best: tuple[int, Bounds] | None = None,
    primary: Primary = EXACT,
    bases: int = 1,
    groups: int = 1,
) -> CampaignReport:
    measured = tuple(index for index, one in enumerate(runs) if one.measured is not None)
    chosen = None if best is None else Best(run=best[0], runs=len(measured), difference=0.1, interval=best[1])
    group = RunGroup(data_hash="ab", primary=primary, runs=measured, bases=bases, best=chosen)
    return CampaignReport(runs=runs, settings=(), groups=(group,) * groups, recipes=recipes, advice=())


def said(rule: Callable[[CampaignReport], Iterator[Advice]], about: CampaignReport) -> list[tuple[str, Any]]:
    return [
        (advice.tone, pytest.approx({name: number.value for name, number in advice.numbers.items()}))
        for advice in rule(about)
    ]


A, B = run("a", 0.05, 0.15), run("b", 0.02, 0.10)


def test_runs_without_a_difference_are_counted() -> None:
    assert said(rules.not_measured, report(A, unmeasured("c"))) == [("bad", {"missing": 1, "runs": 2})]
    assert said(rules.not_measured, report(A, B)) == []


def test_runs_that_stopped_early_are_counted() -> None:
    early = run("c", 0.1, 0.2, stopped_early=True)
    assert said(rules.stopped_early, report(A, early)) == [("open", {"stopped": 1, "runs": 2})]
    assert said(rules.stopped_early, report(A, B)) == []


def test_other_questions_and_other_bases_are_named() -> None:
    assert said(rules.other_questions, report(A, B, groups=2)) == [("open", {"groups": 2})]
    assert said(rules.other_bases, report(A, B, bases=2)) == [("open", {"runs": 2, "bases": 2})]
    assert said(rules.other_questions, report(A, B)) == said(rules.other_bases, report(A, B)) == []


def test_the_best_fades_where_only_its_own_interval_excludes_zero() -> None:
    faded = report(A, B, best=(0, bounds(-0.01, 0.2)))
    assert said(rules.best_fades, faded) == [("open", {"own": 0.05, "runs": 2, "chosen": -0.01})]
    assert said(rules.best_fades, report(A, B, best=(0, bounds(0.01, 0.2)))) == []
    unclear = run("c", -0.02, 0.15)
    assert said(rules.best_fades, report(unclear, best=(0, bounds(-0.05, 0.2)))) == []


def test_where_lower_is_better_the_high_end_is_the_worst() -> None:
    better = run("c", -0.4, -0.1, LOSS)
    faded = report(better, run("d", -0.1, 0.1, LOSS), best=(0, bounds(-0.5, 0.02)), primary=LOSS)
    assert said(rules.best_fades, faded) == [("open", {"own": 0.1, "runs": 2, "chosen": -0.02})]
    assert said(rules.overlapping, faded) == [("open", {"low": 0.1, "high": 0.1})]
    recipes = (recipe(-0.4, -0.1, (-0.3, -0.2)),)
    good = report(better, better, recipes=recipes, primary=LOSS)
    assert said(rules.recipe_verdict, good) == [("good", {"seeds": 2, "low": 0.1, "high": 0.4})]


def test_seeds_that_differ_by_more_than_the_gain_ask_for_more_of_them() -> None:
    wide = report(A, B, recipes=(recipe(-0.2, 0.3, (-0.02, 0.12)),))
    assert said(rules.seeds_differ, wide) == [
        ("open", {"seeds": 2, "lowest": -0.02, "highest": 0.12, "difference": 0.05})
    ]
    assert said(rules.seeds_differ, report(A, B, recipes=(recipe(0.0, 0.2, (0.08, 0.12)),))) == []


@pytest.mark.parametrize(
    ("low", "high", "seeds", "share", "expected"),
    [
        (0.01, 0.2, (0.1, 0.11), 0.2, [("good", {"seeds": 2, "low": 0.01, "high": 0.2})]),
        (-0.2, -0.01, (-0.1, -0.11), 0.2, [("bad", {"seeds": 2, "low": -0.2, "high": -0.01})]),
        (-0.01, 0.2, (0.1, 0.11), 0.2, [("open", {"share": 0.2, "n": 100})]),
        (-0.01, 0.2, (0.1, 0.11), 0.7, [("open", {"seeds": 2, "share": 0.7})]),
        (-0.01, 0.2, (-0.1, 0.11), 0.7, []),
        (None, None, (0.1, 0.1), None, []),
    ],
)
def test_what_a_recipe_shows_and_what_would_settle_it(
    low: float | None, high: float | None, seeds: tuple[float, ...], share: float | None, expected: list[Any]
) -> None:
    assert said(rules.recipe_verdict, report(A, B, recipes=(recipe(low, high, seeds, share),))) == expected


def test_overlapping_intervals_ask_for_a_direct_comparison() -> None:
    best = (0, bounds(0.03, 0.17))
    assert said(rules.overlapping, report(A, B, best=best)) == [("open", {"low": 0.05, "high": 0.1})]
    apart = run("c", 0.0, 0.04)
    assert said(rules.overlapping, report(A, apart, best=best)) == []
    # Two seeds of one recipe are no two recipes, and a run that stopped early is not ranked.
    assert said(rules.overlapping, report(A, B, best=best, recipes=(recipe(0.0, 0.2, (0.1, 0.06)),))) == []
    assert said(rules.overlapping, report(A, run("d", 0.1, 0.2, stopped_early=True), best=best)) == []


def test_a_best_run_of_one_seed_asks_for_others() -> None:
    best = (0, bounds(0.03, 0.17))
    assert said(rules.one_seed, report(A, B, best=best)) == [("open", {"runs": 2})]
    assert said(rules.one_seed, report(A, B, best=best, recipes=(recipe(0.0, 0.2, (0.1, 0.06)),))) == []


def test_the_worst_is_said_first_and_every_rule_is_used() -> None:
    about = report(A, B, unmeasured("c"), best=(0, bounds(-0.01, 0.2)), bases=2)
    tones = [advice.tone for advice in rules.recommend(about)]
    assert tones == sorted(tones, key=("bad", "open", "good").index)
    assert {advice.rule for advice in rules.recommend(about)} == {
        "not_measured",
        "other_bases",
        "best_fades",
        "overlapping",
        "one_seed",
    }
