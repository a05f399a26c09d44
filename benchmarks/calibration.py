"""Whether the statistics keep their word: error rates, coverage and power in worlds whose truth is known.

Run as: .venv/bin/python benchmarks/calibration.py

Four kinds of scores, each from as many examples as a judgement has: 0/1 scores of single examples, numbers between 0
and 1, 0/1 scores in groups of four made from one source, and shares of four parts, most of them tied. Every example
has a difficulty of its own, and both arms answer it with luck of their own; base against base is two such arms. An arm
with an effect has some of its answers turned into perfect ones, or into worthless ones, so that the true difference is
known.

An arm is called better or worse as the verdict calls it: better where p < 0.05 and the interval is all gain, worse
where the interval is all loss. Early stopping looks every 20 rows, once with all of alpha, and once with a fifth of it,
which leaves the rest to the tests of all rows. A line holds where the value is what is wanted, with
two sampling errors allowed. Resamples are 2,000 instead of 10,000 to save time: p-values stay exact with any number of
them, and the interval's ends are moved at random by about a hundredth of its width.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from harness import benchmark_parser, finish
from rich.console import Console
from rich.table import Table

from whetstone.stats.paired import PairedComparison, compare_paired, mean_interval, non_inferiority_p
from whetstone.stats.power import minimum_detectable_effect
from whetstone.stats.resample import FloatArray, IntArray
from whetstone.stats.seeds import compare_seeds
from whetstone.stats.sequential import EARLY_SHARE, SequentialDecision, sequential_decision

ALPHA = 0.05
RESAMPLES = 2_000
ROUND_ROWS = 20
PILOTS = 200  # worlds over which the printed minimum detectable effect is averaged
QUICK_WORLDS = 24
SEED_SPREAD = 0.1  # standard deviation of what a training seed adds to the share of answers turned

Outcome = dict[str, float]


@dataclass(frozen=True, slots=True)
class Kind:
    """How scores come about: every arm's mean is one half, and none of an example's luck is shared by the arms."""

    name: str
    groups: int
    group_size: int
    answers: Callable[[np.random.Generator, FloatArray], FloatArray]
    """Scores from the difficulty of each example, a number between 0 and 1."""

    @property
    def examples(self) -> int:
        """How many there are in one world."""
        return self.groups * self.group_size

    def arms(self, random: np.random.Generator, effects: Sequence[float]) -> list[FloatArray]:
        """Arms that are better than one half by each of `effects` in truth."""
        difficulty = random.beta(0.5, 0.5, self.groups).repeat(self.group_size)
        return [_turned(random, self.answers(random, difficulty), effect) for effect in effects]

    @property
    def group_numbers(self) -> IntArray:
        """Group of each example."""
        return np.arange(self.groups).repeat(self.group_size)


def _turned(random: np.random.Generator, scores: FloatArray, effect: float) -> FloatArray:
    """Turns so many answers into perfect or worthless ones that the mean, one half in truth, moves by the effect."""
    return np.where(random.random(len(scores)) < 2 * abs(effect), float(effect > 0), scores)


def _right_or_wrong(random: np.random.Generator, difficulty: FloatArray) -> FloatArray:
    return np.asarray(random.random(len(difficulty)) < difficulty, dtype=np.float64)


def _numbers(random: np.random.Generator, difficulty: FloatArray) -> FloatArray:
    return np.asarray((difficulty + random.random(len(difficulty))) / 2)


def _quarters(random: np.random.Generator, difficulty: FloatArray) -> FloatArray:
    return np.asarray(random.binomial(4, difficulty) / 4)


KINDS = (
    Kind("binary", 400, 1, _right_or_wrong),
    Kind("continuous", 300, 1, _numbers),
    Kind("clustered", 100, 4, _right_or_wrong),
    Kind("tied", 300, 1, _quarters),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table: a rate over worlds, and what it should be."""

    what: str
    scores: str
    value: float
    error: float
    low: float
    high: float

    @property
    def wanted(self) -> str:
        """The bounds in words."""
        if self.low == 0 and self.high == 1:
            return "no promise"
        if self.low == 0:
            return f"at most {self.high:.1%}"
        return f"at least {self.low:.1%}" if self.high == 1 else f"{self.low:.0%} to {self.high:.0%}"

    @property
    def holds(self) -> bool:
        """Whether the value is what is wanted, or misses it by less than two sampling errors."""
        return self.low - 2 * self.error <= self.value <= self.high + 2 * self.error


