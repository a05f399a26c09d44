"""Has every arm answer every example of a suite, and writes the answers of a batch as soon as it is done.

The arms take turns batch by batch, each as often first as last, so that a machine that slows down slows all of them,
and the batches are the same for all arms. A batch is written in one piece: an interrupted comparison goes on with the
first batch that is not on disk and ends with the rows that it would have had.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from whetstone.data.example import Example, Message
from whetstone.data.template import Template, prompt_hash
from whetstone.engine.api import Completion, Request, Sampling
from whetstone.errors import UserError
from whetstone.evaluate.executed import run_answers
from whetstone.evaluate.few_shot import with_shots
from whetstone.evaluate.sample import COPY_INPUT, Sample
from whetstone.files import read_jsonl, write_jsonl
from whetstone.judge_section import Generation
from whetstone.models.device import peak_memory_bytes, reset_peak_memory
from whetstone.section import stable_hash

__all__ = ["Generator", "Prompt", "collect", "copy_input", "render_prompts", "repeated", "request_of"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """An example as the model sees it; without token ids where a server renders the messages.

    Attributes:
        example: What is asked.
        token_ids: How.
        hash: Of the token ids.
        messages: What a server is asked: the example's own messages, perhaps after solved ones.
        repeat: Which of the questions about this example it is.
    """

    example: Example
    token_ids: tuple[int, ...]
    hash: str
    messages: tuple[Message, ...]
    repeat: int = 0


class Answers(Protocol):
    """An engine that can be asked as if it had never been asked before."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answers requests, in their order."""
        ...

    def forget(self) -> None:
        """Forgets what earlier requests have computed."""
        ...


@dataclass(frozen=True, slots=True)
class Generator:
    """An arm that generates.

    Attributes:
        arm: Its name.
        engine: What answers.
        adapter: Which of the engine's adapters; None asks the model itself.
        judgement: Fingerprint of the frozen judgement, written into every row.
        device: Where the weights are; None for a server's.
        prompts: The same examples as this arm is asked them: by its own template, its server, or after solved ones;
            None for the arms that are asked alike.
    """

    arm: str
    engine: Answers
    adapter: str | None
    judgement: str
    device: torch.device | None
    prompts: Sequence[Prompt] | None = None


def render_prompts(
    examples: Sequence[Example], template: Template | None, shots: Sequence[Example] = ()
) -> list[Prompt]:
    """Renders every example once, for all arms that are asked with this template; None leaves it to a server.

    Args:
        examples: What to ask.
        template: Renders messages.
        shots: Solved examples that stand before each question.
    """
    asked = [with_shots(example.messages, shots) if shots else example.messages for example in examples]
    if template is None:
        hashes = (stable_hash([message.as_dict() for message in messages]) for messages in asked)
        return [
            Prompt(example, (), f"messages:{said}", messages)
            for example, messages, said in zip(examples, asked, hashes, strict=True)
        ]
    rendered = map(tuple, template.prompt_ids_many(asked))
    return [
        Prompt(example, ids, prompt_hash(ids), messages)
        for example, messages, ids in zip(examples, asked, rendered, strict=True)
    ]


def repeated(prompts: Sequence[Prompt], times: int) -> list[Prompt]:
    """Every prompt so many times, one after the other."""
    return [replace(prompt, repeat=repeat) for prompt in prompts for repeat in range(times)]


def copy_input(prompts: Sequence[Prompt], judgement: str, folder: Path) -> None:
    """Writes the arm that answers with the input: what doing nothing would score."""
    executed = run_answers([prompt.example for prompt in prompts], [prompt.example.source for prompt in prompts])
    rows = [
        Sample(
            example=prompt.example.id,
            arm=COPY_INPUT,
            judgement=judgement,
            prompt_hash=prompt.hash,
            prompt_tokens=len(prompt.token_ids),
            text=prompt.example.source,
            token_ids=(),
            finish_reason="stop",
            repeat=prompt.repeat,
            measured=tests.measured,
        )
        for prompt, tests in zip(prompts, executed, strict=True)
    ]
    write_jsonl(folder / f"{COPY_INPUT}.jsonl", (row.as_row() for row in rows))


