"""The answers to one request: from the first backend that can give them, checked, and kept for the next time.

A backend that cannot answer now (503) is passed over for the next, as long as nothing of its answer has been handed on.
Answers that nobody sees before they are whole, because they are not streamed or have to be checked first, can change
backends until their end.
"""

import time
from collections.abc import AsyncIterator
from dataclasses import replace

from whetstone.serve.api.candidates import candidates, fingerprint
from whetstone.serve.api.heard import Heard
from whetstone.serve.api.service import Service
from whetstone.serve.api.together import Said, Together
from whetstone.serve.api.wanted import Wanted, last_asked, turns_of
from whetstone.serve.backend import Backend
from whetstone.serve.cache import CachedAnswer, cache_key, cacheable
from whetstone.serve.errors import ServeError
from whetstone.serve.gate.keys import Principal
from whetstone.serve.question import Ending, Piece, Question
from whetstone.serve.served_model import ServedModel
from whetstone.serve.validation import check, retried
from whetstone.serve_section import Validate

__all__ = ["Answers"]


class Answers:
    """Asks for what a request wants, and gives it as it comes.

    Attributes:
        backend: Who answers.
        model: What answers; it may be a fallback's.
        fingerprint: Of the model.
        heard: The answers, by index.
        cached: The answer is one that was given before; None where there is no cache for it.
    """

    backend: Backend
    model: ServedModel
    fingerprint: str

    def __init__(self, service: Service, wanted: Wanted, principal: Principal, deadline_s: float) -> None:
        """Asks nobody yet.

        Args:
            service: Knows whom to ask.
            wanted: What is asked.
            principal: Who asks.
            deadline_s: When the answers are given up, by the monotonic clock.
        """
        self.heard: list[Heard] = []
        self.cached: bool | None = None
        self._service = service
        self._wanted = wanted
        self._principal = principal
        self._deadline_s = deadline_s
        self._together: Together | None = None
        self._ready: list[Said] = []
        self._key = ""

    async def begin(self) -> None:
        """Asks; returns when there is something to hand on.

        Raises:
            ServeError: There is nothing.
        """
        failure: ServeError | None = None
        for backend, model in candidates(self._service, self._wanted.model):
            try:
                await self._ask(backend, model)
                return
            except ServeError as error:
                await self.close()
                if error.status != 503:
                    raise
                failure = failure or error
        assert failure is not None  # candidates() gives somebody, or raises
        raise failure

    async def next(self) -> list[Said]:
        """What was said since; nothing when all answers have ended.

        Raises:
            ServeError: An answer failed.
        """
        if self._ready:
            said, self._ready = self._ready, []
            return said
        if self._together is None:
            return []
        said = await self._together.next()
        if not said:
            self._keep()
            self._together = None
        return said

    @property
    def ended(self) -> bool:
        """Whether all answers have, and nothing but their last pieces is to come."""
        return all(heard.ending is not None for heard in self.heard)

    async def close(self) -> None:
        """Ends what has not ended."""
        if self._together is not None:
            await self._together.close()
            self._together = None

    async def _ask(self, backend: Backend, model: ServedModel) -> None:
        wanted, asked = self._wanted, self._service.as_asked(model)
        questions = wanted.questions(model, asked.system_prompt, self._left_s())
        self.backend, self.model, self.fingerprint = backend, model, fingerprint(model)
        self.heard = [
            Heard(index, last_asked(question.prompt), turns_of(question.prompt))
            for index, question in enumerate(questions)
        ]
        if self._recall(questions[0]):
            return
        validation = asked.validation
        streams = [
            (heard, backend.ask(question) if validation is None else self._checked(heard, question, validation))
            for heard, question in zip(self.heard, questions, strict=True)
        ]
        self._together = Together(streams, note=validation is None)
        self._ready = []
        whole = validation is not None or not wanted.streamed
        while said := await self._together.next():
            self._ready += said
            if not whole:
                return
        self._keep()
        self._together = None

    def _left_s(self) -> float:
        return max(0.0, self._deadline_s - time.monotonic())

    async def _checked(self, heard: Heard, question: Question, validation: Validate) -> AsyncIterator[Piece | Ending]:
        """Asks until an answer is what it must be, and gives that one."""
        fault: str | None = ""
        for attempt in range(validation.retries + 1):
            again = retried(question, attempt, validation) if attempt else question
            heard.begin()
            pieces = []
            async for piece in self.backend.ask(replace(again, deadline_s=self._left_s())):
                heard.add(piece)
                pieces.append(piece)
            fault = check(validation, heard.asked, heard.text)
            if fault is None:
                for piece in pieces:
                    yield piece
                return
            heard.invalid += 1
        said = f"none of {validation.retries + 1} answers was" if validation.retries else "the answer was not"
        raise ServeError(422, "answer_invalid", f"{said} what it must be; of the last one: {fault}")

    def _recall(self, question: Question) -> bool:
        """Whether the answer is known."""
        cache = self._service.cache
        self._key = ""
        self.cached = None
        # Whoever cannot tell which weights answer cannot tell either when they are others.
        if cache is None or self.model.sha256 is None or not cacheable(question, self._wanted.answers):
            return False
        self._key = cache_key(self._principal.name, self.fingerprint, question)
        known = cache.get(self._key)
        self.cached = known is not None
        if known is None:
            return False
        heard = self.heard[0]
        said: list[Piece | Ending] = [*known.pieces, known.ending]
        for piece in said:
            heard.add(piece)
        self._ready = [(heard, piece) for piece in said]
        return True

    def _keep(self) -> None:
        """Remembers an answer; one that came of a second attempt was not greedy."""
        heard = self.heard[0]
        if self._service.cache is not None and self._key and heard.ending is not None and not heard.invalid:
            answer = CachedAnswer((Piece(heard.text, tuple(heard.token_ids)),), heard.ending)
            self._service.cache.put(self._key, answer)
