"""How requests were measured: kept beside their rows, because rows alone do not tell whether the client kept up."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from whetstone.bench.request_row import Arrival
from whetstone.errors import UserError
from whetstone.run import Hardware

__all__ = ["ClientLag", "Measured", "Measurement", "measurement_path", "read_measurement"]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClientLag(_Told):
    """Of the program that sent the requests.

    Attributes:
        p99_s: Its event loop was later than this once in a hundred looks.
        worst_s: The latest it was.
        busy_share: Its processor time / time.
    """

    p99_s: float
    worst_s: float
    busy_share: float


class Measured(_Told):
    """One level of load, as it was sent; ``requests`` and ``duration_s`` are what was asked for."""

    arrival: Arrival
    warmup: int
    requests: int | None
    duration_s: float | None
    began_s: float
    client: ClientLag


class Measurement(_Told):
    """The whole of a benchmark.

    Attributes:
        url: Of the server.
        model: As it was asked for.
        began_at: When, with the zone.
        prompts: What was asked, in words.
        max_tokens: Of answers whose prompts do not say.
        streamed: Whether answers were asked for in pieces.
        seed: Of made-up prompts and of the moments of a Poisson process.
        levels: In their order; those that were not begun are not in it.
        notes: What whoever reads the numbers has to know.
        hardware: Of the client.
        whetstone_version: That measured.
    """

    schema_version: Literal[1] = 1
    url: str
    model: str
    began_at: str
    prompts: str
    max_tokens: int
    streamed: bool
    seed: int
    levels: tuple[Measured, ...]
    notes: tuple[str, ...]
    hardware: Hardware
    whetstone_version: str


def measurement_path(requests: Path) -> Path:
    """Where that of a file of requests is."""
    return requests.with_name(f"{requests.name}.meta.json")


def read_measurement(requests: Path) -> Measurement | None:
    """How the requests of a file were measured; None where nobody wrote it down.

    Raises:
        UserError: It was written down in another way.
    """
    path = measurement_path(requests)
    if not path.exists():
        return None
    try:
        return Measurement.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where}: {first['msg']}; delete the file to report the rows alone") from None
