"""What the server writes to standard error: lines for people, or JSON for programs; one for each request.

Notable: a line is made where something happens and written by a thread of its own, so that whoever reads standard error
slowly, or not at all, never holds up an answer. When too many wait to be written, further ones are lost, and counted.
"""

import contextlib
import datetime
import json
import logging
import os
import queue
import select
import threading
from collections.abc import Iterator
from logging.handlers import QueueHandler
from typing import Any, Literal

import orjson

from whetstone.serve.answered import Answered
from whetstone.serve.observe.redaction import redact, redacted_traceback

__all__ = ["AccessLog", "LogLevel", "LogStyle", "logging_to"]

LogStyle = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_WAITING_LINES = 10_000
_LINES_AT_ONCE = 1_000
_CLOSE_S = 2.0
"""How long the end of the server waits for the last lines to be taken."""

_FIELDS = "fields"
"""The attribute of a record that holds what is told beside its message."""

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
"""What could forge a line, or move the cursor of whoever reads it."""

_access = logging.getLogger("whetstone.serve.access")


class AccessLog:
    """Logs one line for each request: who, what, by whom, how it ended and how long it took; never what was said."""

    def answered(self, answered: Answered) -> None:
        """Logs it."""
        first = answered.token_s[0] if answered.token_s else None
        fields = {
            "request_id": answered.request_id,
            "principal": answered.principal,
            "endpoint": answered.endpoint,
            "model": answered.model,
            "backend": answered.backend,
            "outcome": answered.outcome,
            "status": answered.status,
            "choice": answered.choice,
            "streamed": answered.streamed,
            "cached": answered.cached,
            "queue_s": _since(answered, answered.admitted_s),
            "first_token_s": _since(answered, first),
            "duration_s": _since(answered, answered.ended_s),
            "prompt_tokens": answered.prompt_tokens,
            "new_tokens": answered.new_tokens,
            "reused_tokens": answered.reused_tokens,
            "finish_reason": answered.finish_reason,
            "invalid": answered.invalid,
        }
        _access.info("request", extra={_FIELDS: fields})


def _since(answered: Answered, moment_s: float | None) -> float | None:
    return None if moment_s is None else round(moment_s - answered.arrived_s, 6)


class _Lines(logging.Formatter):
    """Makes a line of a record; secrets and long quoted texts are masked wherever they stand."""

    def __init__(self, style: LogStyle) -> None:
        super().__init__()
        self._json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        message = redact(record.getMessage())
        fields = {
            name: redact(value) if isinstance(value, str) else value
            for name, value in getattr(record, _FIELDS, {}).items()
        }
        error = record.exc_info[1] if record.exc_info else None
        failure = None if error is None else redacted_traceback(error)
        if self._json:
            head = {
                "time": at.isoformat(timespec="milliseconds"),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": message,
            }
            return _dumped({**head, **fields, **({} if failure is None else {"exception": failure})})
        stated = [f"{name}={_stated(value)}" for name, value in fields.items() if value not in (None, "")]
        head_of_line = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z {record.levelname:<7} {record.name}:"
        said = " ".join((message, *stated)).translate(_CONTROL)
        below = "" if failure is None else "".join(f"\n    {row.translate(_CONTROL)}" for row in failure.splitlines())
        return f"{head_of_line} {said}{below}"


def _stated(value: Any) -> str:
    """A value as it stands behind its name: quoted where one could not see where it ends."""
    text = str(value)
    return json.dumps(text) if any(character in text for character in ' ="') else text


def _dumped(line: dict[str, Any]) -> str:
    try:
        return orjson.dumps(line, default=str).decode()
    except orjson.JSONEncodeError:
        # Half of a surrogate pair is no text, and only ASCII can say it.
        return json.dumps(line, default=str)


class _Handler(QueueHandler):
    """Hands finished lines to the thread that writes them."""

    def __init__(self, lines: "queue.Queue[str | None]", style: LogStyle) -> None:
        super().__init__(lines)
        self.setFormatter(_Lines(style))
        self.lost = 0

    def prepare(self, record: logging.LogRecord) -> str:
        """The line itself, because what a record holds may change before it is written."""
        return self.format(record)

    def enqueue(self, record: Any) -> None:
        """Never waits."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.lost += 1

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's own name)
        """Says where, and not what: logging's own way writes the arguments to standard error, and waits for it."""
        where = f"{record.filename}:{record.lineno}"
        self.enqueue(self.format(_record(logging.ERROR, f"a log record of {where} could not be formatted")))


def _record(level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, level, __file__, 0, message, None, None)


def _write(lines: "queue.Queue[str | None]", handler: _Handler, descriptor: int) -> None:
    """Writes lines until None comes, as many at a time as there are."""
    told, going = 0, True
    while going:
        batch = [lines.get()]
        with contextlib.suppress(queue.Empty):
            while len(batch) < _LINES_AT_ONCE:
                batch.append(lines.get_nowait())
        going = None not in batch
        texts = [line for line in batch if line is not None]
        lost = handler.lost
        if lost > told:
            message = f"{lost - told} log lines were lost, because standard error was read too slowly"
            texts.append(handler.format(_record(logging.WARNING, message)))
            told = lost
        # Where nobody reads any more, the server goes on without a log.
        with contextlib.suppress(OSError):
            _write_all(descriptor, "".join(f"{text}\n" for text in texts).encode(errors="backslashreplace"))


def _write_all(descriptor: int, data: bytes) -> None:
    """Not through sys.stderr, whose lock a thread that waits here would hold when the process ends."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


@contextlib.contextmanager
def logging_to(descriptor: int = 2, *, style: LogStyle = "text", level: LogLevel = "info") -> Iterator[None]:
    """Sends all loggers of the process, uvicorn's too, to one place until the block ends.

    uvicorn must be told ``log_config=None, access_log=False``, because :class:`AccessLog` logs the requests.

    Args:
        descriptor: Of the file that lines go to: standard error.
        style: ``text`` for people, ``json`` for programs.
        level: What is logged of the server; of libraries, warnings.
    """
    lines: queue.Queue[str | None] = queue.Queue(_WAITING_LINES)
    handler = _Handler(lines, style)
    writer = threading.Thread(target=_write, args=(lines, handler, descriptor), name="whetstone-logs", daemon=True)
    root, ours = logging.getLogger(), [logging.getLogger("whetstone"), logging.getLogger("uvicorn")]
    before = root.handlers[:], [logger.level for logger in (root, *ours)]
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for logger in ours:
        logger.setLevel(level.upper())
    logging.captureWarnings(True)
    writer.start()
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = before[0]
        for logger, old in zip((root, *ours), before[1], strict=True):
            logger.setLevel(old)
        with contextlib.suppress(queue.Full):
            lines.put(None, timeout=_CLOSE_S)
        writer.join(_CLOSE_S)
