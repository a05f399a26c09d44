"""What live answers are compared with: how often judged answers were empty, copied, too long, and by how much chance.

A window of live answers is out of control where its count would be surprising if live answers were like the judged.
With ``k`` of ``n`` judged answers and Jeffreys's prior, the share is Beta(k + 1/2, n - k + 1/2), and the count in a
window of ``m`` further answers is beta-binomial (Gelman et al. 2013, Bayesian Data Analysis, 3rd edition, sections 2.4
and 2.8; Brown, Cai and DasGupta 2001, Statistical Science 16:101-133, for the prior): it knows that the judged rate
itself was only estimated. The limits hold a count with 99.9 % for all rates together: each tail of each rate gets its
part of the rest (Bonferroni). They hold for one window; whoever looks at a thousand has to expect one alarm.

Judged answers whose questions were made from one source are not independent. Counts are divided by their design effect
first (Rao and Scott 1992, Biometrics 48:577-585): what came from a few sources is as uncertain as it is.

Notable: ``long_answer`` is bounded by a quantile of the same answers. That is right as it stands: of further draws, the
share beyond the j-th of n ordered draws is Beta(n - j + 1, j) (Wilks 1941, Annals of Mathematical Statistics 12:91-96),
which differs from the above by half an answer.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import betabinom

from whetstone.data.example import Example
from whetstone.evaluate.evidence import EXAMPLES
from whetstone.evaluate.sample import Sample
from whetstone.line_file import LineFile
from whetstone.run import Run
from whetstone.serve.observe.observation import OBSERVED, Bound, extra_words, last_user_turn, observe
from whetstone.serve.served_model import JudgedRate

__all__ = ["WINDOW", "control_limits", "design_effect", "judged_rates"]

WINDOW = 200
"""How many live answers are looked at together."""

_COVERAGE = 0.999
_USUAL_WORDS, _USUAL_TOKENS = 0.99, 0.9

Integers = npt.NDArray[np.int64]


def judged_rates(run: Run, arm: str, repeats: int, window: int = WINDOW) -> tuple[JudgedRate, ...]:
    """The rates of one arm's answers to the held-out examples.

    Args:
        run: Judged.
        arm: Whose.
        repeats: How many answers each example has.
        window: How many live answers are looked at together.

    Returns:
        One for each of :data:`whetstone.serve.observation.OBSERVED`; none where there are no answers.

    Raises:
        UserError: A row is damaged.
    """
    answers = list(_answers(run, arm, repeats))
    if not answers:
        return ()
    bounds = _bounds(answers)
    seen = [
        observe(last_user_turn(example.messages), row.text, row.new_tokens or 0, row.finish_reason, bounds)
        for example, row in answers
    ]
    groups = np.unique([example.group for example, _ in answers], return_inverse=True)[1]
    rates = []
    for bound in bounds:
        had = np.array([one[bound.name] for one in seen], np.int64)
        effect = design_effect(had, groups)
        low, high = control_limits(int(had.sum()), len(had), window, rates=len(bounds), effect=effect)
        rates.append(
            JudgedRate(
                name=bound.name,
                judged=int(had.sum()),
                samples=len(had),
                window=window,
                low=low,
                high=high,
                threshold=bound.threshold,
            )
        )
    return tuple(rates)


def control_limits(judged: int, samples: int, window: int, *, rates: int = 1, effect: float = 1.0) -> tuple[int, int]:
    """Between which counts a window of answers lies, if they are like the judged ones.

    Args:
        judged: How many judged answers had it.
        samples: How many judged answers there were.
        window: How many answers are looked at together.
        rates: How many rates are watched; the coverage of 99.9 % is of all of them.
        effect: The design effect of the judged answers: so many of them tell as much as one that is independent.

    Returns:
        The lowest and the highest count that is not out of control.
    """
    tail = (1 - _COVERAGE) / (2 * rates)
    live = betabinom(window, judged / effect + 0.5, (samples - judged) / effect + 0.5)
    return int(live.ppf(tail)), int(live.isf(tail))


def design_effect(had: Integers, groups: Integers) -> float:
    """How many times the variance of a rate is that of independent answers; never below 1.

    Args:
        had: 1 or 0, one an answer.
        groups: The group of each answer, as a number from zero.
    """
    rate, sizes = had.mean(), np.bincount(groups)
    if len(sizes) < 2 or rate in (0, 1):
        return 1.0
    residuals = np.bincount(groups, had) - sizes * rate
    variance = len(sizes) / (len(sizes) - 1) * float(residuals @ residuals) / len(had) ** 2
    return max(1.0, len(had) * variance / float(rate * (1 - rate)))


def _answers(run: Run, arm: str, repeats: int) -> Iterator[tuple[Example, Sample]]:
    """The rows beside their examples; where the arm stopped early, as far as it came."""
    path = run.samples / f"{arm}.jsonl"
    if not path.exists() or not (run.samples / EXAMPLES).exists():
        return
    asked, rows = LineFile.open(run.samples / EXAMPLES), LineFile.open(path)
    answered = rows.rows(0, min(len(rows), len(asked) * repeats))
    examples = (example for row in asked.rows(0, len(asked)) for example in [Example.from_row(row)] * repeats)
    for row, example in zip(answered, examples, strict=False):
        yield example, Sample.from_row(row)


def _bounds(answers: Sequence[tuple[Example, Sample]]) -> tuple[Bound, ...]:
    """Right answers say how many words are too many; where there are none, the judged ones do."""
    right = [
        max(extra_words(last_user_turn(example.messages), text) for text in example.references)
        for example, _ in answers
        if example.references
    ]
    words = right or [extra_words(last_user_turn(example.messages), row.text) for example, row in answers]
    tokens = [row.new_tokens or 0 for _, row in answers]
    thresholds = {
        "extra_text": float(np.quantile(words, _USUAL_WORDS, method="higher")),
        "long_answer": float(np.quantile(tokens, _USUAL_TOKENS, method="higher")),
    }
    return tuple(Bound(name, thresholds.get(name)) for name in OBSERVED)
