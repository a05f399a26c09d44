"""The ``judge`` section of an experiment: what is asked of which arms, and the rule of the verdict.

The rule has a hash of its own, so that it can be frozen before the first token is generated.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from whetstone.section import Count, KeyedError, Section, Seed, stable_hash

__all__ = [
    "HELD_OUT",
    "DescriptiveMetric",
    "ExtraArm",
    "GateFile",
    "GateMetric",
    "Generation",
    "Grader",
    "Judge",
    "Limit",
    "MetricName",
    "MustImprove",
    "MustNotRegress",
    "RetentionGate",
]

HELD_OUT = "held-out"
"""The experiment's own test part, where a suite is named."""

_NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
"""What an arm or a suite may be called: as a run, but without a dot, which parts the keys of a report."""

_TAKEN = ("copy-input", "base", "base-again", "few-shot", "tuned", "examples")
"""The arms of every comparison, and what lies beside their files."""

_OWN = re.compile(r"(tuned|base|merged)(@.*)?")

GateMetric = Literal[
    "exact_match",
    "exact_match_lenient",
    "over_edit",
    "under_edit",
    "extra_text",
    "empty",
    "too_short",
    "truncated",
    "gleu",
    "bleu",
    "chrf",
    "rouge_l",
    "edit_similarity",
    "errant_f05",
    "repetition",
    "json_valid",
    "meets_requirements",
    "pattern",
    "refusal",
    "passes_tests",
    "pass_at_1",
    "pass_at_5",
    "pass_at_10",
    "nll",
    "bits_per_byte",
    "special_token_leak",
    "preferred",
]
"""The metrics that have a better direction."""

DescriptiveMetric = Literal[
    "copy_rate", "clarification", "length_words", "length_tokens", "distinct_1", "distinct_2", "self_bleu"
]
"""The metrics that describe, and cannot be won."""

MetricName = GateMetric | DescriptiveMetric

Measure = Literal["latency_p50_s", "latency_p95_s", "first_token_p50_s", "first_token_p95_s", "memory_bytes"]
"""What an answer takes; the less the better."""


class Generation(Section):
    """How every arm answers; temperature 0 is greedy."""

    max_new_tokens: Count = 64
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Seed = 0
    batch_size: Count = 32
    repeats: Count = 1
    """How often each example is asked; its score is the mean over the answers."""

    @model_validator(mode="after")
    def _repeats_differ(self) -> "Generation":
        if self.repeats > 1 and self.temperature == 0:
            raise KeyedError("repeats", f"{self.repeats} greedy answers are all the same; set temperature, or 1")
        return self

    @model_serializer(mode="wrap")
    def _what_was_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_defaults(self, handler(self), "repeats")


class _StatisticalGate(Section):
    metric: GateMetric
    over: Literal["base", "copy-input", "few-shot"] = "base"
    suite: str = HELD_OUT
    """The experiment's own test part, or one of ``judge.suites`` by the name of its file."""

    @model_serializer(mode="wrap")
    def _what_was_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_defaults(self, handler(self), "suite")


class MustImprove(_StatisticalGate):
    """Gate: the tuned arm is better than ``over`` on ``metric``, beyond chance."""

    metric: GateMetric = "exact_match"


class MustNotRegress(_StatisticalGate):
    """Gate: the tuned arm is not worse than ``over`` on ``metric`` by ``margin`` or more, in the metric's unit."""

    margin: Annotated[float, Field(gt=0)]


class Limit(Section):
    """Gate: what the tuned arm takes on the held-out examples stays within a bound."""

    measure: Measure
    at_most: Annotated[float, Field(gt=0)] | None = None
    """In seconds or bytes."""
    at_most_times_base: Annotated[float, Field(gt=0)] | None = None
    """As a multiple of what the base takes, measured side by side."""

    @model_validator(mode="after")
    def _one_bound(self) -> "Limit":
        if (self.at_most is None) == (self.at_most_times_base is None):
            raise KeyedError("measure", "give one bound: at_most, or at_most_times_base")
        return self


class RetentionGate(Section):
    """Gate: texts that are not of the task are predicted no worse than before, by ``margin`` or more."""

    margin: Annotated[float, Field(gt=0)]
    """In nats per token."""


class ExtraArm(Section):
    """One more arm: measured and described like the others, and no part of any gate."""

    name: Annotated[str, Field(pattern=f"^{_NAME_PATTERN}$")]
    model: Annotated[str, Field(min_length=1)]
    """``tuned``, ``base`` or ``merged`` (the adapter merged into the base) of this run, perhaps with ``@float32``,
    ``@bfloat16``, ``@int8`` or ``@nf4``; anything else names a model as in ``whet chat``: ``run:OTHER``,
    ``DIR+ADAPTER``, ``gguf:FILE``, ``mlx:DIR``, ``http://HOST/v1#MODEL``."""

    @model_validator(mode="after")
    def _name_is_free(self) -> "ExtraArm":
        # Some file systems take upper and lower case for the same name.
        if self.name.casefold() in _TAKEN:
            raise KeyedError("name", f"'{self.name}' is taken by what every comparison has; give another name")
        return self

    @property
    def own(self) -> tuple[str, str] | None:
        """Which model of this run it is, and its precision with the sign before it; None where it is another model."""
        found = _OWN.fullmatch(self.model)
        return None if found is None else (found[1], found[2] or "")

    @property
    def baseline(self) -> Literal["base", "tuned"]:
        """The arm that it is a variant of, and is compared with."""
        return "base" if self.own is not None and self.own[0] == "base" else "tuned"


