"""One measured request to a server: the row that a benchmark writes and a service report is computed from."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from whetstone.errors import UserError
from whetstone.files import read_jsonl

__all__ = ["OK", "Arrival", "RequestRow", "read_requests"]

OK = "ok"
"""The status of a request that was answered whole."""

_Seconds = Annotated[float, Field(ge=0)]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@checked_dataclass(frozen=True, slots=True, config=_STRICT)
class Arrival:
    """What decides when the next request is sent.

    Attributes:
        process: ``closed``: so many clients, each of which sends its next request when it has its answer. ``poisson``:
            requests fall due at random, whether or not the server keeps up.
        level: Clients of a closed loop; requests a second of a Poisson process.
    """

    process: Literal["closed", "poisson"]
    level: Annotated[float, Field(gt=0)]


@checked_dataclass(frozen=True, slots=True, config=_STRICT)
class RequestRow:
    """One line of ``requests.jsonl``; times are seconds since the benchmark began, of one monotonic clock.

    Attributes:
        id: Of the request, unique in its file.
        model: As it was asked for.
        started_s: When it was sent.
        end_s: When its last byte came, or when it failed.
        prompt_tokens: As the server counted them; 0 where it did not say.
        new_tokens: Tokens of the answer, as the server counted them; pieces of text where it did not.
        status: ``ok``, or what kind of error it ended with: ``timeout``, ``connection``, ``http 503``, ``truncated``
            (the answer broke off), ``error in stream``, ``malformed``.
        streamed: Whether the answer came in pieces; without, there is no first token to wait for.
        warmup: It was sent to warm the server up and is not counted.
        arrival: How requests arrived while it was sent.
        queued_s: When it fell due, where it was sent later than that. What a user waits begins here.
        first_token_s: When the first token came; None where none came, or the answer came in one piece.
        token_times_s: When each piece with text came, where that was recorded; most servers send one a token.
    """

    id: str
    model: str
    started_s: _Seconds
    end_s: _Seconds
    prompt_tokens: Annotated[int, Field(ge=0)]
    new_tokens: Annotated[int, Field(ge=0)]
    status: Annotated[str, Field(min_length=1)]
    streamed: bool
    warmup: bool
    arrival: Arrival
    queued_s: _Seconds | None = None
    first_token_s: _Seconds | None = None
    token_times_s: tuple[_Seconds, ...] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "RequestRow":
        times = [
            ("queued_s", self.queued_s),
            ("started_s", self.started_s),
            ("first_token_s", self.first_token_s),
            *(("token_times_s", moment) for moment in self.token_times_s or ()),
            ("end_s", self.end_s),
        ]
        known = [(name, moment) for name, moment in times if moment is not None]
        for (earlier, first), (later, then) in itertools.pairwise(known):
            if then < first:
                raise ValueError(f"{later} ({then:g}) lies before {earlier} ({first:g})")
        return self

    @property
    def due_s(self) -> float:
        """When the request fell due: latencies count from here, so that a late sender hides no waiting.

        Source: the coordinated omission that Gil Tene described; HdrHistogram's documentation.
        """
        return self.started_s if self.queued_s is None else self.queued_s

    @property
    def succeeded(self) -> bool:
        """Whether the answer came whole."""
        return self.status == OK

    def as_row(self) -> dict[str, Any]:
        """The JSON row."""
        row = asdict(self)
        return {**row, "token_times_s": None if self.token_times_s is None else list(self.token_times_s)}


def read_requests(path: Path) -> tuple[RequestRow, ...]:
    """Reads measured requests, in the order of the file.

    Raises:
        UserError: There is no such file, a line is no such row, two rows have one id, or none is left to measure.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the requests.jsonl that was measured")
    rows = tuple(_checked(path))
    if all(row.warmup for row in rows):
        raise UserError(f"{path}: no request that counts ({len(rows)} of warming up); measure some")
    return rows


def _checked(path: Path) -> Iterator[RequestRow]:
    adapter, seen = TypeAdapter(RequestRow), set[str]()
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            checked = adapter.validate_json(json.dumps(row))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            said = first["msg"].removeprefix("Value error, ")
            raise UserError(f"{path}:{number}: {f'{where}: ' if where else ''}{said}; mend or delete the row") from None
        if checked.id in seen:
            raise UserError(f"{path}:{number}: id: '{checked.id}' is there twice; give each request its own")
        seen.add(checked.id)
        yield checked
