"""A conversation with one model: what was said, what is asked next, and what came of each question.

The history is told to the model as it was shown: a cancelled answer stays as far as it came. An answer that says
nothing (cancelled at once, failed) is not told again, since chat templates want the roles to alternate.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whetstone.data.example import Message
from whetstone.engine.api import Completion, FinishReason, Request, Sampling, Timing, Usage
from whetstone.engine.room import room_for
from whetstone.errors import UserError
from whetstone.section import stable_hash

if TYPE_CHECKING:
    from whetstone.engine.open import Opened

__all__ = ["Answering", "Conversation", "Turn", "ask_all"]

Tell = Callable[[str], None]
"""Told the pieces of an answer's text."""


@dataclass(frozen=True, slots=True)
class Answering:
    """How questions of a conversation are answered.

    Attributes:
        sampling: How tokens are chosen.
        max_new_tokens: Where an answer is cut off, if the context does not end before.
        seed: Of the whole conversation; every question has a stream of its own.
    """

    sampling: Sampling
    max_new_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer.

    Attributes:
        question: What was asked.
        completion: The answer; a cancelled one as far as it came.
        seed: Of the answer's random stream.
        fills_context: The answer could not have become longer, because the context ends there.
    """

    question: str
    completion: Completion
    seed: int
    fills_context: bool

    @property
    def first_token_s(self) -> float | None:
        """Seconds from the question to the first token."""
        timing = self.completion.timing
        return None if timing.first_token_s is None else timing.first_token_s - timing.queued_s

    @property
    def tokens_per_s(self) -> float | None:
        """New tokens a second after the first; None for fewer than two, which have no pace."""
        times = self.completion.timing.token_s
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else None


class Conversation:
    """Asks one model, and remembers.

    Attributes:
        system: The system turn of the questions to come; None for none.
    """

    def __init__(self, opened: "Opened", answering: Answering, system: str | None = None) -> None:
        """Begins without a history.

        Args:
            opened: The model.
            answering: How it answers.
            system: The system turn.
        """
        self.system = system
        self._opened = opened
        self._answering = answering
        self._turns: list[Turn] = []
        self._asked = 0

    @property
    def turns(self) -> Sequence[Turn]:
        """What was said so far, in order."""
        return tuple(self._turns)

    def messages(self, question: str) -> list[Message]:
        """What the model is told when it is asked this now."""
        front = [] if self.system is None else [Message("system", self.system)]
        return [*front, *_history(self._turns), Message("user", question)]

    def request(self, question: str) -> Request:
        """The request that asks this now.

        Raises:
            UserError: The context is full, or the template does not take the conversation.
        """
        answering, opened, messages = self._answering, self._opened, self.messages(question)
        seed = int(stable_hash([answering.seed, self._asked]), 16) % 2**63
        request = opened.request(messages, max_new_tokens=1, sampling=answering.sampling, seed=seed)
        room = room_for(len(request.token_ids), answering.max_new_tokens, opened.context_tokens)
        return opened.request(messages, max_new_tokens=room, sampling=answering.sampling, seed=seed)

    async def ask(self, question: str, tell: Tell) -> Turn:
        """Asks, and remembers question and answer. To cancel this ends the answer, which then is what was said so far.

        Raises:
            UserError: It cannot be asked; the history is as it was.
        """
        request = self.request(question)
        self._asked += 1
        heard = _Heard(request)
        try:
            async for piece in self._opened.engine.stream(request):
                heard.add(piece.text, piece.token_id)
                tell(piece.text)
                if piece.completion is not None:
                    return self._remember(question, request, piece.completion)
            raise UserError("the engine ended an answer without saying why; ask again")
        except asyncio.CancelledError:
            return self._remember(question, request, heard.completion("cancelled"))

    def undo(self) -> Turn | None:
        """Forgets the last question and its answer, and gives them; None where there is none."""
        return self._turns.pop() if self._turns else None

    def restore(self, turn: Turn) -> None:
        """Takes back what :meth:`undo` gave."""
        self._turns.append(turn)

    def reset(self) -> None:
        """Forgets what was said; the system turn stays."""
        self._turns.clear()

    def example(self) -> dict[str, Any]:
        """The conversation as a row to train on, in the format ``messages``: the last answer is the one to learn.

        Raises:
            UserError: There is no answer, or it is not whole.
        """
        if not self._turns:
            raise UserError("nothing was answered yet; ask something first")
        last = self._turns[-1]
        if last.completion.finish_reason != "stop" or not last.completion.text.strip():
            raise UserError("the last answer is not whole, and would teach to stop there; /retry asks again")
        front = [] if self.system is None else [Message("system", self.system)]
        turns = [*front, *_history(self._turns[:-1]), Message("user", last.question)]
        turns.append(Message("assistant", last.completion.text.strip()))
        return {"messages": [turn.as_dict() for turn in turns]}

    def _remember(self, question: str, request: Request, completion: Completion) -> Turn:
        fills = request.max_new_tokens < self._answering.max_new_tokens and completion.finish_reason == "length"
        turn = Turn(question, completion, request.seed, fills)
        self._turns.append(turn)
        return turn


async def ask_all(conversations: Sequence[Conversation], question: str, tells: Sequence[Tell]) -> bool:
    """Asks several at once; to cancel this ends all answers where they are.

    Args:
        conversations: Who is asked.
        question: What.
        tells: Told the pieces of each one's answer.

    Returns:
        Whether it was cancelled.

    Raises:
        UserError: One of them cannot be asked; the histories of all are as they were.
    """
    before = [len(conversation.turns) for conversation in conversations]
    for conversation in conversations:
        conversation.request(question)
    asking = [
        asyncio.ensure_future(conversation.ask(question, tell))
        for conversation, tell in zip(conversations, tells, strict=True)
    ]
    try:
        await asyncio.gather(*asking)
    except asyncio.CancelledError:
        return True
    except BaseException:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        for conversation, count in zip(conversations, before, strict=True):
            if len(conversation.turns) > count:
                conversation.undo()
        raise
    return False


class _Heard:
    """What came of an answer so far."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._queued_s = time.monotonic()
        self._texts: list[str] = []
        self._token_ids: list[int] = []
        self._token_s: list[float] = []

    def add(self, text: str, token_id: int | None) -> None:
        self._texts.append(text)
        if token_id is not None:
            self._token_ids.append(token_id)
            self._token_s.append(time.monotonic())

    def completion(self, reason: FinishReason) -> Completion:
        return Completion(
            token_ids=tuple(self._token_ids),
            text="".join(self._texts),
            finish_reason=reason,
            timing=Timing(self._queued_s, tuple(self._token_s), time.monotonic()),
            usage=Usage(len(self._request.token_ids), len(self._token_ids)),
        )


def _history(turns: Sequence[Turn]) -> list[Message]:
    return [
        message
        for turn in turns
        if turn.completion.text.strip()
        for message in (Message("user", turn.question), Message("assistant", turn.completion.text))
    ]
