"""Lines say what happened and nothing secret, and nobody waits for them."""

import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observed import answered_with
from whetstone.serve.answered import Answered
from whetstone.serve.observe.logs import AccessLog, LogLevel, LogStyle, logging_to

logger = logging.getLogger("whetstone.serve.test")


@contextmanager
def logged(style: LogStyle = "json", level: LogLevel = "info") -> Iterator[list[str]]:
    """Collects lines; they are there when the block has ended."""
    lines: list[str] = []
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8", newline="\n") as read:
        taken = threading.Thread(target=lambda: lines.extend(line.removesuffix("\n") for line in read))
        taken.start()
        try:
            with logging_to(writing, style=style, level=level):
                yield lines
        finally:
            os.close(writing)
            taken.join()


def _one(lines: list[str]) -> dict[str, Any]:
    (line,) = lines
    told: dict[str, Any] = json.loads(line)
    return told


def test_one_line_for_a_request() -> None:
    with logged() as lines:
        AccessLog().answered(answered_with())
    told = _one(lines)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", told.pop("time"))
    assert told == {
        "level": "info",
        "logger": "whetstone.serve.access",
        "message": "request",
        "request_id": "req-1",
        "principal": "anna",
        "endpoint": "chat",
        "model": "demo",
        "backend": "scripted",
        "outcome": "ok",
        "status": 200,
        "choice": 0,
        "streamed": False,
        "cached": False,
        "queue_s": 1.0,
        "first_token_s": 1.5,
        "duration_s": 2.5,
        "prompt_tokens": 7,
        "new_tokens": 5,
        "reused_tokens": 3,
        "finish_reason": "stop",
        "invalid": 0,
    }


def test_a_line_for_people() -> None:
    with logged("text") as lines:
        AccessLog().answered(answered_with(admitted_s=None, token_s=(), backend="llama.cpp http://here"))
        logger.warning("%d models", 2)
    assert re.match(
        r"20[-0-9]{8}T[:0-9]{8}\.\d{3}Z INFO    whetstone\.serve\.access: request request_id=req-1 ", lines[0]
    )
    assert ' backend="llama.cpp http://here" outcome=ok status=200 ' in lines[0] and "queue_s" not in lines[0]
    assert lines[1].endswith("WARNING whetstone.serve.test: 2 models")


@pytest.mark.parametrize("style", ["json", "text"])
def test_what_was_said_is_never_logged(style: LogStyle) -> None:
    said = {"asked": "the question", "text": "the reply"}
    with logged(style, "debug") as lines:
        AccessLog().answered(answered_with(**said))
    assert "question" not in lines[0] and "reply" not in lines[0]
    # Whoever adds a field to the record decides whether it is logged.
    assert {field.name for field in fields(Answered)} - set(json.loads(lines[0]) if style == "json" else ()) <= {
        *("answer_id", "arrived_s", "admitted_s", "token_s", "ended_s", "asked", "text", "traceparent"),
        *("fingerprint", "messages"),
        *((field.name for field in fields(Answered)) if style == "text" else ()),
    }


@pytest.mark.parametrize("style", ["json", "text"])
def test_secrets_are_masked_in_messages_fields_and_exceptions(style: LogStyle) -> None:
    prompt = "what somebody asked " * 10
    with logged(style) as lines:
        logger.info("headers: %s", {"authorization": "Bearer abcdefghij"})
        AccessLog().answered(answered_with(request_id="sk-abcdefghijkl"))
        logging.getLogger("uvicorn.error").error("failed: %r", prompt)
        try:
            try:
                raise ValueError(f"not JSON: {prompt!r}")
            except ValueError as error:
                raise RuntimeError("key whet-abcdefghijkl was refused") from error
        except RuntimeError:
            logger.exception("failed")
    shown = "\n".join(lines)
    for secret in ("abcdefghij", prompt[:81]):
        assert secret not in shown
    assert shown.count("***") == 6
    assert "ValueError: not JSON: '***'" in shown and "RuntimeError: key whet-*** was refused" in shown


def test_an_exception_is_one_field() -> None:
    with logged() as lines:
        try:
            raise ValueError("one\ntwo")
        except ValueError:
            logger.exception("it broke")
    told = _one(lines)
    assert told["message"] == "it broke" and told["level"] == "error"
    assert told["exception"].startswith("Traceback") and told["exception"].endswith("ValueError: one\ntwo")


@given(st.text())
def test_any_text_is_one_line(text: str) -> None:
    for style in ("json", "text"):
        with logged(style) as lines:
            logger.info("said %s", text)
            AccessLog().answered(answered_with(principal=text))
        assert len(lines) == 2
        assert all(line.isprintable() or style == "json" for line in lines if "\u00ad" not in text) or any(
            not character.isprintable() for character in text
        )
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "".join(lines)) or style == "json"


def test_half_a_surrogate_pair() -> None:
    for style in ("json", "text"):
        with logged(style) as lines:
            logger.info("said \ud800 there")
        assert len(lines) == 1 and "said \\ud800 there" in lines[0]


def test_what_is_logged_of_whom() -> None:
    with logged(level="info") as lines:
        for name in ("whetstone.serve", "uvicorn.error", "httpx"):
            for level in (logging.DEBUG, logging.INFO, logging.WARNING):
                logging.getLogger(name).log(level, "said")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("beware", stacklevel=1)
    told = [json.loads(line) for line in lines]
    assert [(line["logger"], line["level"]) for line in told] == [
        ("whetstone.serve", "info"),
        ("whetstone.serve", "warning"),
        ("uvicorn.error", "info"),
        ("uvicorn.error", "warning"),
        ("httpx", "warning"),
        ("py.warnings", "warning"),
    ]


def test_loggers_are_given_back() -> None:
    root, ours = logging.getLogger(), logging.getLogger("whetstone")
    before = root.handlers[:], root.level, ours.level
    with logged():
        assert root.handlers != before[0]
    assert (root.handlers[:], root.level, ours.level) == before


def test_a_record_that_cannot_be_formatted() -> None:
    with logged() as lines:
        logger.info("%d of %d", "sk-abcdefghijkl")
        logger.info("after")
    first, second = map(json.loads, lines)
    assert "test_logs.py" in first["message"] and "could not be formatted" in first["message"]
    assert second["message"] == "after"
    assert "abcdefghijkl" not in lines[0]


def test_nobody_waits_for_a_slow_reader() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as read:
        with logging_to(writing):
            # More than the pipe and the queue hold, and nobody reads.
            for number in range(15_000):
                logger.info("line %d, which is long enough to fill the pipe soon", number)
            taken: list[bytes] = []
            reader = threading.Thread(target=lambda: taken.extend(read))
            reader.start()
            while not any(b" were lost" in line for line in taken):
                time.sleep(0.005)
        os.close(writing)
        reader.join()
    (told,) = [line for line in taken if b" were lost" in line]
    (lost,) = re.findall(rb"(\d+) log lines were lost", told)
    assert len(taken) - 1 + int(lost) == 15_000
    assert b"line 0," in taken[0]


def test_a_process_whose_lines_nobody_takes_ends() -> None:
    code = (
        "import logging\n"
        "from whetstone.serve.observe.logs import logging_to\n"
        "import whetstone.serve.observe.logs as logs\n"
        "logs._CLOSE_S = 0.1\n"
        "with logging_to():\n"
        "    for number in range(12000):\n"
        "        logging.getLogger('whetstone').info('line %d, which is long enough to fill the pipe', number)\n"
        "print('ended', flush=True)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"ended\n"
        assert process.wait(10) == 0
