"""``POST /v1/embeddings``."""

import base64
import struct
import time
from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Send

from whetstone.serve.answered import Answered
from whetstone.serve.api.candidates import candidates
from whetstone.serve.api.describe import computed
from whetstone.serve.api.exchange import Exchange, send_json
from whetstone.serve.api.service import Service
from whetstone.serve.backend import Backend, Embedding
from whetstone.serve.errors import ServeError
from whetstone.serve.openai.completions import as_prompts
from whetstone.serve.openai.embeddings import EmbeddingList, EmbeddingRequest
from whetstone.serve.openai.parse import parsed

__all__ = ["embeddings_router"]


def embeddings_router(service: Service) -> APIRouter:
    """The endpoint of one server."""
    router = APIRouter(tags=["answers"])

    @router.post("/v1/embeddings", **computed(EmbeddingRequest, EmbeddingList))
    async def create_embedding(request: Request) -> Response:
        """Gives texts as vectors: the means of the model's last hidden states."""
        return _Embeds(service)

    return router


class _Embeds(Exchange):
    """Serves one request."""

    endpoint = "embeddings"

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._backend = ""
        self._tokens = 0

    async def respond(self, body: bytes, receive: Receive, send: Send) -> None:
        """Answers."""
        request = parsed(EmbeddingRequest, body)
        if any(request.model in backend.models for backend in self.service.backends):
            self.model = request.model
        if not self.service.settings.embeddings:
            raise ServeError(404, "embeddings_off", "this server gives no embeddings; start it with 'embeddings: true'")
        texts = as_prompts(request.input)
        async with self.place(1, receive):
            backend, embeddings = await self._embed(request.model, texts)
        self._backend = backend.name
        self._tokens = sum(one.tokens for one in embeddings)
        data = [
            {"object": "embedding", "index": index, "embedding": _written(one, request.encoding_format)}
            for index, one in enumerate(embeddings)
        ]
        usage = {"prompt_tokens": self._tokens, "total_tokens": self._tokens}
        value = {"object": "list", "data": data, "model": request.model, "usage": usage}
        self.status = 200
        self.began = True
        await send_json(value, send, headers=[(b"x-whetstone-backend", backend.name.encode("ascii", "replace"))])

    async def break_off(self, error: ServeError, send: Send) -> None:
        """There are no streams of embeddings, and nothing can be done for a response that is half sent."""

    def records(self, outcome: str) -> Sequence[Answered]:
        """One; the texts are not kept."""
        record = self.record(outcome)
        return [replace(record, backend=self._backend, prompt_tokens=self._tokens, ended_s=time.monotonic())]

    async def _embed(self, name: str, texts: Sequence[str | tuple[int, ...]]) -> tuple[Backend, list[Embedding]]:
        """Asks whoever has the model itself: the vectors of another one mean something else.

        Raises:
            ServeError: Nobody gives any.
        """
        failure: ServeError | None = None
        for backend, model in candidates(self.service, name, stand_in=False):
            if not model.embeds:
                failure = failure or ServeError.invalid("model: it gives no embeddings", "model", "no_embeddings")
                continue
            try:
                return backend, await backend.embed(name, texts)
            except ServeError as error:
                if error.status != 503:
                    raise
                failure = failure or error
        assert failure is not None  # candidates() gives somebody, or raises
        raise failure


def _written(embedding: Embedding, encoding: str | None) -> Sequence[float] | str:
    if encoding != "base64":
        return embedding.vector
    return base64.b64encode(struct.pack(f"<{len(embedding.vector)}f", *embedding.vector)).decode()
