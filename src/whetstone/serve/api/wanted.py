"""What a request wants, before it is known who answers."""

from dataclasses import dataclass
from typing import Literal

from whetstone.data.example import Message
from whetstone.engine.api import Constraint, Sampling
from whetstone.serve.observe.observation import last_user_turn
from whetstone.serve.question import Question
from whetstone.serve.served_model import ServedModel

__all__ = ["Prompt", "Wanted", "last_asked", "turns_of"]

Prompt = tuple[Message, ...] | str | tuple[int, ...]

_SEEDS = 2**63


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for answers, in words of ours; what it leaves open is None.

    Attributes:
        endpoint: Where it was sent.
        model: Who is asked.
        prompts: What is asked; each has ``n`` answers.
        n: Answers to each prompt.
        seed: Of the first answer; the others have the numbers that follow it.
        streamed: Whether the answers go out in pieces.
        include_usage: Whether a stream ends with the usage.
        token_ids: Whether the ids of the tokens are told.
        max_new_tokens: Where an answer is cut off.
        temperature: Of the sampling, as are ``top_p`` to ``repetition_penalty``.
        top_p: See :class:`whetstone.engine.api.Sampling`.
        top_k: None for all tokens.
        min_p: See there.
        repetition_penalty: See there.
        stop: Strings that end an answer.
        logprobs: None for no logprobs, else how many of the likeliest tokens are told beside each one chosen.
        constraint: What the answers must be.
    """

    endpoint: Literal["chat", "completions"]
    model: str
    prompts: tuple[Prompt, ...]
    n: int = 1
    seed: int = 0
    streamed: bool = False
    include_usage: bool = False
    token_ids: bool = False
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    constraint: Constraint | None = None

    @property
    def answers(self) -> int:
        """How many are wanted."""
        return len(self.prompts) * self.n

    @property
    def asked(self) -> str:
        """The last user turn, or the text that is continued, of the first prompt."""
        return last_asked(self.prompts[0])

    def questions(self, model: ServedModel, system_prompt: str | None, deadline_s: float) -> list[Question]:
        """What a model is asked; what the request leaves open is as the model was judged.

        Args:
            model: Who answers.
            system_prompt: The system turn of conversations that bring none.
            deadline_s: How many seconds from now the answers are given up.
        """
        usual = model.usual
        sampling = Sampling(
            temperature=usual.temperature if self.temperature is None else self.temperature,
            top_p=usual.top_p if self.top_p is None else self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
        )
        return [
            Question(
                model=model.name,
                prompt=_with_system(prompt, system_prompt),
                max_new_tokens=self.max_new_tokens,
                sampling=sampling,
                seed=(self.seed + index * self.n + choice) % _SEEDS,
                stop=self.stop,
                logprobs=self.logprobs,
                constraint=self.constraint,
                deadline_s=deadline_s,
            )
            for index, prompt in enumerate(self.prompts)
            for choice in range(self.n)
        ]


def last_asked(prompt: Prompt) -> str:
    """The last user turn, or the text that is continued; empty for token ids."""
    if isinstance(prompt, str):
        return prompt
    return last_user_turn(turns_of(prompt))


def turns_of(prompt: Prompt) -> tuple[Message, ...]:
    """The conversation; none where a text or token ids are continued."""
    return () if isinstance(prompt, str) else tuple(turn for turn in prompt if isinstance(turn, Message))


def _with_system(prompt: Prompt, system_prompt: str | None) -> Prompt:
    if system_prompt is None or isinstance(prompt, str):
        return prompt
    turns = turns_of(prompt)
    if not turns or any(turn.role == "system" for turn in turns):
        return prompt
    return (Message("system", system_prompt), *turns)
