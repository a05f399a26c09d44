"""What to do after a campaign: rules over its report, each of which names the numbers that it rests on.

Notable: none of them changes a verdict. Where two intervals overlap, nothing follows about the difference of the two
runs; the rule says how to measure it.
"""

from collections.abc import Callable, Iterator

from whetstone.report.kinds.advice import Advice, Number, Unit
from whetstone.report.kinds.campaign.schema import CampaignReport, Effect, Primary, Recipe, RunGroup

__all__ = ["RULES", "recommend"]

_MOSTLY = 0.5
"""From this share of the variance on, seeds are what to have more of; below it, examples."""


def recommend(report: CampaignReport) -> tuple[Advice, ...]:
    """What all rules say, the worst first."""
    said = [advice for rule in RULES for advice in rule(report)]
    return tuple(sorted(said, key=lambda advice: ("bad", "open", "good").index(advice.tone)))


def not_measured(report: CampaignReport) -> Iterator[Advice]:
    """Some runs have no difference."""
    missing = sum(run.measured is None for run in report.runs)
    if missing:
        yield Advice(
            rule="not_measured",
            tone="bad",
            title="Some runs are not measured",
            evidence="{missing} of {runs} runs have no difference to show.",
            action="The table says why for each; a campaign that leaves out what failed looks better than it was.",
            numbers={"missing": _count(missing), "runs": _count(len(report.runs))},
        )


def stopped_early(report: CampaignReport) -> Iterator[Advice]:
    """Some differences are those at which asking stopped."""
    stopped = sum(run.measured is not None and run.measured.stopped_early for run in report.runs)
    if stopped:
        yield Advice(
            rule="stopped_early",
            tone="open",
            title="Some runs stopped asking early",
            evidence="{stopped} of {runs} runs stopped once the difference was clear, which makes it too large.",
            action="They are neither ranked nor counted as seeds; judge them without judge.stop_early to have that.",
            numbers={"stopped": _count(stopped), "runs": _count(len(report.runs))},
        )


def other_questions(report: CampaignReport) -> Iterator[Advice]:
    """Runs that cannot be compared were given together."""
    if len(report.groups) > 1:
        yield Advice(
            rule="other_questions",
            tone="open",
            title="The runs answer different questions",
            evidence="They are on {groups} pairs of held-out examples and primary metric.",
            action="To compare them all, judge every run with the same data section and the same first gate.",
            numbers={"groups": _count(len(report.groups))},
        )


def other_bases(report: CampaignReport) -> Iterator[Advice]:
    """A difference from a weak base is no sign of a good model."""
    for group in report.groups:
        if group.bases > 1:
            yield Advice(
                rule="other_bases",
                tone="open",
                title=f"{group.primary.title}: the runs began from different bases",
                evidence="{runs} runs are differences from {bases} bases; the largest need not be the best model.",
                action="Compare the tuned models themselves, as arms of one judgement (judge.arms, model: run:OTHER).",
                numbers={"runs": _count(len(group.runs)), "bases": _count(group.bases)},
            )


def best_fades(report: CampaignReport) -> Iterator[Advice]:
    """The best run is clear by itself, and not once its having been chosen is allowed for."""
    for group in report.groups:
        if group.best is None:
            continue
        alone = _effect(report, group.best.run)
        own, chosen = (group.primary.sign * bound for bound in _worst(alone, group))
        if own > 0 >= chosen:
            unit = _unit(group.primary)
            yield Advice(
                rule="best_fades",
                tone="open",
                title=f"{report.runs[group.best.run].name} may be the luckiest run",
                evidence="By itself its gain is at least {own}; as the best of {runs} runs, at least {chosen}.",
                action="Judge it once more on examples that no run of the campaign was judged on.",
                numbers={
                    "own": Number(value=own, unit=unit),
                    "runs": _count(group.best.runs),
                    "chosen": Number(value=chosen, unit=unit),
                },
            )


def recipe_verdict(report: CampaignReport) -> Iterator[Advice]:
    """Whether a recipe holds over seeds; where that is open, whether seeds or examples would settle it."""
    for recipe in report.recipes:
        if recipe.interval is None:
            continue
        sign = report.groups[recipe.group].primary.sign
        low, high = sorted((sign * recipe.interval.low, sign * recipe.interval.high))
        if low > 0 or high < 0:
            yield _clear(report, recipe, low, high)
        elif (recipe.seed_share or 0.0) < _MOSTLY:
            yield _more_examples(report, recipe)
        elif recipe.spread <= abs(recipe.difference):
            yield _more_seeds(report, recipe)


def seeds_differ(report: CampaignReport) -> Iterator[Advice]:
    """Two trainings of one recipe differ by more than the recipe gains."""
    for recipe in report.recipes:
        if recipe.spread > abs(recipe.difference):
            unit = _unit(report.groups[recipe.group].primary)
            yield Advice(
                rule="seeds_differ",
                tone="open",
                title=f"{_title(report, recipe)}: the seeds differ more than the recipe gains",
                evidence="The differences of {seeds} seeds go from {lowest} to {highest}; their mean is {difference}.",
                action="Train and judge more seeds before you say what the recipe does.",
                numbers={
                    "seeds": _count(recipe.seed_count),
                    "lowest": Number(value=min(recipe.seed_differences), unit=unit),
                    "highest": Number(value=max(recipe.seed_differences), unit=unit),
                    "difference": Number(value=recipe.difference, unit=unit),
                },
            )


