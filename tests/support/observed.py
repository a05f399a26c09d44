"""What a server is observed by, made up for tests."""

from dataclasses import dataclass
from typing import Any

from whetstone.serve.answered import Answered

__all__ = ["Admission", "answered_with"]


@dataclass
class Admission:
    """Says what it is told."""

    waiting: int = 0
    running: int = 0
    draining: bool = False


def answered_with(**changes: Any) -> Answered:
    """An answer of five tokens in a quarter of a second each, after a second of waiting; some of it can be changed."""
    usual: dict[str, Any] = {
        "request_id": "req-1",
        "endpoint": "chat",
        "principal": "anna",
        "model": "demo",
        "outcome": "ok",
        "arrived_s": 100.0,
        "admitted_s": 101.0,
        "token_s": (101.5, 101.75, 102.0, 102.25, 102.5),
        "ended_s": 102.5,
        "answer_id": "chatcmpl-1",
        "backend": "scripted",
        "prompt_tokens": 7,
        "new_tokens": 5,
        "reused_tokens": 3,
        "finish_reason": "stop",
        "asked": "Correct: she go home .",
        "text": "She goes home .",
        "status": 200,
    }
    return Answered(**{**usual, **changes})