def collect(
    prompts: Sequence[Prompt],
    generators: Sequence[Generator],
    template: Template,
    generation: Generation,
    folder: Path,
    progress: Callable[[int, int], None],
    certain: Callable[[], bool] | None = None,
) -> None:
    """Generates the samples that are not on disk yet.

    Args:
        prompts: What to answer, in the order of the rows.
        generators: Who answers.
        template: Turns token ids into text.
        generation: How.
        folder: Where ``<arm>.jsonl`` grows.
        progress: Told how many samples of how many are done.
        certain: Asked from time to time, when all arms have answered as much, whether that decides; None answers all.
    """
    size = generation.batch_size
    looks = _looks(len(prompts), size) if certain is not None else frozenset()
    done = {generator.arm: _whole_batches(generator, folder, size, prompts) for generator in generators}
    total = len(prompts) * len(generators)
    progress(sum(done.values()), total)
    warm: set[str] = set()
    for batch, start in enumerate(range(0, len(prompts), size)):
        turn = batch % len(generators)
        for generator in (*generators[turn:], *generators[:turn]):
            if start < done[generator.arm]:
                continue
            part = (generator.prompts or prompts)[start : start + size]
            requests = [request_of(prompt, generator.arm, generator.adapter, generation) for prompt in part]
            if generator.arm not in warm:
                # The first pass pays for caches and thread pools; it is not part of any timing.
                generator.engine.generate([replace(request, max_new_tokens=2) for request in requests])
                warm.add(generator.arm)
            if generator.device is not None:
                reset_peak_memory(generator.device)
            samples = _answer(generator, part, requests, template, batch)
            _append(folder / f"{generator.arm}.jsonl", samples)
            done[generator.arm] += len(part)
            progress(sum(done.values()), total)
        if certain is not None and batch in looks and certain():
            return


def _looks(prompts: int, size: int) -> frozenset[int]:
    """After which batches to look: a dozen times in all, and not before a tenth is there."""
    batches = -(-prompts // size)
    return frozenset(max(1, round(batches * share)) - 1 for share in np.linspace(0.1, 1, 13)[:-1])


def request_of(prompt: Prompt, arm: str, adapter: str | None, generation: Generation) -> Request:
    """The request by which an arm is asked; the same whenever and wherever it is made.

    Args:
        prompt: What is asked.
        arm: Who is asked; it decides the random stream.
        adapter: What the engine calls the arm's adapter.
        generation: How.
    """
    stream = [generation.seed, arm, prompt.example.id, *([prompt.repeat] if prompt.repeat else [])]
    seed = int(stable_hash(stream), 16) % 2**63
    sampling = Sampling(generation.temperature, generation.top_p)
    return Request(
        prompt.token_ids,
        generation.max_new_tokens,
        sampling,
        seed,
        adapter,
        messages=prompt.messages,
    )


def _answer(
    generator: Generator, prompts: Sequence[Prompt], requests: Sequence[Request], template: Template, batch: int
) -> list[Sample]:
    # What an earlier arm has computed of the same prompts would make this one look fast.
    generator.engine.forget()
    completions = generator.engine.generate(requests)
    memory_bytes = None if generator.device is None else peak_memory_bytes(generator.device)
    began_s = min(completion.timing.queued_s for completion in completions)
    own = generator.prompts is not None
    texts = [one.text.strip() if own else template.decode(one.token_ids) for one in completions]
    executed = run_answers([prompt.example for prompt in prompts], texts)
    return [
        Sample(
            example=prompt.example.id,
            arm=generator.arm,
            judgement=generator.judgement,
            prompt_hash=prompt.hash,
            prompt_tokens=len(prompt.token_ids) or completion.usage.prompt_tokens,
            text=text,
            token_ids=completion.token_ids,
            finish_reason=_ended(completion, prompt, generator.arm),
            seed=request.seed if request.sampling.temperature > 0 else None,
            batch=batch,
            first_token_s=round(_first_s(completion) - began_s, 6),
            end_s=round(completion.timing.end_s - began_s, 6),
            memory_bytes=memory_bytes,
            counted_tokens=None if completion.token_ids else completion.usage.new_tokens or None,
            repeat=prompt.repeat,
            measured=tests.measured,
        )
        for prompt, request, completion, text, tests in zip(
            prompts, requests, completions, texts, executed, strict=True
        )
    ]


def _first_s(completion: Completion) -> float:
    """When the answer began: an empty one, of which a server shows no token, with its end."""
    first_s = completion.timing.first_token_s
    return completion.timing.end_s if first_s is None else first_s


def _ended(completion: Completion, prompt: Prompt, arm: str) -> Literal["stop", "length"]:
    if completion.finish_reason in ("stop", "length"):
        return completion.finish_reason
    why = completion.error or completion.finish_reason
    raise UserError(f"example '{prompt.example.id}': no answer of arm '{arm}' ({why})")


def _whole_batches(generator: Generator, folder: Path, size: int, prompts: Sequence[Prompt]) -> int:
    """How many samples of whole batches are on disk; what a killed writer left of the next one is cut off.

    Rows of another judgement are not counted: they are answers of other weights, or to another rule.
    """
    path = folder / f"{generator.arm}.jsonl"
    if not path.exists():
        return 0
    rows = read_jsonl(path)
    expected = [(prompt.example.id, prompt.repeat, generator.judgement) for prompt in prompts]
    whole = len(rows) if len(rows) == len(expected) else len(rows) // size * size
    if [(row.get("example"), row.get("repeat", 0), row.get("judgement")) for row in rows[:whole]] != expected[:whole]:
        whole = 0
    write_jsonl(path, rows[:whole])
    return whole


def _append(path: Path, samples: Sequence[Sample]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(map(_line, samples)))
        file.flush()
        os.fsync(file.fileno())


def _line(sample: Sample) -> str:
    return json.dumps(sample.as_row(), ensure_ascii=False) + "\n"
