"""Reads what a training left: its rows, its sample answers, the check before it, and the run's record."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from whetstone.errors import UserError
from whetstone.files import read_json, read_jsonl
from whetstone.report.kinds.part import Part
from whetstone.report.kinds.training.schema import Check, CheckedPart, Problem, Row
from whetstone.run import Manifest, Run

__all__ = ["Evidence", "Watched", "load"]

_Model = TypeVar("_Model", bound=Part)


class Watched(Part):
    """A row of ``watch.jsonl``: see :class:`whetstone.train.sample_answers.SampleAnswer`."""

    step: int
    example: str
    prompt: str
    answer: str
    reference: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a training.

    Attributes:
        manifest: The run's record.
        rows: Logged steps; none where there is no ``metrics.jsonl``.
        watched: Sample answers; None where there is no ``watch.jsonl``.
        check: None where there is no ``check.json``.
        memory_device: The device that the check estimated memory for, and the bytes that training could have there.
    """

    manifest: Manifest
    rows: tuple[Row, ...]
    watched: tuple[Watched, ...] | None
    check: Check | None
    memory_device: tuple[str, int] | None = None


def load(run: Run) -> Evidence:
    """Reads the files of a run; any of them but ``run.json`` may be missing.

    Raises:
        UserError: A file is damaged; the message names it and the line.
    """
    checked = read_json(run.check_path) if run.check_path.exists() else None
    try:
        check, memory = (None, None) if checked is None else (_check(checked), _memory(checked))
    except (KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{run.check_path}: not what a check writes ({error!r}); delete it, or tune again") from None
    return Evidence(
        manifest=run.manifest(),
        rows=tuple(_rows(run.metrics_path)),
        watched=tuple(_watched(run.watch_path)) if run.watch_path.exists() else None,
        check=check,
        memory_device=memory,
    )


def _rows(path: Path) -> Iterator[Row]:
    if not path.exists():
        return
    for number, row in enumerate(read_jsonl(path), 1):
        known = {name: _finite(row.get(name)) for name in Row.model_fields}
        yield _validated(Row, known, f"{path}:{number}")


def _watched(path: Path) -> Iterator[Watched]:
    for number, row in enumerate(read_jsonl(path), 1):
        yield _validated(Watched, row, f"{path}:{number}")


def _validated(model: type[_Model], row: dict[str, Any], where: str) -> _Model:
    try:
        return model.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: {key}: {first['msg']}; mend or delete the row") from None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check(checked: dict[str, Any]) -> Check:
    return Check(
        parts=tuple(_part(part) for part in checked["parts"]),
        findings=tuple(
            Problem(**{name: finding[name] for name in Problem.model_fields}) for finding in checked["findings"]
        ),
    )


def _part(part: dict[str, Any]) -> CheckedPart:
    spread = part["row_tokens"] or {}
    same = ("part", "examples", "groups", "rows", "too_long", "tokens", "loss_tokens")
    return CheckedPart(
        **{name: part[name] for name in same},
        median_tokens=spread.get("median"),
        longest_tokens=spread.get("maximum"),
    )


def _memory(checked: dict[str, Any]) -> tuple[str, int] | None:
    memory = checked["memory"]
    return None if memory is None else (memory["device"], memory["held_bytes"] + memory["available_bytes"])
