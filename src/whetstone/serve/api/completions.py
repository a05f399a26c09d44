"""``POST /v1/completions``."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from whetstone.serve.api.describe import computed
from whetstone.serve.api.heard import Heard, offsets
from whetstone.serve.api.reply import Reply
from whetstone.serve.api.service import Service
from whetstone.serve.api.stream import LEAST_LOGPROB, Events
from whetstone.serve.api.wanted import Wanted
from whetstone.serve.openai.completions import Completion, CompletionRequest
from whetstone.serve.openai.parse import parsed
from whetstone.serve.question import Piece, TokenScore

__all__ = ["CompletionEvents", "CompletionWords", "completions_router"]


class CompletionEvents(Events):
    """A stream of ``text_completion``."""

    def around(self) -> tuple[bytes, bytes]:
        """The text stands in the choice itself."""
        return b'"text":', b""

    def logprobs(self, piece: Piece, begin: int) -> object:
        """The scores of a piece."""
        return _logprobs(piece.scores, offsets(piece, begin))

    def opening(self) -> bytes:
        """Nothing: it is clear who speaks."""
        return b""

    def ending(self, finish_reason: str) -> bytes:
        """Nothing new, and the reason."""
        return b'"text":"","logprobs":null,"finish_reason":"%b"}' % finish_reason.encode()


class CompletionWords:
    """How completions say things."""

    endpoint = "completions"
    id_prefix = "cmpl-"
    whole = "text_completion"
    chunk = "text_completion"
    events = CompletionEvents

    def wanted(self, body: bytes) -> Wanted:
        """What a request wants."""
        return parsed(CompletionRequest, body).as_wanted()

    def choice(self, heard: Heard, wanted: Wanted) -> dict[str, Any]:
        """One whole answer."""
        assert heard.ending is not None
        return {
            "index": heard.index,
            "text": heard.text,
            "logprobs": None if wanted.logprobs is None else _logprobs(heard.scores, heard.offsets),
            "finish_reason": heard.ending.finish_reason,
        }


def completions_router(service: Service) -> APIRouter:
    """The endpoint of one server."""
    router = APIRouter(tags=["answers"])

    @router.post("/v1/completions", **computed(CompletionRequest, Completion, streams="Completion"))
    async def create_completion(request: Request) -> Response:
        """Continues a text, or several."""
        return Reply(service, CompletionWords())

    return router


def _logprobs(scores: Sequence[TokenScore], begins: Sequence[int]) -> dict[str, Any]:
    """The likeliest tokens of each place and the chosen one, which may be none of them."""
    return {
        "tokens": [score.token for score in scores],
        "token_logprobs": [max(score.logprob, LEAST_LOGPROB) for score in scores],
        "top_logprobs": [
            {one.token: max(one.logprob, LEAST_LOGPROB) for one in (*reversed(score.top), score)} for score in scores
        ],
        "text_offset": list(begins),
    }
