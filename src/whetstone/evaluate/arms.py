"""The arms of a comparison beside the usual ones: any model that has a name, opened, proved, and asked.

Notable: an arm is asked with its own template. That of a variant is the base's, and so are the token ids of its
prompts; another model has a tokenizer of its own, and a server renders the messages itself.
"""

import contextlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from whetstone.data.example import Example
from whetstone.engine.api import Completion, Engine, Request
from whetstone.engine.open import Opened, open_engines
from whetstone.engine.torch_engine import TorchEngine
from whetstone.errors import UserError
from whetstone.evaluate.collect import Generator, Prompt, render_prompts
from whetstone.experiment import Experiment
from whetstone.judge_section import ExtraArm
from whetstone.models.ref import ModelRef, RunModel, is_there, parse_ref
from whetstone.models.resolve import Resolver
from whetstone.run import ArmRecord, Run

__all__ = ["OpenedArm", "opened_arms"]

_MOST_AT_ONCE = 64
"""How many requests an engine that is opened by name answers at once."""

_PACKAGES = {"llama.cpp": ("llama-cpp-python",), "mlx": ("mlx", "mlx-lm")}


@dataclass(frozen=True, slots=True)
class _Unforgetting:
    """An engine that nobody can tell to forget: it keeps one request at most, or is somebody else's."""

    engine: Engine

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answers requests, in their order."""
        return self.engine.generate(requests)

    def forget(self) -> None:
        """Does nothing."""


@dataclass(frozen=True, slots=True)
class OpenedArm:
    """An arm that can be asked.

    Attributes:
        name: Of the arm.
        model: What answers.
    """

    name: str
    model: Opened

    def prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        """What it is asked: by its own template, or its server's."""
        return render_prompts(examples, self.model.template)

    def record(self) -> ArmRecord:
        """What the judgement says of it."""
        provenance = self.model.provenance
        nf4 = provenance.engine == "torch" and (provenance.quantisation or "").startswith("nf4")
        names = ("bitsandbytes",) if nf4 else _PACKAGES.get(provenance.engine, ())
        packages = {name: importlib.metadata.version(name) for name in names}
        return ArmRecord(name=self.name, **provenance.recorded(), packages=packages)

    def generator(self, judgement: str, device: torch.device, prompts: Sequence[Prompt]) -> Generator:
        """How it is asked.

        Args:
            judgement: Fingerprint of the frozen judgement.
            device: Where torch computes.
            prompts: What it is asked.
        """
        engine, adapter = self.model.engine, self.model.adapter
        if isinstance(engine, TorchEngine):
            return Generator(self.name, engine, adapter, judgement, device, prompts)
        # What torch has on a GPU says nothing of other engines; they are measured by the process's own memory.
        elsewhere = None if self.model.template is None else torch.device("cpu")
        return Generator(self.name, _Unforgetting(engine), adapter, judgement, elsewhere, prompts)


@contextlib.contextmanager
def opened_arms(run: Run, experiment: Experiment, candidate: Path | None) -> Iterator[list[OpenedArm]]:
    """Opens the arms beside the usual ones, in their order, and closes them in the end; those of torch share weights.

    Args:
        run: What arms may be variants of; the caller holds its lock, under which merged weights are made.
        experiment: Says which arms.
        candidate: What is judged instead of the run's own weights.

    Raises:
        UserError: A model has no such name, is not there, is not what its run recorded, or cannot be opened.
    """
    arms, size = experiment.judge.arms, experiment.judge.generation.batch_size
    if arms and size > _MOST_AT_ONCE:
        raise UserError(
            f"judge.generation.batch_size: {size}: judge.arms are asked at most {_MOST_AT_ONCE} at once; lower it"
        )
    models = [_parsed(run, arm, f"judge.arms.{index}.model", candidate) for index, arm in enumerate(arms)]
    for model in models:
        if isinstance(model, RunModel) and (model.name, model.part) == (run.name, "merged"):
            # Made now, because to open it would have to wait for the lock.
            Resolver(run.path.parent, held=run.name).resolve(model)
    with contextlib.ExitStack() as closing:
        opened = open_engines(list(map(str, models)), runs=run.path.parent, device=experiment.model.device)
        for one in opened:
            closing.callback(one.close)
        yield [OpenedArm(arm.name, one) for arm, one in zip(arms, opened, strict=True)]


def _parsed(run: Run, arm: ExtraArm, key: str, candidate: Path | None) -> ModelRef:
    named = arm.model
    if arm.own is not None:
        part, precision = arm.own
        if part != "base" and candidate is not None:
            raise UserError(
                f"{key}: '{arm.model}' is of the run's own weights, and --candidate judges others; leave one out"
            )
        named = f"run:{run.name}{'' if part == 'tuned' else '#' + part}{precision}"
    try:
        return parse_ref(named, is_there)
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