class GateFile(Section):
    """Gates that are applied to samples that are there already, as a pipeline does."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    must_improve: tuple[MustImprove, ...] = ()
    must_not_regress: tuple[MustNotRegress, ...] = ()
    limits: tuple[Limit, ...] = ()
    retention: RetentionGate | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> "GateFile":
        if not (self.must_improve or self.must_not_regress or self.limits or self.retention):
            raise KeyedError("must_improve", "the file holds no gate; give must_improve, must_not_regress or limits")
        return self


class Grader(Section):
    """A model that says which of two answers it likes better; it is asked in both orders (metric ``preferred``)."""

    name: Annotated[str, Field(pattern=f"^{_NAME_PATTERN}$")]
    model: Annotated[str, Field(min_length=1)]
    """Any model by its name, as in ``whet chat``; not the run's own weights, which would judge themselves."""
    criteria: str = "Which answer is better? A good one does what was asked, is right, and says no more than it has to."
    max_new_tokens: Count = 8


class Judge(Section):
    """The rule of the verdict, fixed before generation."""

    generation: Generation = Generation()
    max_examples: Count | None = None
    """Judge on the first so many held-out examples (in split order); all of them when left out."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    metrics: tuple[MetricName, ...] = ()
    """Scored on the held-out examples beside the usual ones and those of the gates."""
    suites: tuple[str, ...] = ()
    """Asked beside the held-out examples: suites of the package by name, or YAML files."""
    few_shot: Annotated[int, Field(ge=0, le=32)] = 3
    """How many training examples the few-shot arm is shown before each question; 0 leaves the arm out."""
    must_improve: Annotated[tuple[MustImprove, ...], Field(min_length=1)] = (
        MustImprove(over="base"),
        MustImprove(over="copy-input"),
    )
    must_not_regress: tuple[MustNotRegress, ...] = ()
    limits: tuple[Limit, ...] = ()
    retention: RetentionGate | None = None
    graders: tuple[Grader, ...] = ()
    """Models that compare the tuned arm's answers with the base's, where a metric list or gate names ``preferred``."""
    stop_early: bool = False
    """Answer in rounds, and stop when no further answer could change the verdict; see docs/judging.md."""
    arms: tuple[ExtraArm, ...] = ()
    """Models that are measured beside the others: quantised, merged or served variants, or any others."""

    @model_validator(mode="after")
    def _arms_differ_in_name(self) -> "Judge":
        names = [arm.name.casefold() for arm in self.arms]
        for arm in self.arms:
            if names.count(arm.name.casefold()) > 1:
                raise KeyedError("arms", f"more than one is called '{arm.name}'; give each a name of its own")
        return self

    @model_validator(mode="after")
    def _suites_are_named(self) -> "Judge":
        names = self.suite_names()
        for index, name in enumerate(names):
            if not re.fullmatch(_NAME_PATTERN, name) or name == HELD_OUT:
                raise KeyedError(f"suites.{index}", f"'{name}' cannot be a suite's name; rename its file: a-z, 0-9, -")
            if [other.casefold() for other in names].count(name.casefold()) > 1:
                raise KeyedError("suites", f"more than one is called '{name}'; give each file a name of its own")
        known = (HELD_OUT, *names)
        for key, gates in (("must_improve", self.must_improve), ("must_not_regress", self.must_not_regress)):
            for index, gate in enumerate(gates):
                if gate.suite not in known:
                    raise KeyedError(
                        f"{key}.{index}.suite", f"'{gate.suite}' is not among judge.suites; there: {', '.join(known)}"
                    )
        return self

    @model_validator(mode="after")
    def _graders_are_there(self) -> "Judge":
        names = [grader.name.casefold() for grader in self.graders]
        if len(set(names)) < len(names):
            raise KeyedError("graders", "two have the same name; give each a name of its own")
        rules = [rule for rule in self.rules() if rule.metric == "preferred"]
        if rules and not self.graders:
            raise KeyedError("graders", "a gate asks what is preferred; give a model that compares answers")
        if any(rule.over != "base" for rule in rules):
            raise KeyedError("must_improve", "'preferred' compares the tuned arm with the base; set over: base")
        return self

    @model_validator(mode="after")
    def _few_shot_is_there(self) -> "Judge":
        if self.few_shot == 0 and any(rule.over == "few-shot" for rule in self.rules()):
            raise KeyedError("few_shot", "a gate compares with the few-shot arm; give it examples, 3 say")
        return self

    @model_serializer(mode="wrap")
    def _what_was_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out what a rule need not say, so that a rule keeps its hash when there is more that could be said."""
        late = ("metrics", "suites", "few_shot", "limits", "retention", "graders", "stop_early", "arms")
        return _without_defaults(self, handler(self), *late)

    def suite_names(self) -> tuple[str, ...]:
        """The suites beside the held-out examples: the names of their files."""
        return tuple(Path(suite).name.removesuffix(".yaml") for suite in self.suites)

    def rules(self) -> tuple[MustImprove | MustNotRegress, ...]:
        """All statistical gates, in the order in which they are reported."""
        return (*self.must_improve, *self.must_not_regress)

    def gated(self, suite: str) -> tuple[GateMetric, ...]:
        """The metrics that gates look at on one suite."""
        return tuple(dict.fromkeys(rule.metric for rule in self.rules() if rule.suite == suite))

    def fingerprint(self) -> str:
        """The hash that is written into the run before the first token is generated."""
        return stable_hash(self.model_dump(mode="json"))


def _without_defaults(section: Section, values: dict[str, Any], *names: str) -> dict[str, Any]:
    fields = type(section).model_fields
    return {
        key: value for key, value in values.items() if key not in names or getattr(section, key) != fields[key].default
    }
