"""The decision report follows its published schema, whatever was measured; the schema refuses what it does not name."""

import importlib.resources
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from whetstone.report.machine import as_json
from whetstone.report.summary import summarise
from whetstone.run import Run


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    file = importlib.resources.files("whetstone.report") / "schemas" / "decision.schema.json"
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(loaded)
    return loaded


@pytest.mark.parametrize("missing", [None, "tuned", "base", "few-shot"])
def test_reports_follow_it(
    make_run: Callable[..., Run], tmp_path: Path, schema: dict[str, Any], missing: str | None
) -> None:
    run = make_run(tmp_path / "run", n=60, group_size=2)
    if missing is not None:
        (run.samples / f"{missing}.jsonl").unlink()
    report = json.loads(json.dumps(as_json(summarise(run)), allow_nan=False))
    jsonschema.validate(report, schema)
    assert schema["properties"].keys() == report.keys()


def test_what_is_not_named_is_refused(make_run: Callable[..., Run], tmp_path: Path, schema: dict[str, Any]) -> None:
    report = as_json(summarise(make_run(tmp_path / "run", n=10)))
    for change in ({"more": 1}, {"schema_version": 1}, {"gates": [{"name": "no state"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**report, **change}, schema)
