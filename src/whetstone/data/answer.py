"""What can be said of an answer's text alone, given the answers that count as right.

Metrics judge with it and rewards teach with it, so that a model is taught what it is judged by.
"""

from collections.abc import Sequence

__all__ = ["has_extra_text", "is_empty", "is_too_short", "matches", "normalise"]


def normalise(text: str) -> str:
    """Runs of white space become one space; nothing else is forgiven."""
    return " ".join(text.split())


def matches(text: str, references: Sequence[str]) -> bool:
    """Whether a text equals one of the references, white space apart."""
    answer = normalise(text)
    return any(answer == normalise(reference) for reference in references)


def has_extra_text(text: str, references: Sequence[str]) -> bool:
    """Whether a reference stands in a text that is not one: there is something around it."""
    answer = normalise(text)
    wanted = [normalise(reference) for reference in references]
    return answer not in wanted and any(reference in answer for reference in wanted)


def is_empty(text: str) -> bool:
    """Whether a text holds nothing but white space."""
    return not text.strip()


def is_too_short(text: str, references: Sequence[str]) -> bool:
    """Whether a text has fewer than half the words of the shortest reference."""
    return 2 * len(text.split()) < min((len(reference.split()) for reference in references), default=0)
