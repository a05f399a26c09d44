"""A backend that says what a test tells it to."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace

from whetstone.data.example import Message
from whetstone.engine.api import Usage
from whetstone.serve.backend import BackendState, Embedding, Load
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Piece, Question, TokenScore
from whetstone.serve.served_model import ServedModel

__all__ = ["ScriptedBackend", "model_named"]


def model_named(name: str) -> ServedModel:
    """A model of which little is known."""
    return ServedModel(
        name=name,
        ref=f"run:{name}",
        engine="torch",
        origin="a test",
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        context_tokens=1000,
        embeds=True,
    )


def _echo(question: Question) -> str:
    """Answers with the last turn, in capitals."""
    return asked(question).upper()


def asked(question: Question) -> str:
    """The last turn, or the text."""
    if isinstance(question.prompt, str):
        return question.prompt
    last = question.prompt[-1] if question.prompt else ""
    return last.content if isinstance(last, Message) else " ".join(map(str, question.prompt))


class ScriptedBackend:
    """Says one word a piece; ``phase`` and ``failure`` can be set at any time.

    Attributes:
        questions: All that were asked.
        cancelled: Those that were left early.
        failure: Raised instead of the next piece of every answer.
        pause_s: Before each piece.
    """

    def __init__(
        self,
        *names: str,
        name: str = "scripted",
        answer: Callable[[Question], str] = _echo,
        pause_s: float = 0.0,
        models: Mapping[str, ServedModel] | None = None,
    ) -> None:
        self.name = name
        self.pause_s = pause_s
        self.failure: ServeError | None = None
        self.questions: list[Question] = []
        self.cancelled: list[Question] = []
        self.closed = False
        self._answer = answer
        self._models = dict(models) if models is not None else {one: model_named(one) for one in names or ("demo",)}
        self._state = BackendState("ready")
        self._running = 0

    @property
    def state(self) -> BackendState:
        return self._state

    @state.setter
    def state(self, state: BackendState) -> None:
        self._state = state

    @property
    def models(self) -> Mapping[str, ServedModel]:
        return self._models

    @property
    def load(self) -> Load:
        return Load(running=self._running, memory_bytes=2**20)

    async def start(self) -> None:
        return None

    async def ask(self, question: Question) -> AsyncIterator[Piece | Ending]:
        self._check(question.model)
        self.questions.append(question)
        self._running += 1
        finished = False
        try:
            words = self._answer(question).split()
            cut = words[: question.max_new_tokens]
            for index, word in enumerate(cut):
                await asyncio.sleep(self.pause_s)
                if self.failure is not None:
                    finished = True
                    raise self.failure
                text = word if index == 0 else f" {word}"
                scores = () if question.logprobs is None else (_score(text, index, question.logprobs),)
                yield Piece(text, (index + 5,), scores)
            finished = True
            prompt_tokens = len(asked(question).split())
            yield Ending("stop" if len(cut) == len(words) else "length", Usage(prompt_tokens, len(cut)))
        finally:
            self._running -= 1
            if not finished:
                self.cancelled.append(question)

    async def embed(self, model: str, texts: Sequence[str | tuple[int, ...]]) -> list[Embedding]:
        self._check(model)
        return [Embedding((float(len(text)), 1.0), len(text)) for text in texts]

    async def load_adapter(self, name: str, source: str) -> ServedModel:
        model = replace_model(model_named(name), source)
        self._models[name] = model
        return model

    async def unload_adapter(self, name: str) -> None:
        if name not in self._models:
            raise ServeError(404, "model_not_found", f"no adapter '{name}' is loaded")
        del self._models[name]

    async def close(self) -> None:
        self.closed = True
        self._state = replace(self._state, phase="closed")

    def _check(self, model: str) -> None:
        if self._state.phase != "ready":
            raise ServeError.unavailable(f"{self.name} is {self._state.phase}", self._state.retry_after_s or 1.0)
        if self.failure is not None:
            raise self.failure
        if model not in self._models:
            raise ServeError(404, "model_not_found", f"no model '{model}'")


def replace_model(model: ServedModel, ref: str) -> ServedModel:
    """The same model under another reference."""
    return model.model_copy(update={"ref": ref})


def _score(text: str, index: int, top: int) -> TokenScore:
    likeliest = tuple(TokenScore(text, tuple(text.encode()), index + 5 + place, -0.1 - place) for place in range(top))
    return TokenScore(text, tuple(text.encode()), index + 5, -0.1, likeliest)
