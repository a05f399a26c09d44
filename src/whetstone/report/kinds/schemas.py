"""The published JSON schemas: what programs that read ``report.json`` may rely on."""

from typing import Any

from whetstone.report.kinds.campaign.schema import CampaignReport
from whetstone.report.kinds.part import Part
from whetstone.report.kinds.service.schema import ServiceReport
from whetstone.report.kinds.training.schema import TrainingReport

__all__ = ["SCHEMAS", "schema_of"]

SCHEMAS: dict[str, type[Part]] = {"training": TrainingReport, "service": ServiceReport, "campaign": CampaignReport}
"""The model of each kind; ``scripts/make_report_schemas.py`` writes their schemas to ``report/schemas/``."""


def schema_of(kind: str) -> dict[str, Any]:
    """The schema of a kind, as its model gives it."""
    schema = SCHEMAS[kind].model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
