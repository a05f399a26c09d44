"""Two answers to one question, as published preference sets write them."""

import re
from collections.abc import Sequence

from whetstone.data.example import Message, Role
from whetstone.data.strict_json import RowError

__all__ = ["check_differs", "rejected_answer", "transcript"]

_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}


def transcript(text: str, key: str) -> list[Message]:
    r"""The turns of ``\n\nHuman: …\n\nAssistant: …``, the one text that HH-RLHF writes a conversation as.

    Source: https://huggingface.co/datasets/Anthropic/hh-rlhf.

    Raises:
        RowError: The text does not begin with a turn; ``key`` is the field that it is from.
    """
    before, *parts = _SPEAKER.split(text)
    if before.strip() or not parts:
        raise RowError(f"{key}: expected a text that begins with 'Human:', or a field 'prompt', found neither; add one")
    return [Message(_ROLES[name], said.strip()) for name, said in zip(parts[::2], parts[1::2], strict=True)]


def rejected_answer(chosen: Sequence[Message], rejected: Sequence[Message]) -> str:
    """The last turn of the rejected conversation.

    Raises:
        RowError: It is no answer, or not one to the question that the chosen conversation ends with.
    """
    if not rejected or rejected[-1].role != "assistant":
        raise RowError("rejected: expected the assistant's turn at the end, found another one or none; add the answer")
    if list(chosen[:-1]) != list(rejected[:-1]):
        pairs = zip(chosen[:-1], rejected[:-1], strict=False)
        same = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
        place = min(len(chosen), len(rejected)) - 1 if same is None else same
        raise RowError(
            f"rejected: expected the turns of chosen before the answer, found another as turn {place + 1}; "
            "leave the row out"
        )
    return rejected[-1].content


def check_differs(references: Sequence[str], rejected: str) -> None:
    """Raises RowError where the rejected answer is one of those that count as right."""
    if rejected in references:
        raise RowError("rejected: expected another answer than the chosen one, found the same; leave the row out")
