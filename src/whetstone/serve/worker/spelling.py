"""What a token says, byte for byte.

The pieces of a text are whole characters, but its tokens need not be: the bytes of all tokens, joined, are those of the
text. Tokenizers write bytes in two ways: each byte as a character of its own (``bytes_to_unicode`` of GPT-2,
https://github.com/openai/gpt-2/blob/master/src/encoder.py), or text with a mark for spaces and ``<0x0A>`` for a byte
that is no text (SentencePiece).
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from whetstone.engine.api import Logprob
from whetstone.serve.question import TokenScore

__all__ = ["Scorer", "Speller"]

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


class Speller:
    """Knows what the tokens of one tokenizer say."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Looks at how the tokenizer writes tokens."""
        kinds = set(_decoders(tokenizer))
        self._tokenizer = tokenizer
        self._special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._of_bytes = "ByteLevel" in kinds
        self._marks_spaces = bool(kinds & {"Metaspace", "ByteFallback", "Replace"})
        self._falls_back = "ByteFallback" in kinds

    def token_bytes(self, token_id: int) -> bytes | None:
        """What a token says amid a text; None for one that says nothing, and where it cannot be known."""
        token = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None or token_id in self._special:
            return None
        if self._of_bytes:
            # A token that was added may have characters of its own, and then is text as it stands.
            known = all(character in _BYTES for character in token)
            return bytes(_BYTES[character] for character in token) if known else token.encode()
        if not self._marks_spaces:
            return None
        byte = _BYTE.fullmatch(token) if self._falls_back else None
        return bytes([int(byte[1], 16)]) if byte else token.replace(_SPACE, " ").encode()

    def first_bytes(self, token_id: int) -> bytes | None:
        """The same for the first token of a text, which loses its space with some tokenizers."""
        spelled = self.token_bytes(token_id)
        if spelled is not None and spelled.startswith(b" ") and not self.decoded(token_id).startswith(" "):
            return spelled[1:]
        return spelled

    def decoded(self, token_id: int) -> str:
        """A token as text, a special one too."""
        return str(self._tokenizer.decode([token_id], clean_up_tokenization_spaces=False))


class Scorer:
    """Says how likely the tokens of one answer were, and what they say."""

    def __init__(self, speller: Speller) -> None:
        """The answer has not begun."""
        self._speller = speller
        self._begun = False

    def score(self, logprob: Logprob) -> TokenScore:
        """The next token of the answer, with those that might have stood in its place."""
        top = tuple(self._score(token_id, value) for token_id, value in logprob.top)
        chosen = self._score(logprob.token_id, logprob.logprob, top)
        self._begun = self._begun or chosen.bytes is not None
        return chosen

    def _score(self, token_id: int, logprob: float, top: Sequence[TokenScore] = ()) -> TokenScore:
        speller = self._speller
        spelled = speller.token_bytes(token_id) if self._begun else speller.first_bytes(token_id)
        text = speller.decoded(token_id) if spelled is None else spelled.decode("utf-8", "replace")
        return TokenScore(text, None if spelled is None else tuple(spelled), token_id, logprob, tuple(top))


def _decoders(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """The kinds of decoders that a fast tokenizer is put together from."""
    decoder = tokenizer.backend_tokenizer.decoder
    if decoder is not None:
        # What a decoder would be pickled as is JSON, and the one place where it says what it is.
        said: dict[str, Any] = json.loads(decoder.__getstate__())
        yield from (part["type"] for part in said.get("decoders", [said]))


def _characters() -> dict[str, int]:
    """The character that stands for each byte: itself where it can be seen, else one beyond Latin-1."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(0x100) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(0x100 + index): byte for index, byte in enumerate(unseen)}


_BYTES = _characters()
