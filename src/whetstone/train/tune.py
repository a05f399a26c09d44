"""From an experiment to tuned weights in a run folder."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, set_seed

from whetstone.data.split import Splits
from whetstone.errors import UserError
from whetstone.experiment import Experiment
from whetstone.files import atomic_folder, read_json, write_json
from whetstone.models.adapter import add_adapter
from whetstone.models.device import choose_device, peak_memory_bytes
from whetstone.models.fingerprint import record_weights
from whetstone.models.load import LanguageModel, load_model, locate
from whetstone.models.scratch import save_scratch, scratch_texts
from whetstone.run import DataRecord, Manifest, Run, Tuning, now
from whetstone.section import stable_hash
from whetstone.train.check import Checked
from whetstone.train.rows import rows_of_run
from whetstone.train.trainer import Observer, TrainingResult, fit
from whetstone.tune_section import Tune

__all__ = ["base_folder", "load_base", "trainable", "tune"]

_REPLAY_TOLERANCE = 0.01


def tune(
    run: Run,
    experiment: Experiment,
    checked: Checked,
    observer: Observer,
    say: Callable[[str], None],
    *,
    fresh: bool = False,
) -> Manifest:
    """Trains what the experiment says; a run that is already tuned is left as it is.

    The tuned weights appear in one rename and are recorded after it, so a run that was interrupted has none and starts
    its training again. The caller holds the run's lock.

    Args:
        run: The folder; begun here when it is new.
        experiment: What to do.
        checked: The examples, and what was found in them.
        observer: Told of every logged step.
        say: Told, in one line each, what is being done.
        fresh: Throw away an earlier run of this name, once nothing stands in the way of this one.

    Raises:
        UserError: Data, model or settings cannot be used; nothing is left half written.
    """
    checked.refuse(experiment)
    if run.exists() and not fresh:
        manifest = run.begin(experiment)
        if manifest.tuning is not None:
            return manifest
    rows = rows_of_run(experiment, checked)
    # Full training of bfloat16 weights loses small updates: the weights stay float32, autocast does the products.
    dtype = experiment.model.dtype if experiment.tune.method == "lora" else "float32"
    loaded = None if experiment.model.base is None else load_base(run, experiment, checked.splits, dtype=dtype)
    if fresh:
        run.clear()
    run.begin(experiment)
    base = loaded or load_base(run, experiment, checked.splits, dtype=dtype)
    model = trainable(base.model, experiment.tune)
    write_json(run.check_path, checked.as_json())
    run.update(
        data=_data_record(checked),
        base=record_weights(experiment.model.base or "scratch", base.folder, base.model),
        notes=(*checked.notes(), *rows.notes()),
    )
    say(
        f"{len(checked.splits.train):,} examples give {len(rows.task.rows):,} rows; "
        + (f"{len(rows.replay.rows):,} rows to replay; " if rows.replay.rows else "")
        + f"{_count_trainable(model):,} parameters train"
    )
    run.metrics_path.unlink(missing_ok=True)
    half = experiment.model.dtype == "bfloat16"
    order = rows.order(experiment)
    result = fit(model, order, rows.validation.rows, experiment.tune, run.metrics_path, observer, bfloat16=half)
    _note_replay(run, experiment, result)
    return _save(run, experiment, model, base, result)


def _note_replay(run: Run, experiment: Experiment, result: TrainingResult) -> None:
    """Says what share was replayed where it is not what was asked, as in a run shorter than its long rows allow."""
    replay = experiment.data.replay
    if replay is None:
        return
    share = result.loss_tokens_by_origin["replay"] / result.loss_tokens
    if abs(share - replay.fraction) > _REPLAY_TOLERANCE:
        note = f"{share:.1%} of the loss tokens were replayed, not {replay.fraction:.1%} (data.replay.fraction)."
        run.update(notes=(*run.manifest().notes, note))


def load_base(run: Run, experiment: Experiment, splits: Splits, *, dtype: str | None = None) -> LanguageModel:
    """The weights before tuning; those of a scratch run are made once, from the seed, and kept in the run.

    Args:
        run: The run.
        experiment: Says which weights.
        splits: The text that a scratch run's tokenizer is trained on.
        dtype: Other than the experiment's.
    """
    section = experiment.model
    if section.scratch is not None and not run.weights("base").exists():
        with atomic_folder(run.weights("base")) as folder:
            save_scratch(folder, section.scratch, scratch_texts(splits.train), experiment.tune.seed)
    device = choose_device(section.device)
    return load_model(
        base_folder(run, experiment), template=section.template, dtype=dtype or section.dtype, device=device
    )


def base_folder(run: Run, experiment: Experiment) -> Path:
    """Where the weights before tuning are."""
    return run.weights("base") if experiment.model.base is None else locate(experiment.model.base)


def trainable(model: PreTrainedModel, tune: Tune) -> PreTrainedModel:
    """A model with what the method trains, ready to be trained; what is drawn at random comes from the seed."""
    set_seed(tune.seed)
    return add_adapter(model, tune) if tune.method == "lora" else model.train()


def _data_record(checked: Checked) -> DataRecord:
    splits, replay = checked.splits, checked.replay
    return DataRecord(
        counts=splits.counts(),
        hashes=splits.hashes(),
        replay_examples=len(replay),
        replay_hash=stable_hash([example.as_row() for example in replay]) if replay else None,
    )


def _count_trainable(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _save(
    run: Run, experiment: Experiment, model: PreTrainedModel, base: LanguageModel, result: TrainingResult
) -> Manifest:
    kind = "adapter" if experiment.tune.method == "lora" else "model"
    try:
        with atomic_folder(run.weights(kind)) as folder:
            model.save_pretrained(folder)
            base.template.tokenizer.save_pretrained(folder)
            # PEFT writes a model card of empty headings; run.json says what is known.
            (folder / "README.md").unlink(missing_ok=True)
            _order_lists(folder / "adapter_config.json")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{run.weights(kind)}: cannot be written ({error}); free some space and tune again") from None
    tuning = Tuning(
        finished_at=now(),
        duration_s=result.duration_s,
        steps=result.steps,
        loss_tokens=result.loss_tokens,
        final_loss=result.final_loss,
        peak_memory_bytes=peak_memory_bytes(model.device),
        device=str(model.device),
        template_hash=base.template.hash,
        tuned=record_weights(f"{run.name}/{kind}", run.weights(kind), model),
    )
    return run.update(tuning=tuning)


def _order_lists(path: Path) -> None:
    """PEFT writes sets in the order of the process's hash seed; equal adapters must have equal files."""
    if path.exists():
        values = read_json(path)
        ordered = {
            key: sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value
            for key, value in values.items()
        }
        write_json(path, ordered)
