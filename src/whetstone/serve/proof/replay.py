"""Asks a model some of its judged questions again, just as they were asked then, and compares token by token.

Hashes prove which weights were read. That they are computed with as they were judged (template, tokenizer, adapter,
precision, libraries, the engine itself) is proved by nothing but answers, and answers are on disk.

Notable: the batches are those of the judgement, because rounding depends on what is computed together, above all in
bfloat16. Another machine may therefore answer otherwise with the same weights; what is recorded of both is compared, so
that whoever reads the refusal knows where to look.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from whetstone.data.example import Example
from whetstone.engine.open import Opened
from whetstone.engine.torch_engine import TorchEngine
from whetstone.evaluate.collect import Prompt, render_prompts, repeated, request_of
from whetstone.evaluate.evidence import EXAMPLES
from whetstone.evaluate.sample import Sample
from whetstone.judge_section import Generation
from whetstone.line_file import LineFile
from whetstone.run import Hardware, Judgement, Manifest, Run, installed_packages
from whetstone.serve.proof.arm import Arm

__all__ = ["Replay", "batches", "replay"]

_FEWEST, _MOST = 8, 64
"""How many answers are asked again, at least where there are so many, and at most."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of it.

    Attributes:
        asked: How many answers were asked again.
        equal: How many of them are the same: prompt, tokens and text.
        first: The first example whose answer is another one.
        rendered_otherwise: How many prompts had other tokens.
        causes: What differs from the judgement, as far as that is recorded.
    """

    asked: int
    equal: int
    first: str | None = None
    rendered_otherwise: int = 0
    causes: tuple[str, ...] = ()

    @property
    def refusal(self) -> str | None:
        """Why the model may not be served; None where all answers are the same."""
        if self.asked == 0:
            return "no judged answers are there to compare with"
        if self.equal == self.asked:
            return None
        said = [f"{self.asked - self.equal} of {self.asked} judged answers come out otherwise, '{self.first}' first"]
        if self.rendered_otherwise:
            said.append(f"{self.rendered_otherwise} prompts have other tokens: template or tokenizer changed")
        said += self.causes or ["nothing else that is recorded differs"]
        return "; ".join(said)


def replay(run: Run, manifest: Manifest, arm: Arm, opened: Opened, device: str | None) -> Replay:
    """Asks the first judged questions again.

    Args:
        run: Judged.
        manifest: Of the run.
        arm: Whose answers they have to be.
        opened: Who is asked.
        device: Where it computes, as torch names it; None where its engine decides.

    Raises:
        UserError: A row is damaged, or the model cannot be asked at all.
    """
    generation = manifest.experiment.judge.generation
    rows = list(_rows(run, arm, generation))
    prompts = _prompts(run, opened, generation, len(rows))
    same: list[bool] = []
    for start, stop in batches(len(rows), generation.batch_size):
        same += _ask_again(opened, arm, generation, prompts[start:stop], rows[start:stop])
    if all(same):
        return Replay(len(rows), len(rows))
    return Replay(
        asked=len(rows),
        equal=sum(same),
        first=rows[same.index(False)].example,
        rendered_otherwise=sum(prompt.hash != row.prompt_hash for prompt, row in zip(prompts, rows, strict=True)),
        causes=tuple(_causes(manifest, opened, device)),
    )


def batches(rows: int, size: int) -> list[tuple[int, int]]:
    """Which rows are asked together: whole batches of the judgement, as many as it takes, or a part of a huge one.

    Args:
        rows: How many there are.
        size: Of the batches of the judgement.

    Returns:
        Where each begins and ends.
    """
    size = min(size, _MOST)
    taken = min(rows, -(-_FEWEST // size) * size)
    return [(start, min(start + size, taken)) for start in range(0, taken, size)]


def _rows(run: Run, arm: Arm, generation: Generation) -> Iterator[Sample]:
    path = run.samples / f"{arm}.jsonl"
    if path.exists():
        file = LineFile.open(path)
        ends = [stop for _, stop in batches(len(file), generation.batch_size)]
        yield from map(Sample.from_row, file.rows(0, max(ends, default=0)))


def _prompts(run: Run, opened: Opened, generation: Generation, count: int) -> list[Prompt]:
    """The questions as this model is asked them, by its own template."""
    if count == 0:
        return []
    file = LineFile.open(run.samples / EXAMPLES)
    examples = map(Example.from_row, file.rows(0, min(len(file), count)))
    needed = list(islice(examples, -(-count // generation.repeats)))
    return repeated(render_prompts(needed, opened.template), generation.repeats)[:count]


def _ask_again(
    opened: Opened, arm: Arm, generation: Generation, prompts: list[Prompt], rows: list[Sample]
) -> list[bool]:
    if isinstance(opened.engine, TorchEngine):
        opened.engine.forget()
    completions = opened.engine.generate([request_of(one, arm, opened.adapter, generation) for one in prompts])
    return [
        (row.example, row.repeat) == (prompt.example.id, prompt.repeat)
        and row.prompt_hash == prompt.hash
        and row.token_ids == completion.token_ids
        and (opened.template is None or row.text == opened.template.decode(completion.token_ids))
        for row, prompt, completion in zip(rows, prompts, completions, strict=True)
    ]


def _causes(manifest: Manifest, opened: Opened, device: str | None) -> Iterator[str]:
    """What is not as it was when the answers were judged."""
    judgement, experiment, here = manifest.judgement, manifest.experiment, opened.provenance
    if judgement is None:
        return
    on_nf4 = "bitsandbytes" in judgement.packages and opened.adapter is not None
    held = here.dtype if here.quantisation is None else f"{here.quantisation} and {here.dtype}"
    if here.engine != "torch":
        yield f"{here.engine} computes, judged was torch"
    elif not on_nf4 and (here.quantisation is not None or here.dtype != experiment.model.dtype):
        yield f"the weights are {held}, judged were {experiment.model.dtype}"
    if "#merged" in here.ref:
        yield "the adapter is merged into the base, judged was an adapter beside it"
    yield from _other_packages(judgement)
    if device is not None and device.partition(":")[0] != judgement.device.partition(":")[0]:
        yield f"computed on {device}, judged on {judgement.device}"
    elif device == "cpu" and manifest.hardware.processor != Hardware.here().processor:
        yield f"computed on {Hardware.here().processor}, the run was made on {manifest.hardware.processor}"
    if experiment.judge.generation.batch_size > _MOST:
        yield f"asked {_MOST} at once, judged in batches of {experiment.judge.generation.batch_size}"


def _other_packages(judgement: Judgement) -> Iterator[str]:
    here = installed_packages()
    for name, version in judgement.packages.items():
        if name in here and here[name] != version:
            yield f"{name} is {here[name]}, judged with {version}"
