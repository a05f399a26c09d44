"""``POST /v1/chat/completions``."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from whetstone.serve.api.describe import computed
from whetstone.serve.api.heard import Heard
from whetstone.serve.api.reply import Reply
from whetstone.serve.api.service import Service
from whetstone.serve.api.stream import LEAST_LOGPROB, Events
from whetstone.serve.api.wanted import Wanted
from whetstone.serve.openai.chat import ChatCompletion, ChatRequest
from whetstone.serve.openai.parse import parsed
from whetstone.serve.question import Piece, TokenScore

__all__ = ["ChatEvents", "ChatWords", "chat_router"]


class ChatEvents(Events):
    """A stream of ``chat.completion.chunk``."""

    def around(self) -> tuple[bytes, bytes]:
        """The text stands in ``delta``."""
        return b'"delta":{"content":', b"}"

    def logprobs(self, piece: Piece, begin: int) -> object:
        """The scores of a piece."""
        return _logprobs(piece.scores)

    def opening(self) -> bytes:
        """Says for each choice who speaks."""
        return self.each(b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}')

    def ending(self, finish_reason: str) -> bytes:
        """Nothing new, and the reason."""
        return b'"delta":{},"logprobs":null,"finish_reason":"%b"}' % finish_reason.encode()


class ChatWords:
    """How chat says things."""

    endpoint = "chat"
    id_prefix = "chatcmpl-"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"
    events = ChatEvents

    def wanted(self, body: bytes) -> Wanted:
        """What a request wants."""
        return parsed(ChatRequest, body).as_wanted()

    def choice(self, heard: Heard, wanted: Wanted) -> dict[str, Any]:
        """One whole answer."""
        assert heard.ending is not None
        return {
            "index": heard.index,
            "message": {"role": "assistant", "content": heard.text, "refusal": None},
            "logprobs": None if wanted.logprobs is None else _logprobs(heard.scores),
            "finish_reason": heard.ending.finish_reason,
        }


def chat_router(service: Service) -> APIRouter:
    """The endpoint of one server."""
    router = APIRouter(tags=["answers"])

    @router.post("/v1/chat/completions", **computed(ChatRequest, ChatCompletion, streams="ChatCompletionChunk"))
    async def create_chat_completion(request: Request) -> Response:
        """Answers a conversation."""
        return Reply(service, ChatWords())

    return router


def _logprobs(scores: Sequence[TokenScore]) -> dict[str, Any]:
    content = [{**_score(score), "top_logprobs": [_score(top) for top in score.top]} for score in scores]
    return {"content": content, "refusal": None}


def _score(score: TokenScore) -> dict[str, Any]:
    return {"token": score.token, "bytes": score.bytes, "logprob": max(score.logprob, LEAST_LOGPROB)}
