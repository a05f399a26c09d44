"""What a benchmark asks: a file of prompts, the held-out examples of a run, or made-up text of so many tokens.

Notable: servers keep what they computed for a prompt and answer its beginning for nothing the next time. Made-up
prompts therefore begin differently, each with its number; of a file it is said when its prompts are asked again.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from whetstone.bench.client import Outcome
from whetstone.data.example import Example, Message
from whetstone.data.prompts import Prompt, read_prompts
from whetstone.errors import UserError
from whetstone.files import read_jsonl
from whetstone.run import Run

__all__ = ["Asked", "FixedPrompts", "MadeUpPrompts", "file_prompts", "fitted", "held_out_prompts"]


class Asked(Protocol):
    """Gives the prompt of each number.

    Attributes:
        about: What they are, in words.
        count: How many there are before they repeat; None for no end.
    """

    about: str
    count: int | None

    def prompt(self, number: int) -> Prompt:
        """The prompt of the request with this number, from 0."""
        ...


@dataclass(slots=True)
class FixedPrompts:
    """Prompts in their order, again and again."""

    about: str
    prompts: Sequence[Prompt]
    count: int | None

    def prompt(self, number: int) -> Prompt:
        """One prompt."""
        return self.prompts[number % len(self.prompts)]


@dataclass(slots=True)
class MadeUpPrompts:
    """Common words in random order, without end and each one different."""

    about: str
    words: int
    seed: int
    count: int | None = None

    def prompt(self, number: int) -> Prompt:
        """One prompt."""
        draw = random.Random(f"{self.seed} {number}")
        text = " ".join([str(number), *draw.choices(_WORDS, k=self.words)])
        return Prompt("made up", f"made-up-{number}", (Message("user", text),), None)


def file_prompts(path: Path, system: str | None) -> FixedPrompts:
    """The prompts of a file, as ``whet generate`` reads them.

    Raises:
        UserError: A row cannot be used.
    """
    rows = read_prompts(path, system).rows
    return FixedPrompts(path.name, rows, len(rows))


def held_out_prompts(run: Run) -> FixedPrompts:
    """The examples that a run was judged on, with the longest answers that they had.

    Raises:
        UserError: It has none yet.
    """
    path = run.samples / "examples.jsonl"
    if not path.is_file():
        raise UserError(f"{run.name}: has no held-out examples yet; 'whet tune' and 'whet compare' make them")
    examples = [Example.from_row(row) for row in read_jsonl(path)]
    longest = run.manifest().experiment.judge.generation.max_new_tokens
    rows = [Prompt(str(path), example.id, example.messages, longest) for example in examples if example.messages]
    if not rows:
        raise UserError(f"{path}: its examples have no prompts; give a file of prompts")
    return FixedPrompts(f"held-out examples of {run.name}", rows, len(rows))


async def fitted(tokens: int, seed: int, ask: Callable[[Prompt], Awaitable[Outcome]]) -> MadeUpPrompts:
    """Made-up prompts of about so many tokens, by the server's own count of two shorter ones.

    How many tokens a word has, and how many the chat template adds, only the server knows; both follow from two counts.
    Where it counts none, a word is taken for a token.

    Args:
        tokens: Of a prompt with its template.
        seed: Other prompts.
        ask: Gives the server's count of a prompt.

    Raises:
        UserError: The template alone is longer.
    """
    sizes = (max(2, tokens // 8), max(10, tokens // 2))
    counts = [(await ask(MadeUpPrompts("", words, seed).prompt(0))).prompt_tokens for words in sizes]
    if counts[0] is None or counts[1] is None or counts[1] <= counts[0]:
        return MadeUpPrompts(f"made up, {tokens} words (the server counts no tokens of prompts)", tokens, seed)
    per_word = (counts[1] - counts[0]) / (sizes[1] - sizes[0])
    fixed = counts[0] - per_word * sizes[0]
    words = round((tokens - fixed) / per_word)
    if words < 1:
        raise UserError(f"a prompt of {tokens} tokens has no room for text; without any there are {fixed:.0f} already")
    return MadeUpPrompts(f"made up, about {tokens} tokens", words, seed)


_COMMON = (
    "the of and to in is that it was for on are as with his they at be this have from or one had by word but not what "
    "all were we when your can said there use an each which she do how their if will up other about out many then "
    "them these so some her would make like him into time has look two more write go see number no way could people "
    "my than first water been call who oil its now find long down day did get come made may part over new sound take "
    "only little work know place year live me back give most very after thing our just name good sentence man think "
    "say great where help through much before line right too mean old any same tell boy follow came want show also "
    "around form three small set put end does another well large must big even such because turn here why ask went "
    "men read need land different home us move try kind hand picture again change off play spell air away animal "
    "house point page letter mother answer found study still learn should world"
)
_WORDS = tuple(_COMMON.split())
