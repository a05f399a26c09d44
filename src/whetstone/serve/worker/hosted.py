"""A model of this process: how questions to it become requests to its engine."""

from dataclasses import dataclass

from whetstone.data.example import Message
from whetstone.engine.api import Request
from whetstone.engine.open import Opened
from whetstone.engine.room import USUAL_NEW_TOKENS
from whetstone.engine.worker import Worker
from whetstone.errors import UserError
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Question
from whetstone.serve.served_model import ServedModel
from whetstone.serve.worker.prompts import Prompts
from whetstone.serve.worker.spelling import Speller

__all__ = ["Hosted"]

_ELSEWHERE = "{}: a server somewhere else answers for it, which needs no process here"
_TOO_LONG = "context_length_exceeded"


@dataclass(frozen=True, slots=True, eq=False)
class Hosted:
    """One name that this process answers to.

    Attributes:
        model: What is told of it.
        opened: What was opened.
        engine: What computes.
        prompts: Makes its prompts.
        speller: Says what its tokens say.
    """

    model: ServedModel
    opened: Opened
    engine: Worker
    prompts: Prompts
    speller: Speller

    @classmethod
    def of(cls, model: ServedModel, opened: Opened) -> "Hosted":
        """Hosts what was opened.

        Raises:
            UserError: A server of another program answers for it, which needs no process of ours.
        """
        if opened.template is None:
            raise UserError(_ELSEWHERE.format(model.ref))
        prompts = Prompts(opened.template, opened.context_tokens)
        return cls(model, opened, cls.engine_of(opened), prompts, Speller(opened.template.tokenizer))

    @staticmethod
    def engine_of(opened: Opened) -> Worker:
        """The engine of a model, which this process steps itself.

        Raises:
            UserError: It is not here.
        """
        if not isinstance(opened.engine, Worker):
            raise UserError(_ELSEWHERE.format(opened.provenance.ref))
        return opened.engine

    def request(self, question: Question, deadline_s: float | None) -> Request:
        """What the engine is asked.

        Args:
            question: Of a client.
            deadline_s: Of this process's monotonic clock.

        Raises:
            ServeError: 400, the question cannot be answered by this model.
        """
        token_ids = self.token_ids(question.prompt)
        request = Request(
            token_ids=token_ids,
            max_new_tokens=self._most_new_tokens(len(token_ids), question.max_new_tokens),
            sampling=question.sampling,
            seed=question.seed,
            adapter=self.opened.adapter,
            stop=question.stop,
            logprobs=question.logprobs,
            constraint=question.constraint,
            deadline_s=deadline_s,
        )
        try:
            self.engine.check(request)
        except UserError as error:
            raise ServeError.invalid(str(error)) from None
        return request

    def token_ids(self, prompt: tuple[Message, ...] | str | tuple[int, ...], *, new_tokens: int = 1) -> tuple[int, ...]:
        """The prompt as the model sees it.

        Args:
            prompt: Of a question, or a text to embed.
            new_tokens: How many there has to be room for after it.

        Raises:
            ServeError: 400, it is none, or too long.
        """
        field = "messages" if prompt and isinstance(prompt[0], Message) else "prompt"
        try:
            self.prompts.check_length(prompt)
        except UserError as error:
            raise ServeError.invalid(str(error), field, _TOO_LONG) from None
        try:
            token_ids = self.prompts.ids(prompt)
        except UserError as error:
            raise ServeError.invalid(str(error), field) from None
        if not token_ids:
            raise ServeError.invalid("a prompt without turns and without tokens; say something", field)
        context = self.model.context_tokens
        if context is not None and len(token_ids) + new_tokens > context:
            raise ServeError.invalid(
                f"the prompt of {len(token_ids):,} tokens fills the model's context of {context:,}; shorten it",
                field,
                _TOO_LONG,
            )
        return token_ids

    def _most_new_tokens(self, prompt_tokens: int, asked: int | None) -> int:
        """As many as are asked for; else as many as usual, or the fewer that the context leaves."""
        context = self.model.context_tokens
        if asked is None:
            usual = self.model.usual.max_new_tokens or USUAL_NEW_TOKENS
            return usual if context is None else min(usual, context - prompt_tokens)
        if context is not None and prompt_tokens + asked > context:
            raise ServeError.invalid(
                f"a prompt of {prompt_tokens:,} tokens and an answer of {asked:,} exceed the model's context of "
                f"{context:,}; ask for at most {context - prompt_tokens:,}",
                "max_tokens",
                _TOO_LONG,
            )
        return asked
