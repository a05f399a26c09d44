"""What holds for every metric, and which there are."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.example import Example
from whetstone.errors import UserError
from whetstone.evaluate.metrics.catalogue import (
    CORPUS_METRICS,
    DEFAULT_METRICS,
    METRICS,
    available_metrics,
    metric,
)
from whetstone.evaluate.metrics.corpus_metric import CorpusMetric
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample
from whetstone.judge_section import DescriptiveMetric, GateMetric

DOCUMENTED = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
RUNNABLE = tuple(one for one in METRICS if one.name != "errant_f05")
NEED_REFERENCES = [
    "exact_match",
    "exact_match_lenient",
    "over_edit",
    "under_edit",
    "extra_text",
    "too_short",
    "gleu",
    "bleu",
    "chrf",
    "rouge_l",
    "edit_similarity",
]
BEST_FOR_A_REFERENCE = ["exact_match", "exact_match_lenient", "gleu", "bleu", "chrf", "rouge_l", "edit_similarity"]
TEXTS = st.text("abc .?<|>\n", max_size=60)


def test_every_gate_metric_exists_and_has_a_better_direction() -> None:
    names = {one.name: one.direction for one in METRICS}
    assert {name for name, direction in names.items() if direction != "neutral"} == set(get_args(GateMetric))
    assert {name for name, direction in names.items() if direction == "neutral"} == set(get_args(DescriptiveMetric))


def test_names_are_unique() -> None:
    names = [*(one.name for one in METRICS), *(one.name for one in CORPUS_METRICS)]
    assert len(set(names)) == len(names)
    assert set(DEFAULT_METRICS) <= set(names)


@pytest.mark.parametrize("one", RUNNABLE, ids=lambda one: one.name)
def test_it_is_found_by_its_name(one: Metric) -> None:
    assert metric(one.name) is one


@pytest.mark.parametrize("one", (*METRICS, *CORPUS_METRICS), ids=lambda one: one.name)
def test_it_says_in_one_sentence_what_it_is(one: Metric | CorpusMetric) -> None:
    assert one.title and one.definition.endswith(".")
    assert ". " not in one.definition


@pytest.mark.parametrize("one", (*METRICS, *CORPUS_METRICS), ids=lambda one: one.name)
def test_it_is_documented_as_it_is(one: Metric | CorpusMetric) -> None:
    (row,) = [line for line in DOCUMENTED.splitlines() if line.startswith(f"| `{one.name}` |")]
    cells = re.split(r"(?<!\\)\|", row)[1:-1]
    _, unit, direction, definition, source = (re.sub(r"\\([|<])", r"\1", cell.strip()) for cell in cells)
    assert (unit, definition, source) == (one.unit, one.definition, one.source)
    assert direction == (one.direction if isinstance(one, Metric) else "higher")


@given(text=TEXTS, references=st.lists(TEXTS, max_size=3).map(tuple), source=TEXTS)
def test_scores_are_within_bounds(
    example: Callable[..., Example],
    answer: Callable[..., Sample],
    text: str,
    references: tuple[str, ...],
    source: str,
) -> None:
    asked, answers = example(*references, source=source), [answer(text), answer(text[1:])]
    for one in RUNNABLE:
        if one.unit not in ("share", "score"):
            continue
        for score in (one.of(asked, answers), one.of(asked, answers[:1])):
            assert score is None or 0 <= score <= 1, one.name
        if one.unit == "share":
            assert one.score(asked, answers[0]) in (None, 0, 1), one.name


@pytest.mark.parametrize("name", NEED_REFERENCES)
def test_without_references_it_does_not_apply(
    name: str, example: Callable[..., Example], answer: Callable[..., Sample]
) -> None:
    assert metric(name).score(example(source="He go ."), answer("He goes .")) is None


@pytest.mark.parametrize("name", BEST_FOR_A_REFERENCE)
def test_a_reference_has_the_best_score(
    name: str, example: Callable[..., Example], answer: Callable[..., Sample]
) -> None:
    asked = example("He goes home every day .", source="He go home every days .")
    assert metric(name).score(asked, answer(" He goes  home every day .\n")) == pytest.approx(1)
    assert metric(name).score(asked, answer("He run home every days .")) < 1  # type: ignore[operator]


@pytest.mark.parametrize("one", RUNNABLE, ids=lambda one: one.name)
def test_the_order_of_references_does_not_matter(
    one: Metric, example: Callable[..., Example], answer: Callable[..., Sample]
) -> None:
    texts = ("He goes home .", "He went home , I think .", "Home he goes .")
    said = answer("He went home , he thinks .")
    scores = [one.score(example(*order, source="He go home ."), said) for order in (texts, texts[::-1])]
    assert scores[0] == pytest.approx(scores[1])


def test_what_is_not_installed_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert available_metrics() == RUNNABLE
    with pytest.raises(UserError, match=r"pip install 'whetstone\[errant\]'.*en_core_web_sm"):
        metric("errant_f05")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert available_metrics() == METRICS
    assert metric("errant_f05").direction == "higher"


def test_heavy_libraries_are_not_imported_for_it() -> None:
    code = (
        "import sys, whetstone.evaluate.metrics.catalogue\n"
        "print(sorted({'torch', 'transformers', 'sacrebleu', 'spacy', 'errant', 'jsonschema'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
