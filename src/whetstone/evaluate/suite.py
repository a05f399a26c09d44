"""A suite: cases to ask, what to score them with, and how to sample; one YAML file.

The experiment's own test part is a suite, too, called ``held-out``; whatever is said of suites is said of it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from whetstone.data.example import Example, Message
from whetstone.data.requirements import Requirements
from whetstone.data.sources import read_parts
from whetstone.data.split import Splits
from whetstone.data_section import Data, RowFormat
from whetstone.errors import UserError
from whetstone.evaluate.few_shot import choose_shots
from whetstone.evaluate.metrics.catalogue import DEFAULT_METRICS
from whetstone.judge_section import HELD_OUT, Generation, Judge, MetricName
from whetstone.section import Count, KeyedError, Section, stable_hash
from whetstone.suites import suite_names, suite_path
from whetstone.yaml_source import YamlSource

__all__ = ["Suite", "held_out", "held_out_metrics", "load_suite"]


class _Requirements(Section):
    pattern: str | None = None
    forbidden: str | None = None
    json_schema: dict[str, Any] | None = None
    min_words: Count | None = None
    max_words: Count | None = None
    list_items: Annotated[int, Field(ge=0)] | None = None
    max_chars: Count | None = None

    @model_validator(mode="after")
    def _mean_something(self) -> "_Requirements":
        problem = Requirements(**self.model_dump()).problem()
        if problem is not None:
            raise ValueError(problem)
        return self


class _Case(Section):
    id: Annotated[str, Field(min_length=1)] | None = None
    category: Annotated[str, Field(min_length=1)] = "all"
    prompt: Annotated[str, Field(min_length=1)] | None = None
    source: Annotated[str, Field(min_length=1)] | None = None
    text: Annotated[str, Field(min_length=1)] | None = None
    references: tuple[str, ...] = ()
    group: str | None = None
    requirements: _Requirements | None = None
    tests: str | None = None

    @model_validator(mode="after")
    def _asks_or_is_text(self) -> "_Case":
        if self.text is not None and (self.prompt or self.source or self.references or self.tests):
            raise KeyedError("text", "a text is only predicted; leave out prompt, source, references and tests")
        if self.text is None and self.prompt is None and self.source is None:
            raise ValueError("asks nothing; give a prompt, a source or a text")
        return self


class _Rows(Section):
    """Cases that stand in a file of their own, in any format that data may have."""

    file: str
    format: Literal["auto", RowFormat] = "auto"
    part: str = "all"


class _SuiteFile(Section):
    about: Annotated[str, Field(min_length=1)]
    metrics: Annotated[tuple[MetricName, ...], Field(min_length=1)]
    max_new_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    repeats: Count = 1
    system: str | None = None
    prompt: str | None = None
    shots: tuple[_Case, ...] = ()
    cases: tuple[_Case, ...] = ()
    rows: _Rows | None = None

    @model_validator(mode="after")
    def _has_cases(self) -> "_SuiteFile":
        if bool(self.cases) == (self.rows is not None):
            raise KeyedError("cases", "give cases, or rows with the file that holds them")
        if len({case.text is None for case in self.cases}) > 1:
            raise KeyedError("cases", "some are texts and some are questions; make two suites of them")
        if self.prompt is not None and "{source}" not in self.prompt:
            raise KeyedError("prompt", "has no {source}, so every case would ask the same; add it")
        return self


@dataclass(frozen=True, slots=True)
class Suite:
    """What is asked, and how it is scored.

    Attributes:
        name: Of its file, without the ending.
        about: What it measures.
        origin: The suite of the package by name, or the path of the file.
        examples: The cases; those that are plain text are predicted, not asked.
        metrics: The names of the metrics.
        generation: How every arm answers.
        shots: Solved cases for the few-shot arm; none leaves it out.
    """

    name: str
    about: str
    origin: str
    examples: tuple[Example, ...]
    metrics: tuple[str, ...]
    generation: Generation
    shots: tuple[Example, ...]

    @property
    def is_text(self) -> bool:
        """Whether its examples are predicted, and nothing is generated."""
        return not self.examples[0].messages

    def as_jsonl(self) -> bytes:
        """The file of its examples."""
        rows = (json.dumps(example.as_row(), ensure_ascii=False) + "\n" for example in self.examples)
        return "".join(rows).encode()


def _in_rounds(examples: Sequence[Example], judge: Judge) -> tuple[Example, ...]:
    """Whole groups in an order that chance gave, where the answers may stop early; else as they stand.

    What is said of the first so many groups holds for all only if these could have been any.
    """
    if not judge.stop_early:
        return tuple(examples)
    return tuple(sorted(examples, key=lambda example: stable_hash([judge.generation.seed, example.group])))


def held_out(splits: Splits, judge: Judge) -> Suite:
    """The experiment's own test part.

    Raises:
        UserError: It is plain text, which asks nothing.
    """
    examples = _in_rounds(splits.test[: judge.max_examples], judge)
    if any(not example.messages for example in examples):
        raise UserError(
            "data.source: the test part is plain text, which asks nothing that could be answered; give test rows with "
            "prompts: source: {train: ..., test: ...}"
        )
    return Suite(
        name=HELD_OUT,
        about="The experiment's own examples that training did not see.",
        origin=HELD_OUT,
        examples=examples,
        metrics=held_out_metrics(judge),
        generation=judge.generation,
        shots=choose_shots(splits.train, judge.few_shot),
    )


def held_out_metrics(judge: Judge) -> tuple[str, ...]:
    """What the held-out examples are scored with: the usual metrics, those of the gates, and those asked for."""
    return tuple(dict.fromkeys((*DEFAULT_METRICS, *judge.gated(HELD_OUT), *judge.metrics)))


def load_suite(origin: str, judge: Judge) -> Suite:
    """Reads a suite of the package, or a file.

    Args:
        origin: As in ``judge.suites``.
        judge: Says how arms answer where the suite does not, and which metrics gates need.

    Raises:
        UserError: The file cannot be read, or says something that cannot be meant.
    """
    path = suite_path(origin) if origin in suite_names() else Path(origin)
    source = YamlSource.read(path)
    try:
        file = _SuiteFile.model_validate_json(json.dumps(source.mapping()))
    except ValidationError as error:
        raise source.explain(error, _SuiteFile) from None
    name = path.name.removesuffix(".yaml")
    cases = _from_rows(file, path) if file.rows is not None else _examples(file, file.cases, name)
    _refuse_repeats([case.id for case in cases], source)
    changes: dict[str, Any] = {"repeats": file.repeats}
    if file.max_new_tokens is not None:
        changes["max_new_tokens"] = file.max_new_tokens
    if file.temperature is not None:
        changes["temperature"] = file.temperature
    generation = judge.generation.model_copy(update=changes)
    if generation.repeats > 1 and generation.temperature == 0:
        raise source.problem(["repeats"], f"{generation.repeats} greedy answers are all the same; set temperature")
    return Suite(
        name=name,
        about=file.about,
        origin=origin,
        examples=_in_rounds(cases, judge),
        metrics=tuple(dict.fromkeys((*file.metrics, *judge.gated(name)))),
        generation=generation,
        shots=_examples(file, file.shots, f"{name}-shot"),
    )


def _examples(file: _SuiteFile, cases: Sequence[_Case], stem: str) -> tuple[Example, ...]:
    return tuple(_example(file, case, f"{stem}-{number:03d}") for number, case in enumerate(cases, 1))


def _example(file: _SuiteFile, case: _Case, usual_id: str) -> Example:
    name = case.id or usual_id
    if case.text is not None:
        return Example(name, (), (case.text,), case.text, case.group or name, case.category)
    asked = case.prompt or (file.prompt or "{source}").replace("{source}", case.source or "")
    turns = [Message("system", file.system)] if file.system is not None else []
    return Example(
        id=name,
        messages=(*turns, Message("user", asked)),
        references=case.references,
        source=case.source or asked,
        group=case.group or name,
        category=case.category,
        tests=case.tests,
        requirements=None if case.requirements is None else Requirements(**case.requirements.model_dump()),
    )


def _from_rows(file: _SuiteFile, path: Path) -> tuple[Example, ...]:
    rows = file.rows
    assert rows is not None
    where = str((path.parent / rows.file).resolve())
    data = Data(source=where, format=rows.format, system=file.system, prompt=file.prompt or "{source}")
    parts = read_parts(data, where)
    if rows.part not in parts:
        raise UserError(f"{path}: rows.part: '{rows.part}' is not there; there: {', '.join(parts)}")
    return parts[rows.part].examples


def _refuse_repeats(names: Sequence[str], source: YamlSource) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            raise source.problem(["cases", index, "id"], f"'{name}' is given twice; ids must differ")
        seen.add(name)
