"""What to do next: rules over the evidence, each of which names the numbers it rests on.

A rule advises, finds nothing to advise, or says that what it looks at was not measured; none changes the verdict.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from whetstone.report import format as written
from whetstone.report.claims import Claims, suite_path, suite_title

__all__ = ["Recommendation", "recommend"]

CUT_OFF_SHARE = 0.01
WRONG_FORM_SHARE = 0.02
FALSE_DISCOVERY_RATE = 0.05


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What one rule says.

    Attributes:
        rule: What it looks at.
        state: ``advised``, ``fine`` or ``not measured``.
        text: The advice with its numbers; for the other states what was seen.
    """

    rule: str
    state: Literal["advised", "fine", "not measured"]
    text: str


def recommend(report: dict[str, Any]) -> list[Recommendation]:
    """Applies every rule.

    Args:
        report: The content of ``report.json`` without its recommendations.
    """
    claims = Claims(report)
    rules: dict[str, Callable[[Claims], Recommendation | None]] = {
        "Losses that no gate looks at": _unguarded,
        "Questions that training saw": _leaks,
        "Answers that were cut off": _cut_off,
        "Right answers in a wrong form": _wrong_form,
        "What a longer prompt does": _few_shot,
        "The noise of asking": _noise,
        "Categories that got worse": _categories,
        "How many examples would settle it": _examples_needed,
        "Text that is not of the task": _forgotten,
        "The engine against transformers": _engine,
    }
    found = [(rule, apply(claims)) for rule, apply in rules.items()]
    return [
        Recommendation(rule, "not measured", written.UNMEASURED)
        if said is None
        else Recommendation(rule, said.state, said.text)
        for rule, said in found
    ]


def _advised(text: str) -> Recommendation:
    return Recommendation("", "advised", text)


def _fine(text: str) -> Recommendation:
    return Recommendation("", "fine", text)


def _moved(claims: Claims, path: str, unit: str) -> str:
    """A difference with its interval and n."""
    difference = claims.text(f"{path}.difference", written.difference(unit))
    low, high = (claims.text(f"{path}.interval.{end}", written.bare_difference(unit)) for end in ("low", "high"))
    return f"{difference} [{low}, {high}], n = {claims.text(f'{path}.n', written.count)}"


def _unguarded(claims: Claims) -> Recommendation | None:
    losses = claims.value("unguarded_losses")
    if claims.value("flips") is None and not losses:
        return None
    if not losses:
        return _fine("No metric got worse beyond its interval without a gate.")
    said = []
    for loss in losses:
        prefix = suite_path(loss["suite"])
        unit = claims.value(f"{prefix}metrics.{loss['metric']}.unit")
        moved = _moved(claims, f"{prefix}comparisons.{loss['metric']}.base", unit)
        said.append(f"{suite_title(loss['suite'], loss['metric'])} ({moved})")
    return _advised(f"Add a must_not_regress gate, or accept: {'; '.join(said)}.")


def _leaks(claims: Claims) -> Recommendation | None:
    if claims.value("sanity") is None:
        return None
    searched = claims.text("sanity.training_examples", written.count)
    if not claims.value("sanity.leaked"):
        return _fine(f"None of the questions stands among {searched} training examples.")
    unit = claims.value(f"metrics.{claims.value('primary')}.unit")
    without = claims.value("sanity.without_leaks")
    moved = written.UNMEASURED if without is None else _moved(claims, "sanity.without_leaks", unit)
    leaked, total = claims.text("sanity.leaked", written.count), claims.text("examples.n", written.count)
    return _advised(f"Split by group: training saw {leaked} of {total} questions. Without them: {moved}.")


def _cut_off(claims: Claims) -> Recommendation | None:
    share = _mean(claims, "truncated")
    if share is None:
        return None
    said = f"{written.share(share)} of {_n(claims, 'truncated')} answers of the tuned arm reached the token limit"
    return _advised(f"Raise judge.generation.max_new_tokens: {said}.") if share > CUT_OFF_SHARE else _fine(f"{said}.")


