"""Does the answer fulfil what the example asks of its form?"""

from whetstone.data.example import Example
from whetstone.data.requirements import Requirements
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["JSON_VALID", "MEETS_REQUIREMENTS", "PATTERN"]


def _json_valid(example: Example, sample: Sample) -> float | None:
    asked = example.requirements
    if asked is None or asked.json_schema is None:
        return None
    return _met(Requirements(json_schema=asked.json_schema), sample)


def _meets_requirements(example: Example, sample: Sample) -> float | None:
    return None if example.requirements is None else _met(example.requirements, sample)


def _pattern(example: Example, sample: Sample) -> float | None:
    asked = example.requirements
    if asked is None or asked.pattern is None:
        return None
    return _met(Requirements(pattern=asked.pattern), sample)


def _met(requirements: Requirements, sample: Sample) -> float:
    return float(not requirements.unmet(sample.text))


JSON_VALID = Metric(
    name="json_valid",
    title="Valid JSON",
    unit="share",
    direction="higher",
    definition="Of the examples that ask for JSON, the answer is JSON, nothing else, and valid by their schema.",
    score=_json_valid,
    source="JSON Schema, Draft 2020-12.",
)
MEETS_REQUIREMENTS = Metric(
    name="meets_requirements",
    title="Meets requirements",
    unit="share",
    direction="higher",
    definition="Of the examples with requirements, the answer meets all of them.",
    score=_meets_requirements,
    source="As the prompt-level strict accuracy of IFEval (Zhou et al. 2023), with Whetstone's own requirements.",
)
PATTERN = Metric(
    name="pattern",
    title="Pattern",
    unit="share",
    direction="higher",
    definition="Of the examples that ask for a pattern (a regular expression), it is found in the answer.",
    score=_pattern,
)
