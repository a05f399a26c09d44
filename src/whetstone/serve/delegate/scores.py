"""How likely tokens were, as servers tell it, in our words."""

from collections.abc import Sequence

from whetstone.engine.http_wire import UNKNOWN_TOKEN, Likely, Logprobs
from whetstone.serve.question import TokenScore

__all__ = ["scores_of"]

_REPLACED = "\ufffd"


def scores_of(told: Logprobs, token_ids: Sequence[int], top: int) -> tuple[TokenScore, ...]:
    """One score for each token of a piece.

    Args:
        told: Of chat completions, or of completions.
        token_ids: Of the piece; empty where the server tells none.
        top: How many of the likeliest tokens are wanted; some servers tell more.
    """
    if told.content is not None:
        return tuple(
            _score(chosen, _id_at(token_ids, place), tuple(map(_score, (chosen.top_logprobs or ())[:top])))
            for place, chosen in enumerate(told.content)
        )
    tops = told.top_logprobs or [None] * len(told.tokens or ())
    rows = zip(told.tokens or (), told.token_logprobs or (), tops, strict=False)
    scores = []
    for place, (token, logprob, others) in enumerate(rows):
        likeliest = sorted((others or {}).items(), key=lambda one: -one[1])[:top]
        listed = tuple(TokenScore(text, _bytes_of(text), UNKNOWN_TOKEN, value) for text, value in likeliest)
        # Only what follows nothing has no probability, and an answer follows its prompt.
        if logprob is not None:
            scores.append(TokenScore(token, _bytes_of(token), _id_at(token_ids, place), logprob, listed))
    return tuple(scores)


def _score(told: Likely, token_id: int = UNKNOWN_TOKEN, top: tuple[TokenScore, ...] = ()) -> TokenScore:
    spelled = _bytes_of(told.token) if told.bytes is None else tuple(told.bytes)
    known = told.token_id() if token_id == UNKNOWN_TOKEN else token_id
    return TokenScore(told.token, spelled, known, told.logprob, top)


def _id_at(token_ids: Sequence[int], place: int) -> int:
    return token_ids[place] if place < len(token_ids) else UNKNOWN_TOKEN


def _bytes_of(text: str) -> tuple[int, ...] | None:
    """What a text is in bytes; None where a byte of it was replaced."""
    return None if _REPLACED in text else tuple(text.encode())
