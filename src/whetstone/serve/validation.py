"""Whether an answer is what it must be, and how it is asked for again where it is not."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import regex  # type: ignore[import-untyped]
from jsonschema import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from whetstone.data.example import normalised
from whetstone.serve.question import Question
from whetstone.serve_section import Validate

__all__ = ["check", "retried"]

_PATTERN_S = 0.1
"""How long one match may take; a pattern that goes back and forth could take for ever on some answers."""
_GOLDEN = 0x9E3779B9


class _TooSlow(Exception):  # noqa: N818 - it says what happened
    """A pattern took too long."""


def check(validation: Validate, asked: str, text: str) -> str | None:
    """What is wrong with an answer.

    Patterns inside the JSON schema have the same time limit, but for those that name properties.

    Args:
        validation: What it must be.
        asked: The last user turn.
        text: The answer.

    Returns:
        The first fault, in words for whoever asked, without the answer's own words; None where there is none.
    """
    if validation.max_characters is not None and len(text) > validation.max_characters:
        return f"it has {len(text)} characters, more than {validation.max_characters}"
    if validation.not_prompt and normalised(asked) == normalised(text):
        return "it repeats what was asked"
    if validation.regex is not None and (fault := _pattern_fault(validation.regex, text)) is not None:
        return fault
    return None if validation.json_schema is None else _schema_fault(validation.json_schema, text)


def retried(question: Question, attempt: int, validation: Validate) -> Question:
    """The question as it is asked again: with another seed, and a greedy one at ``retry_temperature``.

    Args:
        question: As it was asked first.
        attempt: 1 for the first time that it is asked again.
        validation: Says the temperature.
    """
    # Steps of the golden ratio, so that the seeds of choices, which lie side by side, are not met again.
    seed = (question.seed + attempt * _GOLDEN) % 2**32
    sampling = question.sampling
    if sampling.temperature == 0:
        sampling = replace(sampling, temperature=validation.retry_temperature)
    return replace(question, seed=seed, sampling=sampling)


def _pattern_fault(pattern: str, text: str) -> str | None:
    try:
        matched = regex.compile(pattern).fullmatch(text, timeout=_PATTERN_S)
    except TimeoutError:
        return "it could not be checked: matching the pattern took too long"
    return None if matched else "it does not match the pattern"


def _schema_fault(schema: str, text: str) -> str | None:
    try:
        value = _strict_json(text)
    except json.JSONDecodeError as error:
        return f"it is not JSON ({error.msg}, character {error.pos + 1})"
    except (ValueError, RecursionError) as error:
        return f"it is not strict JSON ({'nested too deep' if isinstance(error, RecursionError) else error})"
    try:
        fault = next(_validator(schema).iter_errors(value), None)
    except _TooSlow:
        return "it could not be checked: matching a pattern of the JSON schema took too long"
    except (Unresolvable, RecursionError, regex.error):
        return (
            "it could not be checked: the JSON schema refers to what is not there, or to itself, or has a bad pattern"
        )
    return None if fault is None else f"it is not JSON of the schema (at {_place(fault)}: {fault.validator})"


def _place(fault: ValidationError) -> str:
    """Where in the schema, which is known to whoever serves, and not where in the answer, whose keys are its words."""
    return "/".join(map(str, fault.absolute_schema_path)) or "the top"


def _strict_json(text: str) -> Any:
    """The value, if every program reads the same from the text (RFC 8259; I-JSON, RFC 7493, section 2).

    Raises:
        ValueError: It is not JSON, has a key twice, not-a-number or half a surrogate pair.
    """
    value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair") from None
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("an object has a key twice")
    return value


@lru_cache(maxsize=64)
def _validator(schema: str) -> Validator:
    """By the schema alone: a reference to another document is not fetched."""
    value = json.loads(schema)
    bounded = extend(validator_for(value), {"pattern": _matches})  # type: ignore[no-untyped-call]
    validator: Validator = bounded(value, registry=Registry())
    return validator


def _matches(validator: Validator, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "string"):
        return
    try:
        found = regex.search(pattern, instance, timeout=_PATTERN_S)
    except TimeoutError:
        raise _TooSlow from None
    if not found:
        yield ValidationError("does not match the pattern")
