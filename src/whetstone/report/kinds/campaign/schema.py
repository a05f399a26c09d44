"""What the ``report.json`` of a campaign report holds; its JSON schema is made from these models."""

from typing import Literal

from whetstone.report.kinds.advice import Advice
from whetstone.report.kinds.part import Part

__all__ = [
    "SCHEMA_VERSION",
    "Best",
    "Bounds",
    "CampaignReport",
    "CampaignRun",
    "Effect",
    "Measured",
    "Primary",
    "Recipe",
    "RunGroup",
    "Setting",
    "Took",
]

SCHEMA_VERSION: Literal[1] = 1


class Bounds(Part):
    """An interval of a difference, and how it was found."""

    low: float
    high: float
    level: float
    method: str


class Primary(Part):
    """The metric that the first gate of a run looks at."""

    name: str
    title: str
    unit: Literal["share", "words", "tokens", "score", "nats/token", "bits/byte"]
    direction: Literal["higher", "lower", "neutral"]

    @property
    def sign(self) -> int:
        """-1 for metrics that are better when lower: a difference times it is a gain."""
        return -1 if self.direction == "lower" else 1


class Effect(Part):
    """Tuned against base on the primary metric, over the held-out examples.

    Attributes:
        baseline_mean: Of the base.
        candidate_mean: Of the tuned model.
        difference: ``candidate_mean - baseline_mean``, not turned by the direction of the metric.
        interval: Of the difference, at the level of the run's own rule.
        p_value: Two-sided, of "there is no difference"; not corrected for anything.
        n: Number of examples.
        groups: Number of groups of them, the units that are independent of each other.
    """

    baseline_mean: float
    candidate_mean: float
    difference: float
    interval: Bounds
    p_value: float
    n: int
    groups: int


class Measured(Part):
    """What the rows of a run give.

    Attributes:
        data_hash: Of the file of held-out examples.
        primary: What was scored.
        effect: On it.
        verdict: By the run's own rule.
        stopped_early: The arms stopped before all examples were answered, where the difference was large enough: it is
            then too large on average, and its interval too narrow.
    """

    data_hash: str
    primary: Primary
    effect: Effect
    verdict: Literal["SHIP", "REJECT", "INCONCLUSIVE"]
    stopped_early: bool


class Took(Part):
    """What training took, as the run recorded it; it is in no row."""

    duration_s: float
    peak_memory_bytes: int


class CampaignRun(Part):
    """One run.

    Attributes:
        name: Of its folder; the path of the folder where two have the same name.
        base: Where the base is from; null where the run cannot be read.
        method: Of training.
        seed: Of training.
        training: Null where the run trained nothing that was judged.
        measured: Null where the rows give no difference.
        reason: Why not; null where they do.
    """

    name: str
    base: str | None
    method: str | None
    seed: int | None
    training: Took | None
    measured: Measured | None
    reason: str | None


class Setting(Part):
    """A key of ``tune``, ``model`` or ``data`` that is not the same in all runs, with the value of each, in order.

    A value is null where the run cannot be read, and ``not set`` where it has none.
    """

    key: str
    values: tuple[str | None, ...]


class Best(Part):
    """The run with the largest gain of a group, with an interval that allows for its having been chosen.

    Attributes:
        run: Its place among the runs.
        runs: How many it was chosen from.
        difference: Its own, which chance has made too large on average.
        interval: At ``1 - (1 - confidence) / runs`` (Bonferroni), so that the intervals of all runs of the group hold
            at once as often as its rule asks of one.
    """

    run: int
    runs: int
    difference: float
    interval: Bounds


class RunGroup(Part):
    """Runs on the same held-out examples with the same primary metric: only these can be compared.

    Attributes:
        data_hash: Of the examples.
        primary: The metric.
        runs: Their places among the runs.
        bases: How many different base weights they began from; differences from different bases cannot be ranked.
        best: Null where there is nothing to choose from, or every run stopped early.
    """

    data_hash: str
    primary: Primary
    runs: tuple[int, ...]
    bases: int
    best: Best | None


class Recipe(Part):
    """Runs that differ in nothing but the seed of their training.

    Attributes:
        group: The place of their group.
        runs: Their places among the runs, one a seed.
        seeds: The seed of each.
        seed_count: How many.
        repeated: Runs left out, because their seed is that of one before.
        n: Number of examples that every run has a score on.
        groups: Number of groups of these.
        seed_differences: Difference of each seed.
        spread: Largest less smallest difference of a seed.
        difference: Mean over seeds and examples.
        interval: Counts the luck of training as well as that of the examples; null where nothing varies.
        p_value: Two-sided, of "the recipe makes no difference"; null as the interval.
        seed_share: Share of the variance of the difference that is due to seeds; null as the interval.
    """

    group: int
    runs: tuple[int, ...]
    seeds: tuple[int, ...]
    seed_count: int
    repeated: tuple[int, ...]
    n: int
    groups: int
    seed_differences: tuple[float, ...]
    spread: float
    difference: float
    interval: Bounds | None
    p_value: float | None
    seed_share: float | None


class CampaignReport(Part):
    """The whole report. Every number on the page stands here, under the path that the page names."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["campaign"] = "campaign"
    runs: tuple[CampaignRun, ...]
    settings: tuple[Setting, ...]
    groups: tuple[RunGroup, ...]
    recipes: tuple[Recipe, ...]
    advice: tuple[Advice, ...]
