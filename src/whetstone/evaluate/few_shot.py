"""The few-shot arm: the base, shown some solved examples before the question. Tuning has to be better than that.

The examples are the training part's, never the test part's, and the same ones for every question, so that their tokens
are computed once.
"""

from collections.abc import Sequence

from whetstone.data.example import Example, Message
from whetstone.section import stable_hash

__all__ = ["choose_shots", "with_shots"]


def choose_shots(training: Sequence[Example], count: int) -> tuple[Example, ...]:
    """Takes some solved examples of different groups, whatever the order of the training part.

    Args:
        training: Where to choose from; plain text and examples without an answer are passed over.
        count: How many; fewer where there are not so many groups.
    """
    chosen: dict[str, Example] = {}
    usable = (example for example in training if example.messages and example.references)
    for example in sorted(usable, key=lambda example: stable_hash(["shot", example.id])):
        if len(chosen) == count:
            break
        chosen.setdefault(example.group, example)
    return tuple(chosen.values())


def with_shots(messages: Sequence[Message], shots: Sequence[Example]) -> tuple[Message, ...]:
    """A question after the solved examples; its own system turn stays first, those of the examples are left out."""
    own = [message for message in messages if message.role == "system"]
    turns = [message for message in messages if message.role != "system"]
    solved: list[Message] = []
    for shot in shots:
        solved += [message for message in shot.messages if message.role != "system"]
        solved.append(Message("assistant", shot.references[0]))
    return (*own, *solved, *turns)
