"""The published schemas are those of the models, and the reports follow them."""

import importlib.resources
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from whetstone.report.kinds.campaign.read import read_runs
from whetstone.report.kinds.campaign.summarise import summarise_campaign
from whetstone.report.kinds.part import Part
from whetstone.report.kinds.schemas import SCHEMAS, schema_of
from whetstone.report.kinds.service.summarise import summarise_service
from whetstone.report.kinds.training.evidence import load
from whetstone.report.kinds.training.summarise import summarise_training
from whetstone.run import Run


def published(kind: str) -> dict[str, Any]:
    file = importlib.resources.files("whetstone.report") / "schemas" / f"{kind}.schema.json"
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_published_schema_is_that_of_the_model(kind: str) -> None:
    assert published(kind) == schema_of(kind), "call scripts/make_report_schemas.py"


@pytest.fixture(scope="module")
def reports(
    make_training: Callable[[Path], Run],
    make_run: Callable[..., Run],
    requests: list[dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("schemas")
    run = make_training(folder / "run")
    whole = summarise_training(load(run))
    for path in (run.metrics_path, run.watch_path, run.check_path):
        path.unlink()
    bare = summarise_training(load(run))
    rows = folder / "requests.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in requests))
    service = summarise_service(rows, "requests", None)
    campaign = summarise_campaign(read_runs([make_run(folder / name, n=20) for name in ("a", "b")]))
    found: dict[str, list[Part]] = {"training": [whole, bare], "service": [service], "campaign": [campaign]}
    return {kind: [json.loads(one.model_dump_json()) for one in made] for kind, made in found.items()}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_reports_follow_their_schema_and_name_its_version(kind: str, reports: dict[str, list[dict[str, Any]]]) -> None:
    for report in reports[kind]:
        jsonschema.validate(report, published(kind))
        assert (report["kind"], report["schema_version"]) == (kind, 1)


@pytest.mark.parametrize("kind", SCHEMAS)
@pytest.mark.parametrize("change", ["missing", "unknown", "version"])
def test_other_documents_do_not(kind: str, change: str, reports: dict[str, list[dict[str, Any]]]) -> None:
    report = dict(reports[kind][0])
    if change == "missing":
        del report["schema_version"]
    elif change == "unknown":
        report["more"] = 1
    else:
        report["schema_version"] = 2
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report, published(kind))