def _wrong_form(claims: Claims) -> Recommendation | None:
    share = _mean(claims, "extra_text")
    if share is None:
        return None
    said = f"{written.share(share)} of {_n(claims, 'extra_text')} answers hold a right answer with other text around it"
    return _advised(f"Teach the form: {said}.") if share > WRONG_FORM_SHARE else _fine(f"{said}.")


def _few_shot(claims: Claims) -> Recommendation | None:
    primary = claims.value("primary")
    path = f"comparisons.{primary}.few-shot"
    if claims.value(path) is None:
        return None
    moved = _moved(claims, path, claims.value(f"metrics.{primary}.unit"))
    if claims.value(f"{path}.gain_low") > 0:
        return _fine(f"Tuning is worth more than solved examples in the prompt: {moved}.")
    return _advised(
        f"Try a longer prompt first: over the base with solved examples, tuning is not shown to gain: {moved}."
    )


def _noise(claims: Claims) -> Recommendation | None:
    if claims.value("noise_floor") is None:
        return None
    unit = claims.value(f"metrics.{claims.value('noise_floor.metric')}.unit")
    moved = _moved(claims, "noise_floor", unit)
    low, high = claims.value("noise_floor.interval.low"), claims.value("noise_floor.interval.high")
    if low <= 0 <= high:
        return _fine(f"The base asked again moved by {moved}.")
    return _advised(f"Ask each example more often (judge.generation.repeats): the base asked again moved by {moved}.")


def _categories(claims: Claims) -> Recommendation | None:
    rows = claims.value("categories.rows")
    measured = [(index, row) for index, row in enumerate(rows) if row["comparison"] is not None]
    if not measured:
        return None
    unit = claims.value(f"metrics.{claims.value('primary')}.unit")
    worse = [
        f"{row['category']} ({_moved(claims, f'categories.rows.{index}.comparison', unit)})"
        for index, row in measured
        if row["comparison"]["gain"] < 0 and row["comparison"]["q_value"] < FALSE_DISCOVERY_RATE
    ]
    if not worse:
        return _fine(f"None of {len(measured)} categories got worse (false discovery rate {FALSE_DISCOVERY_RATE:g}).")
    return _advised(f"Collect training examples of what got worse: {'; '.join(worse)}.")


def _examples_needed(claims: Claims) -> Recommendation | None:
    gates = [gate for gate in claims.value("gates") if gate["comparison"] is not None]
    if not gates:
        return None
    still_open = [f"{gate['name']}: {gate['remedy']}" for gate in gates if gate["state"] == "open"]
    if not still_open:
        return _fine(f"None of {len(gates)} gates that compare arms is open.")
    return _advised(" ".join(still_open))


def _forgotten(claims: Claims) -> Recommendation | None:
    records = claims.value("manifest.retention")
    if not records:
        return None
    lost = [
        f"{one['source']} ({written.decimal_difference(one['difference'])} nats per token on {one['texts']} texts)"
        for one in records
        if one["low"] is not None and one["low"] > 0
    ]
    if not lost:
        return _fine(f"None of {len(records)} kinds of text is predicted worse beyond its interval.")
    return _advised(f"Mix replay into training (data.replay), or train less: {'; '.join(lost)}.")


def _engine(claims: Claims) -> Recommendation | None:
    checks = claims.value("sanity.engine")
    if not checks:
        return None
    said = ", ".join(f"{arm} {one['equal']} of {one['compared']}" for arm, one in checks.items())
    if all(one["equal"] == one["compared"] for one in checks.values()):
        return _fine(f"Greedy answers are those of transformers: {said}.")
    return _advised(f"Judge in float32 (model.dtype), where the engine equals transformers; here: {said}.")


def _mean(claims: Claims, metric: str) -> float | None:
    found: float | None = claims.value(f"arms.tuned.{metric}.mean")
    return found


def _n(claims: Claims, metric: str) -> str:
    return claims.text(f"arms.tuned.{metric}.n", written.count)
