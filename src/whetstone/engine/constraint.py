r"""Answers that are JSON of a schema, or match a regular expression, by llguidance (github.com/guidance-ai/llguidance).

Before each token a grammar says which tokens may come next; all others get no probability. Expressions are those of
Rust's regex: ``\d`` is any digit of Unicode.
"""

import json
import threading
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from whetstone.engine.api import Constraint
from whetstone.errors import UserError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

__all__ = ["Grammar", "GrammarMaker"]

_WHITE_SPACE = r"[ \n\r\t]{1,20}"
"""Between the parts of JSON. Without a limit a weak model may fill its whole answer with it."""

_KEPT_GRAMMARS = 64

_LEXER_FUEL = 100_000
"""A tenth of what llguidance allows: ``(a{970}){1000}`` costs it a second and 200 MB, and then 0.1 s and nothing."""


class Grammar:
    """How far one answer has come in what it must be."""

    def __init__(self, matcher: "LLMatcher") -> None:
        """Takes a matcher over."""
        self._matcher = matcher

    @property
    def ended(self) -> bool:
        """Whether the constraint is met and nothing may follow but the end."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def met(self) -> bool:
        """Whether the answer may end here."""
        return self._matcher.is_accepting()

    def mask(self, logits: torch.Tensor) -> None:
        """Sets the logits ``(vocabulary,)`` of all tokens that may not come next to minus infinity, in place.

        Those beyond the tokenizer's vocabulary never may; where the grammar has failed, none may.
        """
        allowed = np.zeros(logits.shape[-1], dtype=bool)
        if not self._matcher.is_error():
            packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            bits = np.unpackbits(packed, count=min(8 * len(packed), len(allowed)), bitorder="little")
            allowed[: len(bits)] = bits
        logits.masked_fill_(torch.from_numpy(~allowed).to(logits.device), -torch.inf)

    def accept(self, token_id: int) -> None:
        """Takes note of the next token; one that is not allowed leaves a grammar that allows nothing."""
        self._matcher.consume_token(token_id)


class GrammarMaker:
    """Makes grammars for one tokenizer; may be used by several threads."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]) -> None:
        """Costs nothing; the tokenizer is looked through when a grammar is first made.

        Args:
            tokenizer: A fast tokenizer.
            stop_ids: Tokens that end an answer.
        """
        self._tokenizer = tokenizer
        self._stop_ids = sorted(stop_ids)
        self._looked_through: LLTokenizer | None = None
        self._made: dict[Constraint, LLMatcher] = {}
        self._making = threading.Lock()

    def make(self, constraint: Constraint) -> Grammar:
        """A grammar at its beginning; the same constraint is compiled once.

        Raises:
            UserError: llguidance is missing or cannot read the tokenizer, or the schema or the regular expression is
                not valid or not supported.
        """
        with self._making:
            matcher = self._made.get(constraint)
            if matcher is None:
                matcher = self._compile(constraint)
                if len(self._made) == _KEPT_GRAMMARS:
                    self._made.pop(next(iter(self._made)))
                self._made[constraint] = matcher
            return Grammar(matcher.deep_copy())

    def _compile(self, constraint: Constraint) -> "LLMatcher":
        try:
            from llguidance import LLMatcher, LLParserLimits
            from llguidance.hf import from_tokenizer
        except ImportError:
            raise UserError("a constraint needs llguidance: pip install 'whetstone[constraint]'") from None
        if constraint.kind == "regex":
            grammar = LLMatcher.grammar_from_regex(constraint.pattern)
        else:
            schema = _schema(constraint.pattern)
            grammar = LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_pattern": _WHITE_SPACE})
        if self._looked_through is None:
            try:
                self._looked_through = from_tokenizer(self._tokenizer, eos_token=self._stop_ids)
            except ValueError as error:
                raise UserError(f"constraint: llguidance cannot read this tokenizer ({_reason(str(error))})") from None
        limits = LLParserLimits(initial_lexer_fuel=_LEXER_FUEL, step_lexer_fuel=_LEXER_FUEL // 2)
        matcher = LLMatcher(self._looked_through, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise UserError(f"constraint.{constraint.kind}: {_reason(matcher.get_error())}; {_MENDS[constraint.kind]}")
        return matcher


_MENDS = {
    "json_schema": "change the schema",
    "regex": "change the expression (it is matched against the whole answer, without ^, $ or look-around)",
}


def _schema(pattern: str) -> str:
    """The schema, if it is one.

    Raises:
        UserError: It is not a JSON object.
    """
    try:
        schema = json.loads(pattern)
    except ValueError as error:
        raise UserError(f"constraint.json_schema: not JSON ({error}); give a JSON schema as JSON text") from None
    if not isinstance(schema, dict):
        raise UserError(f"constraint.json_schema: {pattern[:40]} is no schema; give a JSON object")
    return json.dumps(schema)


def _reason(message: str) -> str:
    """The line of a message of llguidance that says what is wrong."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (said or lines or ["not supported"])[0]