def overlapping(report: CampaignReport) -> Iterator[Advice]:
    """The two largest gains of a group have intervals that overlap, and are not of one recipe."""
    for group in report.groups:
        if group.best is None:
            continue
        best, rest = group.best.run, [run for run in group.runs if not _alike(report, group, run)]
        if not rest:
            continue
        sign = group.primary.sign
        second = max(rest, key=lambda run: sign * _effect(report, run).difference)
        low = min(sign * bound for bound in _ends(_effect(report, best)))
        high = max(sign * bound for bound in _ends(_effect(report, second)))
        if low <= high:
            unit = _unit(group.primary)
            yield Advice(
                rule="overlapping",
                tone="open",
                title=f"{report.runs[best].name} and {report.runs[second].name} are not told apart",
                evidence="The gain of the first is at least {low}, that of the second at most {high}.",
                action="Intervals that overlap do not say that two runs are equal. Compare them directly, as arms of "
                "one judgement on the same examples (judge.arms, model: run:OTHER).",
                numbers={"low": Number(value=low, unit=unit), "high": Number(value=high, unit=unit)},
            )


def one_seed(report: CampaignReport) -> Iterator[Advice]:
    """The best run of a group has no sister with another seed."""
    for group in report.groups:
        if group.best is not None and not any(group.best.run in recipe.runs for recipe in report.recipes):
            yield Advice(
                rule="one_seed",
                tone="open",
                title=f"{report.runs[group.best.run].name} is one training of its recipe",
                evidence="It is the best of {runs} runs; how much of that is the luck of its seed is not measured.",
                action="Train and judge the same experiment with two other values of tune.seed or more.",
                numbers={"runs": _count(group.best.runs)},
            )


def _clear(report: CampaignReport, recipe: Recipe, low: float, high: float) -> Advice:
    unit, good = _unit(report.groups[recipe.group].primary), low > 0
    return Advice(
        rule="recipe_verdict",
        tone="good" if good else "bad",
        title=f"{_title(report, recipe)}: the recipe {'is better' if good else 'is worse'} than the base",
        evidence="Over {seeds} seeds its gain is between {low} and {high}, the luck of training counted.",
        action="It is what to expect of another seed, on other examples of the same kind."
        if good
        else "Change the recipe; another seed will not mend it.",
        numbers={
            "seeds": _count(recipe.seed_count),
            "low": Number(value=low, unit=unit),
            "high": Number(value=high, unit=unit),
        },
    )


def _more_examples(report: CampaignReport, recipe: Recipe) -> Advice:
    return Advice(
        rule="recipe_verdict",
        tone="open",
        title=f"{_title(report, recipe)}: the examples are too few to tell",
        evidence="The interval over seeds holds zero; seeds make {share} of its variance, and {n} examples the rest.",
        action="Judge on more held-out examples; more seeds alone leave most of the interval as it is.",
        numbers={"share": Number(value=recipe.seed_share or 0.0, unit="share"), "n": _count(recipe.n)},
    )


def _more_seeds(report: CampaignReport, recipe: Recipe) -> Advice:
    return Advice(
        rule="recipe_verdict",
        tone="open",
        title=f"{_title(report, recipe)}: the seeds are too few to tell",
        evidence="The interval over {seeds} seeds holds zero; they make {share} of its variance.",
        action="Train and judge more seeds; more examples alone leave most of the interval as it is.",
        numbers={
            "seeds": _count(recipe.seed_count),
            "share": Number(value=recipe.seed_share or 0.0, unit="share"),
        },
    )


RULES: tuple[Callable[[CampaignReport], Iterator[Advice]], ...] = (
    not_measured,
    stopped_early,
    other_questions,
    other_bases,
    best_fades,
    seeds_differ,
    recipe_verdict,
    overlapping,
    one_seed,
)


def _title(report: CampaignReport, recipe: Recipe) -> str:
    return f"{report.runs[recipe.runs[0]].name} and its other seeds"


def _alike(report: CampaignReport, group: RunGroup, run: int) -> bool:
    """Whether a run is the best of its group, is of the same recipe, or was not asked everything."""
    best = None if group.best is None else group.best.run
    same = any(best in recipe.runs and run in (*recipe.runs, *recipe.repeated) for recipe in report.recipes)
    found = report.runs[run].measured
    return run == best or same or found is None or found.stopped_early


def _effect(report: CampaignReport, run: int) -> Effect:
    found = report.runs[run].measured
    assert found is not None  # runs of a group are measured
    return found.effect


def _ends(effect: Effect) -> tuple[float, float]:
    return effect.interval.low, effect.interval.high


def _worst(effect: Effect, group: RunGroup) -> tuple[float, float]:
    """The end that is worst for the best run: of its own interval, and of the one that allows for the choice."""
    assert group.best is not None  # the caller has looked
    chosen = group.best.interval
    if group.primary.sign > 0:
        return effect.interval.low, chosen.low
    return effect.interval.high, chosen.high


def _count(value: int) -> Number:
    return Number(value=value, unit="count")


def _unit(primary: Primary) -> Unit:
    return "points" if primary.unit in ("share", "score") else "difference"
