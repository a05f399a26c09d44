"""More examples from those there are: clean texts with learner errors planted, and prompts said in other words.

What is made keeps the group of what it was made from, so that no split ever parts the two.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from random import Random

from whetstone.data.example import Example, Message
from whetstone.data.grammar.free_text import corrupt_text
from whetstone.errors import UserError

__all__ = ["ALREADY_RIGHT", "CORRECTION_PROMPTS", "Augmented", "Planting", "plant_errors", "swap_prompts"]

ALREADY_RIGHT = "already right"
"""The category of a pair whose two sides are the same."""

CORRECTION_PROMPTS: tuple[str, ...] = (
    "Correct the grammar: {source}",
    "Correct the following sentence:\n{source}",
    "Fix all grammar and spelling mistakes in this text:\n{source}",
    "Rewrite this sentence so that it is correct English: {source}",
    "Proofread this text and return only the corrected version:\n{source}",
    "Here is a sentence from a learner of English. Write it correctly.\n{source}",
    "What is the correct form of this sentence?\n{source}",
    "Please remove the errors from this text and keep its meaning: {source}",
    "Improve the grammar of this sentence, changing as little as possible:\n{source}",
    "Edit the text below so that it has no mistakes.\n\n{source}",
    "{source}\n\nCorrect the text above.",
    "Is there a mistake in this sentence? Answer with the right sentence only.\n{source}",
)
"""Ways to ask for a correction; the source goes where ``{source}`` stands."""

_ATTEMPTS = 5
"""How often a text is corrupted anew when the result is there already."""


@dataclass(frozen=True, slots=True)
class Planting:
    """How learner errors are planted.

    Attributes:
        copies: How many learner texts are made of each clean one, at most.
        errors: The least and the greatest number of errors in a text; where it does not admit that many, fewer are
            planted, but never less than the least.
        keep_clean: Which share stays as it is: a model that only sees errors learns to change what is right.
        seed: Decides which errors, where.
        prompt: The user's turn; ``{source}`` stands for the learner's text.
        system: The system turn, if any.
    """

    copies: int = 1
    errors: tuple[int, int] = (1, 3)
    keep_clean: float = 0.1
    seed: int = 0
    prompt: str = "{source}"
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Augmented:
    """What was made.

    Attributes:
        examples: The new examples, in the order of their originals.
        barren: The ids of originals that gave none: the rules find no place in them where an error is surely one.
    """

    examples: tuple[Example, ...]
    barren: tuple[str, ...]


def plant_errors(examples: Sequence[Example], planting: Planting) -> Augmented:
    """Makes pairs of a learner's text and its correction out of clean texts.

    Args:
        examples: Their first references are the clean texts; plain-text examples are their own.
        planting: How.

    Returns:
        The pairs; each depends on the seed and on the text's id alone, not on the order of the examples.
    """
    made: list[Example] = []
    barren: list[str] = []
    for example in examples:
        pairs = _pairs(example, planting)
        made += pairs
        if not pairs:
            barren.append(example.id)
    return Augmented(tuple(made), tuple(barren))


def _pairs(example: Example, planting: Planting) -> list[Example]:
    clean = example.references[0]
    made: list[Example] = []
    # A pair is not made again: neither the original's nor one of an earlier copy.
    taken = {example.source} if example.messages else set()
    for copy in range(1, planting.copies + 1):
        rng = Random(f"plant:{planting.seed}:{example.id}:{copy}")
        if rng.random() < planting.keep_clean:
            source, category = clean, ALREADY_RIGHT
        else:
            source, category = _learner_text(clean, planting, rng, taken)
        if source and source not in taken:
            taken.add(source)
            messages = _asked(example, source, planting)
            name = f"{example.id}-error{copy}"
            made.append(Example(name, messages, (clean,), source, example.group, category))
    return made


def _learner_text(clean: str, planting: Planting, rng: Random, taken: Collection[str]) -> tuple[str, str]:
    """A learner's text that is not taken, with the kind of its first error; "" where there is none."""
    least, most = planting.errors
    for _ in range(_ATTEMPTS):
        for count in range(rng.randint(least, most), least - 1, -1):
            corrupted = corrupt_text(clean, rng, count)
            if corrupted is not None:
                if corrupted.source not in taken:
                    return corrupted.source, corrupted.kinds[0]
                break
    return "", ""


def _asked(example: Example, source: str, planting: Planting) -> tuple[Message, ...]:
    """The original's prompt about another source where it has one that holds the source, else the planting's."""
    if example.messages and example.source and example.source in example.messages[-1].content:
        *earlier, turn = example.messages
        before, _, after = turn.content.rpartition(example.source)
        return (*earlier, Message(turn.role, f"{before}{source}{after}"))
    turns = [Message("system", planting.system)] if planting.system is not None else []
    return (*turns, Message("user", planting.prompt.replace("{source}", source)))


def swap_prompts(examples: Sequence[Example], prompts: Sequence[str], copies: int, seed: int) -> tuple[Example, ...]:
    """Says the user's turn in other words: the answers, the group and all earlier turns stay.

    Args:
        examples: Examples with prompts.
        prompts: Templates with ``{source}``, where the example's source goes.
        copies: How many different templates each example gets.
        seed: Decides which.

    Returns:
        The new examples; the originals are not among them.

    Raises:
        UserError: A template lacks ``{source}``, there are fewer templates than copies, or an example has no prompt.
    """
    for number, prompt in enumerate(prompts, 1):
        if "{source}" not in prompt:
            raise UserError(f"prompt {number} ('{prompt}'): does not say where the text goes; add {{source}}")
    if copies > len(prompts):
        raise UserError(
            f"{copies} copies need as many prompts, but there are {len(prompts)}; add some or ask for fewer"
        )
    made = []
    for example in examples:
        if not example.messages:
            raise UserError(
                f"example '{example.id}': is plain text, which has no prompt to rewrite; plant errors first"
            )
        for copy, prompt in enumerate(Random(f"prompts:{seed}:{example.id}").sample(prompts, copies), 1):
            turn = Message("user", prompt.replace("{source}", example.source))
            name = f"{example.id}-prompt{copy}"
            made.append(replace(example, id=name, messages=(*example.messages[:-1], turn)))
    return tuple(made)
