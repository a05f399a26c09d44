"""Freezes the rule, then has the arms of a run answer the held-out examples."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel

from whetstone.data.example import Example
from whetstone.data.load import load_splits
from whetstone.engine.torch_engine import TorchEngine
from whetstone.errors import UserError
from whetstone.evaluate.collect import Generator, Prompt, collect, copy_input, render_prompts
from whetstone.evaluate.sample import BASE, BASE_AGAIN, TUNED, Arm
from whetstone.experiment import Experiment, stable_hash
from whetstone.files import write_atomic
from whetstone.models.adapter import load_adapter
from whetstone.models.fingerprint import digest_weights, record_weights
from whetstone.models.load import LanguageModel, load_model
from whetstone.run import DataRecord, Judgement, Manifest, Run, now
from whetstone.train.tune import base_folder, load_base

__all__ = ["judge"]


def judge(
    run: Run, experiment: Experiment, candidate: Path | None, *, fresh: bool, progress: Callable[[int, int], None]
) -> None:
    """Generates the samples of all arms into the run; what is there already is kept.

    Args:
        run: Begun, and tuned unless a candidate is given; the caller holds its lock.
        experiment: The same experiment, perhaps with a new judge section.
        candidate: A folder with an adapter or a model to judge as the tuned arm, instead of the run's own weights.
        fresh: Throw away the samples and the frozen rule of an earlier comparison.
        progress: Told how many samples of how many are done.

    Raises:
        UserError: Nothing is tuned, or the data, weights or rule are not those that the run recorded.
    """
    manifest = run.manifest()
    splits = load_splits(experiment.data)
    if manifest.data is not None and manifest.data.hashes != splits.hashes():
        raise UserError(f"{run.path}: the data changed since tuning; restore it, or tune again with --fresh")
    examples = splits.test[: experiment.judge.max_examples]
    folder = candidate or _tuned_folder(run, manifest)
    base = load_base(run, experiment, splits)
    tuned = _load_tuned(base, folder, experiment)
    prompts = render_prompts(examples, base.template)
    _check_context(prompts, base.model, experiment)
    if manifest.base is None:
        origin = experiment.model.base or "scratch"
        data = DataRecord(counts=splits.counts(), hashes=splits.hashes())
        manifest = run.update(base=record_weights(origin, base.folder, base.model), data=data)
    if manifest.base is not None and manifest.base.sha256 != digest_weights(base_folder(run, experiment)):
        raise UserError(f"{base.folder}: the base weights changed since the run began; restore them or use --fresh")
    _freeze(run, experiment, examples, (folder, tuned), fresh=fresh)
    copy_input(prompts, run.samples)
    collect(prompts, _generators(base, tuned), base.template, experiment.judge.generation, run.samples, progress)


def _tuned_folder(run: Run, manifest: Manifest) -> Path:
    if manifest.tuning is None:
        raise UserError(f"{run.path}: not tuned yet; call 'whet tune' first, or name weights with --candidate")
    folder = run.weights("adapter" if manifest.experiment.tune.method == "lora" else "model")
    if digest_weights(folder) != manifest.tuning.tuned.sha256:
        raise UserError(f"{folder}: the weights are not those that were tuned; restore them or tune again with --fresh")
    return folder


def _load_tuned(base: LanguageModel, folder: Path, experiment: Experiment) -> PreTrainedModel | PeftModel:
    """The tuned arm's model; an adapter shares the base's weights."""
    if folder == base.folder:
        return base.model
    if (folder / "adapter_config.json").exists():
        return load_adapter(base.model, folder)
    section = experiment.model
    return load_model(folder, template="auto", dtype=section.dtype, device=base.model.device).model


def _check_context(prompts: Sequence[Prompt], model: PreTrainedModel, experiment: Experiment) -> None:
    context_tokens = int(getattr(model.config, "max_position_embeddings", 2**31))
    new_tokens = experiment.judge.generation.max_new_tokens
    for prompt in prompts:
        if len(prompt.token_ids) + new_tokens > context_tokens:
            raise UserError(
                f"example '{prompt.example.id}': a prompt of {len(prompt.token_ids)} tokens and "
                f"judge.generation.max_new_tokens ({new_tokens}) exceed the context of {context_tokens}; lower it"
            )


def _freeze(
    run: Run,
    experiment: Experiment,
    examples: Sequence[Example],
    candidate: tuple[Path, PreTrainedModel | PeftModel],
    *,
    fresh: bool,
) -> None:
    """Writes rule, data and candidate into the manifest before anything is generated, or finds them unchanged."""
    folder, model = candidate
    data_hash = stable_hash([example.as_row() for example in examples])
    judgement = Judgement(
        rule_hash=experiment.judge.fingerprint(),
        frozen_at=now(),
        candidate=record_weights(str(folder), folder, model),
        data_hash=data_hash,
        device=str(model.device),
    )
    frozen = run.manifest().judgement
    if frozen is not None and not fresh:
        for name in ("rule_hash", "data_hash", "candidate", "device"):
            if getattr(frozen, name) != getattr(judgement, name):
                raise UserError(
                    f"{run.path}: {name} differs from what was frozen at {frozen.frozen_at}, before the samples were "
                    "generated; --fresh judges anew, from the first sample"
                )
        return
    # The record goes first: a rule without samples would be taken for a finished freeze.
    run.update(judgement=None)
    shutil.rmtree(run.samples, ignore_errors=True)
    shutil.rmtree(run.report, ignore_errors=True)
    rows = "".join(json.dumps(example.as_row(), ensure_ascii=False) + "\n" for example in examples)
    write_atomic(run.samples / "examples.jsonl", rows)
    run.update(experiment=experiment, experiment_hash=experiment.fingerprint(), judgement=judgement)


def _generators(base: LanguageModel, tuned: PreTrainedModel | PeftModel) -> list[Generator]:
    stop_ids = frozenset({base.template.end_of_turn_id, *_end_ids(base.model)})

    def generator(arm: Arm, model: PreTrainedModel | PeftModel, *, adapted: bool) -> Generator:
        @contextlib.contextmanager
        def weights() -> Iterator[None]:
            with model.disable_adapter() if isinstance(model, PeftModel) and not adapted else contextlib.nullcontext():
                yield

        engine = TorchEngine(model, stop_ids, base.template.tokenizer.pad_token_id or 0)
        return Generator(arm, engine, weights, model.device)

    # PEFT puts the adapter into the base model itself, so only through its wrapper is the base free of it.
    plain = tuned if isinstance(tuned, PeftModel) else base.model
    return [
        generator(BASE, plain, adapted=False),
        generator(BASE_AGAIN, plain, adapted=False),
        generator(TUNED, tuned, adapted=True),
    ]


def _end_ids(model: PreTrainedModel) -> list[int]:
    """The tokens that the model's own generation settings end with."""
    ids = model.generation_config.eos_token_id
    if ids is None:
        return []
    return list(ids) if isinstance(ids, list) else [int(ids)]
