"""From what a question says to the token ids that a model is asked with."""

import json
from collections.abc import Iterator
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from whetstone.data.example import Message
from whetstone.data.template import Template
from whetstone.errors import UserError

__all__ = ["Prompts"]

_COMPOSED = 4
"""Characters that NFC and NFKC make one of at most, where they make fewer of several at all."""

_KEEPING = frozenset(("ByteLevel", "Digits", "Metaspace", "Punctuation", "UnicodeScripts"))
"""Ways to cut text into words that lose none of it."""


class _Pickled(Protocol):
    def __getstate__(self) -> bytes: ...


class Prompts:
    """Makes the prompts of one model; used by one thread at a time."""

    def __init__(self, template: Template, context_tokens: int | None) -> None:
        """Looks at how the tokenizer begins texts, and how long they can be.

        Args:
            template: What the model is asked with.
            context_tokens: The longest prompt and answer together; None where nobody knows.
        """
        self._template = template
        self._tokenizer = template.tokenizer
        self._opening = _opening_ids(self._tokenizer)
        self._most_characters = None if context_tokens is None else _most_characters(self._tokenizer, context_tokens)

    def check_length(self, prompt: tuple[Message, ...] | str | tuple[int, ...]) -> None:
        """Refuses what cannot fit by its characters alone, for to tokenise it takes long.

        Raises:
            UserError: It has more than the context can hold.
        """
        if isinstance(prompt, str):
            characters = len(prompt)
        else:
            characters = sum(len(turn.content) for turn in prompt if isinstance(turn, Message))
        if self._most_characters is not None and characters > self._most_characters:
            raise UserError(
                f"the prompt of {characters:,} characters cannot fit into the model's context, "
                f"which holds {self._most_characters:,} at most; shorten it"
            )

    def ids(self, prompt: tuple[Message, ...] | str | tuple[int, ...]) -> tuple[int, ...]:
        """The token ids of a prompt.

        A conversation is rendered by the template. A text begins as the tokenizer begins one (with BOS, where it has
        one), is not closed, and never becomes special tokens. Token ids are taken as they are.

        Raises:
            UserError: The template does not take the messages.
        """
        if isinstance(prompt, str):
            return self._text_ids(prompt)
        messages = [turn for turn in prompt if isinstance(turn, Message)]
        if messages:
            return tuple(self._template.prompt_ids(messages))
        return tuple(token_id for token_id in prompt if isinstance(token_id, int))

    def _text_ids(self, text: str) -> tuple[int, ...]:
        encoded = self._tokenizer(
            text,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            split_special_tokens=True,
        )
        ids = (*self._opening, *encoded["input_ids"])
        return ids or tuple(self._template.prompt_ids(()))


def _opening_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What the tokenizer puts before a text. What it puts after one would end a text that is to go on."""
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("a")["input_ids"]
    size = len(bare)
    begin = next((start for start in range(len(whole)) if whole[start : start + size] == bare), 0)
    return tuple(whole[:begin])


def _most_characters(tokenizer: PreTrainedTokenizerBase, context_tokens: int) -> int | None:
    """How many characters so many tokens can say at most; None where the tokenizer may leave some out.

    No token of byte pair encoding says more characters than it is written with, if every character has some token.
    """
    backend = tokenizer.backend_tokenizer
    cuts = {part["type"]: part for part in _parts(backend.pre_tokenizer, "pretokenizers")}
    cuts_keep = all(kind in _KEEPING or part.get("behavior", "Removed") != "Removed" for kind, part in cuts.items())
    spelled = type(backend.model).__name__ == "BPE" and ("ByteLevel" in cuts or backend.model.byte_fallback)
    if not spelled or not cuts_keep:
        return None
    longest = max(map(len, tokenizer.get_vocab()))
    for part in _parts(backend.normalizer, "normalizers"):
        if part["type"] in ("NFC", "NFKC"):
            longest *= _COMPOSED
        elif part["type"] == "Replace":
            if len(part["pattern"].get("String", part["content"] + " ")) > len(part["content"]):
                return None
        elif part["type"] not in ("NFD", "NFKD", "Prepend", "Lowercase"):
            return None
    return longest * context_tokens


def _parts(whole: _Pickled | None, name: str) -> Iterator[dict[str, Any]]:
    """The parts that a part of a fast tokenizer is put together from."""
    if whole is not None:
        # What it would be pickled as is JSON, and the one place where it says what it is.
        said: dict[str, Any] = json.loads(whole.__getstate__())
        yield from said.get(name, [said])
