"""Answers a list of prompts into a file: many at once, each as soon as there is a place for it.

Seeds follow from the seed of the call, the id of the prompt and the number of the sample, so neither the order of the
rows nor an interruption changes what is drawn. (Floating-point sums depend on what is computed beside a row, in the
last bits, and so may, rarely, a token.)
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from whetstone.data.prompts import Prompt
from whetstone.engine.answer_file import AnswerFile, Key
from whetstone.engine.api import Completion, Constraint, Request, Sampling
from whetstone.engine.room import USUAL_NEW_TOKENS, room_for
from whetstone.errors import UserError
from whetstone.section import stable_hash

if TYPE_CHECKING:
    from whetstone.engine.open import Opened

__all__ = ["Job", "Settings", "answer_all", "plan"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What every answer of a call depends on, beside its prompt and the model.

    Attributes:
        max_new_tokens: Where answers are cut off; None for 512, or the fewer that the context leaves.
        sampling: How tokens are chosen.
        samples: How many answers each prompt gets.
        seed: Of all random streams.
        stop: Strings that end an answer.
        logprobs: How many other tokens are told beside each one; None for no logprobs.
        constraint: What the answers must be.
        system: The system turn of rows without one.
    """

    max_new_tokens: int | None
    sampling: Sampling
    samples: int
    seed: int
    stop: tuple[str, ...]
    logprobs: int | None
    constraint: Constraint | None
    system: str | None

    def as_json(self) -> dict[str, Any]:
        """One level of JSON, with lists as JSON reads them back."""
        settings = asdict(self)
        sampling = settings.pop("sampling")
        return {**settings, **sampling, "stop": list(self.stop)}


@dataclass(frozen=True, slots=True)
class Job:
    """One answer to be made."""

    key: Key
    request: Request


def plan(prompts: Sequence[Prompt], opened: "Opened", settings: Settings) -> list[Job]:
    """Renders all prompts and checks that they fit, so that nothing is found out in the middle.

    Raises:
        UserError: One of them cannot be asked; its place is named.
    """
    jobs = []
    for prompt in prompts:
        try:
            room = _room(prompt, opened, settings)
            for sample in range(settings.samples):
                jobs.append(Job((prompt.id, sample), _request(prompt, sample, room, opened, settings)))
        except UserError as error:
            raise UserError(f"{prompt.where}: {error}") from None
    return jobs


def answer_all(
    jobs: Sequence[Job], opened: "Opened", file: AnswerFile, batch: int, progress: Callable[[Completion], None]
) -> None:
    """Has the engine answer what is not in the file yet; each answer is written when it is there.

    Args:
        jobs: All of them.
        opened: Who answers.
        file: Where to.
        batch: How many the engine has at once.
        progress: Told every answer that came.
    """
    marks: dict[str, Any] = {"provenance": stable_hash(opened.provenance.recorded())}
    if opened.provenance.random_weights:
        marks["random_weights"] = True
    waiting = iter([job for job in jobs if job.key not in file.done])

    async def take_turns(waiting: Iterator[Job]) -> None:
        # All lanes draw from one iterator: a lane that is free takes the next job.
        for job in waiting:
            completion = await _answer(job, opened)
            file.add({**_row(job, completion), **marks})
            progress(completion)

    async def run() -> None:
        await asyncio.gather(*(take_turns(waiting) for _ in range(min(batch, len(jobs)))))

    asyncio.run(run())


async def _answer(job: Job, opened: "Opened") -> Completion:
    try:
        async for piece in opened.engine.stream(job.request):
            if piece.completion is not None:
                return piece.completion
    except UserError as error:
        raise UserError(f"the prompt '{job.key[0]}': {error}") from None
    raise UserError(f"the engine ended the answer to '{job.key[0]}' without saying why; call the command again")


def _room(prompt: Prompt, opened: "Opened", settings: Settings) -> int:
    """How long the answers to a prompt may become; a length that was asked for is never lowered."""
    asked = prompt.max_new_tokens or settings.max_new_tokens
    prompt_tokens = len(opened.request(prompt.messages, max_new_tokens=1).token_ids)
    room = room_for(prompt_tokens, asked or USUAL_NEW_TOKENS, opened.context_tokens)
    if asked is not None and room < asked:
        raise UserError(
            f"a prompt of {prompt_tokens:,} tokens and an answer of {asked:,} exceed the model's context of "
            f"{opened.context_tokens:,}; lower max_new_tokens or shorten the prompt"
        )
    return room


def _request(prompt: Prompt, sample: int, room: int, opened: "Opened", settings: Settings) -> Request:
    return opened.request(
        prompt.messages,
        max_new_tokens=room,
        sampling=settings.sampling,
        seed=int(stable_hash([settings.seed, prompt.id, sample]), 16) % 2**63,
        stop=settings.stop,
        logprobs=settings.logprobs,
        constraint=settings.constraint,
    )


def _row(job: Job, completion: Completion) -> dict[str, Any]:
    timing = completion.timing
    first_token_s = None if timing.first_token_s is None else round(timing.first_token_s - timing.queued_s, 6)
    prompt_id, sample = job.key
    row: dict[str, Any] = {
        "id": prompt_id,
        "sample": sample,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        **asdict(completion.usage),
        "first_token_s": first_token_s,
        "duration_s": round(timing.end_s - timing.queued_s, 6),
        "seed": job.request.seed if job.request.sampling.temperature > 0 else None,
    }
    if completion.error is not None:
        row["error"] = completion.error
    if completion.logprobs is not None:
        row["logprobs"] = [asdict(logprob) for logprob in completion.logprobs]
    return row
