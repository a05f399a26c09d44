"""Freezes the rule, then has the arms of a run answer the held-out examples.

Notable: what QLoRA tuned is an adapter on a base in NF4, and is judged as that. Its base arms are the whole base: one
that quantisation had damaged first would be easier to beat.
"""

import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from whetstone.data.example import Example
from whetstone.data.load import load_splits
from whetstone.engine.torch_engine import TorchEngine
from whetstone.errors import UserError
from whetstone.evaluate.arms import opened_arms
from whetstone.evaluate.collect import Generator, Prompt, collect, copy_input, render_prompts
from whetstone.evaluate.sample import BASE, BASE_AGAIN, TUNED
from whetstone.experiment import Experiment
from whetstone.files import write_jsonl
from whetstone.models.fingerprint import digest_weights, record_weights
from whetstone.models.load import LanguageModel, context_tokens, end_ids, load_weights
from whetstone.models.quantise import nf4
from whetstone.run import DataRecord, Judgement, Manifest, Run, SettingsRecord, WeightsRecord, installed_packages, now
from whetstone.section import stable_hash
from whetstone.train.tune import load_base

__all__ = ["judge"]

_ADAPTER = "tuned"


def judge(
    run: Run, experiment: Experiment, candidate: Path | None, *, fresh: bool, progress: Callable[[int, int], None]
) -> None:
    """Generates the samples of all arms into the run; what is there already is kept.

    Args:
        run: Begun, and tuned unless a candidate is given; the caller holds its lock.
        experiment: The same experiment, perhaps with a new judge section.
        candidate: A folder with an adapter or a model to judge as the tuned arm, instead of the run's own weights. An
            adapter that is named so is put on the whole base, also in a run of QLoRA.
        fresh: Throw away the samples and the frozen rule of an earlier comparison.
        progress: Told how many samples of how many are done.

    Raises:
        UserError: Nothing is tuned, or the data, weights or rule are not those that the run recorded.
    """
    manifest = run.manifest()
    splits = load_splits(experiment.data)
    if manifest.data is not None and manifest.data.hashes != splits.hashes():
        raise UserError(f"{run.path}: the data changed since tuning; restore it, or call 'whet tune' with --fresh")
    examples = splits.test[: experiment.judge.max_examples]
    _refuse_plain_text(examples)
    folder = candidate or _tuned_folder(run, manifest)
    digest_weights(folder)
    base = load_base(run, experiment, splits)
    if manifest.base is not None and manifest.base.sha256 != digest_weights(base.folder):
        raise UserError(f"{base.folder}: the base weights changed since the run began; restore them, or tune --fresh")
    if candidate is None and manifest.tuning is not None and manifest.tuning.template_hash != base.template.hash:
        raise UserError(
            f"{run.path}: the chat template changed since tuning; restore it, or call 'whet tune' with --fresh"
        )
    base_record = manifest.base or record_weights(experiment.model.base or "scratch", base.folder, base.model)
    quantised = _quantised(manifest) if candidate is None else None
    prompts = render_prompts(examples, base.template)
    _check_context(prompts, context_tokens(base.model.config), experiment)
    tuned, adapters = _load_tuned(base, folder, experiment, quantised)
    asked = _open(tuned, base, adapters, experiment)
    with opened_arms(run, experiment, examples, candidate) as extra:
        for arm in extra:
            if arm.model.context_tokens is not None:
                _check_context(arm.prompts, arm.model.context_tokens, experiment)
        if manifest.base is None:
            run.update(base=base_record, data=DataRecord(counts=splits.counts(), hashes=splits.hashes()))
        judgement = Judgement(
            frozen_at=now(),
            rule_hash=experiment.judge.fingerprint(),
            data_hash=stable_hash([example.as_row() for example in examples]),
            prompts_hash=stable_hash([prompt.hash for prompt in prompts]),
            base_sha256=base_record.sha256,
            candidate=_record_candidate(folder, tuned, experiment, quantised),
            device=str(tuned.device),
            packages=_packages(quantised),
            arms=tuple(arm.record() for arm in extra),
        )
        _freeze(run, experiment, examples, judgement, fresh=fresh)
        fingerprint = judgement.fingerprint()
        copy_input(prompts, fingerprint, run.samples)
        plain = asked if tuned is base.model else _open(base.model, base, {}, experiment)
        generators = [
            Generator(BASE, plain, None, fingerprint, base.model.device),
            Generator(BASE_AGAIN, plain, None, fingerprint, base.model.device),
            Generator(TUNED, asked, _ADAPTER if adapters else None, fingerprint, tuned.device),
            *(arm.generator(fingerprint, tuned.device) for arm in extra),
        ]
        collect(prompts, generators, base.template, experiment.judge.generation, run.samples, progress)


def _refuse_plain_text(examples: Sequence[Example]) -> None:
    if any(not example.messages for example in examples):
        raise UserError(
            "data.source: the test part is plain text, which asks nothing that could be answered; give test rows with "
            "prompts: source: {train: ..., test: ...}"
        )