def main() -> None:
    """Measures, prints the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--worlds", type=int, default=2000, help="how many worlds for each line")
    parser.add_argument("--processes", type=int, default=1, help="how many cores to use")
    arguments = parser.parse_args()
    checks = run(arguments)
    table = Table("what", "scores", "value", "sampling error", "wanted", "holds")
    for check in checks:
        holds = "yes" if check.holds else "NO"
        table.add_row(check.what, check.scores, f"{check.value:.1%}", f"{check.error:.1%}", check.wanted, holds)
    Console(width=120).print(table)
    finish(arguments, {"checks": [{**asdict(check), "holds": check.holds} for check in checks]}, packages=["scipy"])


def run(arguments: argparse.Namespace) -> list[Check]:
    """All lines."""
    worlds = QUICK_WORLDS if arguments.quick else arguments.worlds
    checks: list[Check] = []
    with ProcessPoolExecutor(arguments.processes) as pool:

        def outcomes(world: Callable[[int], Outcome]) -> list[Outcome]:
            return list(pool.map(world, range(worlds), chunksize=max(1, worlds // 40)))

        for kind in KINDS:
            effect = printed_effect(kind, min(PILOTS, worlds))
            sys.stderr.write(f"{kind.name}: the minimum detectable effect of {kind.examples} is {effect:.4f}\n")
            checks += [
                *null_checks(kind, outcomes(partial(world_of, kind, 0.0, effect))),
                *effect_checks(kind, outcomes(partial(world_of, kind, effect, effect))),
                *large_effect_checks(kind, outcomes(partial(world_of, kind, 2 * effect, effect))),
                *loss_checks(kind, outcomes(partial(world_of, kind, -effect, effect))),
            ]
        for seeds in (3, 5, 10):
            found = outcomes(partial(seeds_of, seeds))
            checks.append(_check(f"95% interval over {seeds} training seeds covers", "clustered", found, 0.93, 0.97))
    return checks


def printed_effect(kind: Kind, worlds: int) -> float:
    """The minimum detectable effect that is printed, on average, where that is the true effect.

    What is printed depends a little on the effect, because arms that differ more have a larger spread.
    """
    effect = 0.0
    for _ in range(3):
        printed = []
        for seed in range(worlds):
            baseline, candidate = kind.arms(np.random.default_rng((1, seed)), (0.0, effect))
            printed.append(minimum_detectable_effect(baseline, candidate, kind.group_numbers, alpha=ALPHA))
        effect = statistics.fmean(printed)
    return effect


def world_of(kind: Kind, effect: float, margin: float, seed: int) -> Outcome:
    """What is decided in one world, as 0 or 1, and the share of the rows that early stopping reads."""
    baseline, candidate = kind.arms(np.random.default_rng((2, seed)), (0.0, effect))
    groups = kind.group_numbers
    paired = compare_paired(baseline, candidate, groups, level=1 - ALPHA, resamples=RESAMPLES, seed=seed)
    better, called = _calls(paired, ALPHA)
    early = sequential_decision(baseline, candidate, groups, alpha=ALPHA)
    thrifty = sequential_decision(baseline, candidate, groups, alpha=EARLY_SHARE * ALPHA)
    thrifty_better, thrifty_called = thrifty.state == "better", thrifty.state != "open"
    if not thrifty_called:
        rest = (1 - EARLY_SHARE) * ALPHA
        last = compare_paired(baseline, candidate, groups, level=1 - rest, resamples=RESAMPLES, seed=seed)
        thrifty_better, thrifty_called = _calls(last, rest)
    accuracy = mean_interval(baseline, groups, level=1 - ALPHA, resamples=RESAMPLES, seed=seed) if effect == 0 else None
    no_loss = sequential_decision(baseline, candidate, groups, alpha=ALPHA, margin=margin)
    found = {
        "better": better,
        "called": called,
        "covered": paired.interval.low <= effect <= paired.interval.high,
        "mean covered": accuracy is not None and accuracy.low <= 0.5 <= accuracy.high,
        "loss excluded": 2 * non_inferiority_p(baseline, candidate, groups, margin=margin) < ALPHA,
        "early better": early.state == "better",
        "early called": early.state != "open",
        "early covered": early.low <= effect <= early.high,
        "early loss excluded": no_loss.state == "better",
        "rows": _share_read(kind, early),
        "thrifty better": thrifty_better,
        "thrifty called": thrifty_called,
        "thrifty rows": _share_read(kind, thrifty),
    }
    return {name: float(value) for name, value in found.items()}


def _calls(paired: PairedComparison, alpha: float) -> tuple[bool, bool]:
    """Whether the candidate is called better, and whether it is called better or worse."""
    better = paired.p_value < alpha and paired.interval.low > 0
    return better, better or paired.interval.high < 0


def _share_read(kind: Kind, decision: SequentialDecision) -> float:
    return min(kind.examples, math.ceil(decision.rows / ROUND_ROWS) * ROUND_ROWS) / kind.examples


def seeds_of(seeds: int, seed: int) -> Outcome:
    """Whether the interval over training seeds that differ covers the truth, which is that they do not on average."""
    random = np.random.default_rng((3, seed))
    kind = next(kind for kind in KINDS if kind.name == "clustered")
    baseline, *arms = kind.arms(random, (0.0, *random.normal(0, SEED_SPREAD, seeds)))
    compared = compare_seeds([arm - baseline for arm in arms], kind.group_numbers, level=1 - ALPHA)
    interval = compared.interval
    return {"value": float(interval is not None and interval.low <= 0 <= interval.high)}


def _check(what: str, scores: str, found: Sequence[Outcome], low: float, high: float, name: str = "value") -> Check:
    values = np.array([outcome[name] for outcome in found])
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return Check(what, scores, float(values.mean()), error, low, high)


def null_checks(kind: Kind, found: Sequence[Outcome]) -> list[Check]:
    """Base against base."""
    return [
        _check("base called better or worse than base", kind.name, found, 0, ALPHA, "called"),
        _check("the same, stopped as soon as it is", kind.name, found, 0, ALPHA, "early called"),
        _check("the same, stopped with a fifth of alpha", kind.name, found, 0, ALPHA, "thrifty called"),
        _check("95% interval of the difference covers 0", kind.name, found, 0.93, 0.97, "covered"),
        _check("95% interval of the base's mean covers", kind.name, found, 0.93, 0.97, "mean covered"),
    ]


def effect_checks(kind: Kind, found: Sequence[Outcome]) -> list[Check]:
    """An effect as large as the minimum detectable one that is printed."""
    return [
        _check("power at the minimum detectable effect", kind.name, found, 0.75, 0.85, "better"),
        _check("power when stopped as soon as it is found", kind.name, found, 0, 1, "early better"),
        _check("power when stopped with a fifth of alpha", kind.name, found, 0, 1, "thrifty better"),
        _check("95% interval of the difference covers it", kind.name, found, 0.93, 0.97, "covered"),
    ]


def large_effect_checks(kind: Kind, found: Sequence[Outcome]) -> list[Check]:
    """Twice that effect, with early stopping."""
    return [
        _check("rows read before stopping at twice that effect", kind.name, found, 0, 0.60, "rows"),
        _check("the same with a fifth of alpha", kind.name, found, 0, 0.60, "thrifty rows"),
        _check("found better by then", kind.name, found, 0.95, 1, "early better"),
        _check("interval at all times covers that effect", kind.name, found, 1 - ALPHA, 1, "early covered"),
    ]


def loss_checks(kind: Kind, found: Sequence[Outcome]) -> list[Check]:
    """A loss as large as the margin, which is the minimum detectable effect."""
    return [
        _check("a loss of the margin passes as no regression", kind.name, found, 0, ALPHA / 2, "loss excluded"),
        _check("the same, stopped as soon as it does", kind.name, found, 0, ALPHA / 2, "early loss excluded"),
    ]


if __name__ == "__main__":
    main()
