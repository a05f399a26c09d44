"""From tokens to text, one token at a time.

The pieces, joined, are what ``tokenizer.decode`` says of all tokens at once. A token alone does not tell its text: the
first one may lose a space, a character may lie across several tokens, and decoders with byte fallback make either
characters or replacement characters of a whole run of byte tokens, according to its last byte. So a few tokens are
decoded again with each new one, and what a coming token could still change is held back.
"""

from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

__all__ = ["Detokeniser"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_CONTEXT_TOKENS = 4
"""A character has up to four bytes, and a token at least one: what is not whole began within so many tokens."""

_WINDOW_TOKENS = 12
"""So many tokens are decoded again at most, outside of runs of byte tokens; trimming back takes a call of its own."""


class Detokeniser:
    """The text of one answer while its tokens come. The time for each token does not grow with the answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Nothing was said yet."""
        self._tokenizer = tokenizer
        self._vocabulary = _vocabulary(tokenizer)
        self._window: list[int] = []
        self._said = 0
        self._run: list[int] = []
        self._run_bytes = bytearray()

    def add(self, token_id: int) -> str:
        """What is certain now that this token has come; special tokens say nothing."""
        vocabulary = self._vocabulary
        if token_id in vocabulary.special_ids or token_id >= vocabulary.size:
            return ""
        byte = vocabulary.byte_of.get(token_id)
        if byte is not None:
            self._run.append(token_id)
            self._run_bytes.append(byte)
            return ""
        self._end_run()
        self._window.append(token_id)
        return self._say()

    @property
    def run_bytes(self) -> bytearray:
        """The bytes at the end that are not said yet, because a byte that fits nothing would spoil them all."""
        return self._run_bytes

    def flush(self) -> str:
        """The rest, as it would be decoded if no token came after it."""
        self._end_run()
        text = self._decode()
        rest = text[self._said :]
        self._said = len(text)
        return rest

    def _end_run(self) -> None:
        self._window += self._run
        self._run.clear()
        self._run_bytes.clear()

    def _say(self) -> str:
        text = self._decode()
        # Bytes that are not a whole character yet are decoded to exactly one replacement character; where bytes are
        # tokens of their own, their runs have ended here.
        certain = len(text) - (not self._vocabulary.byte_of and text.endswith(_REPLACEMENT))
        new = text[self._said : certain]
        self._said = certain
        if len(self._window) > _WINDOW_TOKENS:
            self._window = self._window[-_CONTEXT_TOKENS:]
            self._said = len(self._decode()) - (len(text) - certain)
        return new

    def _decode(self) -> str:
        text = self._tokenizer.decode(self._window, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)


@dataclass(frozen=True)
class _Vocabulary:
    """What a tokenizer's tokens are to a reader: without text, a single byte (``<0x0A>``), or else text."""

    size: int
    special_ids: frozenset[int]
    byte_of: dict[int, int]


@lru_cache(maxsize=8)
def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> _Vocabulary:
    special = frozenset(index for index, token in tokenizer.added_tokens_decoder.items() if token.special)
    ids = {tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>"): byte for byte in range(256)}
    # A tokenizer that lacks a token gives the id of its unknown token, or None.
    byte_of = {
        index: byte
        for index, byte in ids.items()
        if index is not None and tokenizer.convert_ids_to_tokens(index) == f"<0x{byte:02X}>"
    }
    capital_a = tokenizer.convert_tokens_to_ids("<0x41>")
    # Without byte fallback such a token is text like any other.
    falls_back = capital_a in byte_of and tokenizer.decode([capital_a]) == "A"
    return _Vocabulary(len(tokenizer), special, byte_of if falls_back else {})