def _tuned_folder(run: Run, manifest: Manifest) -> Path:
    if manifest.tuning is None:
        raise UserError(f"{run.path}: not tuned yet; call 'whet tune' first, or name weights with --candidate")
    folder = run.weights("adapter" if manifest.experiment.tune.adapts else "model")
    if digest_weights(folder) != manifest.tuning.tuned.sha256:
        raise UserError(f"{folder}: the weights are not those that were tuned; restore them or tune again with --fresh")
    return folder


def _quantised(manifest: Manifest) -> SettingsRecord | None:
    """What the run's adapter was trained with, where its base was in NF4."""
    settings = manifest.settings
    return settings if settings is not None and settings.quantised else None


def _load_tuned(
    base: LanguageModel, folder: Path, experiment: Experiment, quantised: SettingsRecord | None
) -> tuple[PreTrainedModel, dict[str, Path]]:
    """The model of the tuned arm, and the adapter that goes on it where there is one.

    An adapter shares the base's weights, unless it was trained on quantised ones.
    """
    if folder == base.folder:
        return base.model, {}
    if (folder / "adapter_config.json").exists():
        under = base.model if quantised is None else _load_quantised(base, experiment, quantised)
        return under, {_ADAPTER: folder}
    tuned = load_weights(folder, dtype=experiment.model.dtype, device=base.model.device)
    ours, theirs = (path / "tokenizer.json" for path in (base.folder, folder))
    if theirs.exists() and ours.exists() and Tokenizer.from_file(str(theirs)).get_vocab() != base.template.vocabulary():
        raise UserError(f"{folder}: its tokenizer is not the base's; arms can be compared on equal token ids only")
    return tuned, {}


def _open(
    model: PreTrainedModel, base: LanguageModel, adapters: dict[str, Path], experiment: Experiment
) -> TorchEngine:
    """An engine that answers a whole batch at once; every arm ends its answers with the base's end tokens."""
    stop_ids = base.template.stop_ids(end_ids(base.model))
    rows = experiment.judge.generation.batch_size
    return TorchEngine(model, base.template, stop_ids=stop_ids, adapters=adapters, max_rows=rows)


def _load_quantised(base: LanguageModel, experiment: Experiment, settings: SettingsRecord) -> PreTrainedModel:
    """A second copy of the base, in the very numbers that training had: rounding first would change the NF4 codes."""
    device, double = base.model.device, experiment.tune.double_quantisation
    quantisation = nf4(device, compute_dtype=getattr(torch, settings.precision), double=double)
    return load_weights(base.folder, dtype=settings.weights, device=device, quantisation=quantisation)


def _record_candidate(
    folder: Path, tuned: PreTrainedModel, experiment: Experiment, quantised: SettingsRecord | None
) -> WeightsRecord:
    if quantised is None:
        return record_weights(str(folder), folder, tuned)
    constants = ", its constants quantised too" if experiment.tune.double_quantisation else ""
    origin = f"{folder} on the base in NF4{constants} ({quantised.weights} weights, products in {quantised.precision})"
    return record_weights(origin, folder, tuned)


def _packages(quantised: SettingsRecord | None) -> dict[str, str]:
    """What the numbers depend on.

    The quantisation is that of bitsandbytes, so it stands among them; by it, too, an adapter on a quantised base and
    the same adapter on the whole base are two judgements.
    """
    if quantised is None:
        return installed_packages()
    return installed_packages() | {"bitsandbytes": importlib.metadata.version("bitsandbytes")}


def _check_context(prompts: Sequence[Prompt], limit: int, experiment: Experiment) -> None:
    new_tokens = experiment.judge.generation.max_new_tokens
    for prompt in prompts:
        if len(prompt.token_ids) + new_tokens > limit:
            raise UserError(
                f"example '{prompt.example.id}': a prompt of {len(prompt.token_ids)} tokens and "
                f"judge.generation.max_new_tokens ({new_tokens}) exceed the context of {limit}; lower it"
            )


def _freeze(
    run: Run, experiment: Experiment, examples: Sequence[Example], judgement: Judgement, *, fresh: bool
) -> None:
    """Writes the judgement into the manifest before anything is generated, or finds it unchanged."""
    manifest = run.manifest()
    frozen = manifest.judgement
    if frozen is not None and not fresh:
        new = judgement.identity()
        for name, value in frozen.identity().items():
            if new[name] != value:
                raise UserError(
                    f"{run.path}: {name}: not what was frozen at {frozen.frozen_at}, before generation; "
                    "--fresh judges anew, from the first sample, and the run keeps a record of both"
                )
    else:
        earlier = manifest.earlier_judgements if frozen is None else (*manifest.earlier_judgements, frozen)
        # The record goes first: a rule without samples would be taken for a finished freeze.
        run.update(judgement=None, earlier_judgements=earlier)
        for path in (run.samples, run.report):
            for file in path.glob("*"):
                file.unlink()
        run.update(experiment=experiment, experiment_hash=experiment.fingerprint(), judgement=judgement)
    write_jsonl(run.samples / "examples.jsonl", (example.as_row() for example in examples))
