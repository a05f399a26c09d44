"""From an experiment to tuned weights in a run folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, set_seed

from whetstone.data.split import Splits
from whetstone.errors import UserError
from whetstone.experiment import Experiment, Tune
from whetstone.files import atomic_folder, write_json
from whetstone.models.adapter import add_adapter
from whetstone.models.device import choose_device, peak_memory_bytes
from whetstone.models.fingerprint import record_weights
from whetstone.models.load import LanguageModel, context_tokens, load_model, locate
from whetstone.models.scratch import save_scratch, scratch_texts
from whetstone.run import DataRecord, Manifest, Run, Tuning, now
from whetstone.section import stable_hash
from whetstone.train.batch import MadeRows, Row, make_rows
from whetstone.train.check import Checked
from whetstone.train.order import RowOrder
from whetstone.train.trainer import Observer, TrainingResult, fit

__all__ = ["base_folder", "load_base", "row_order", "trainable", "tune"]


def tune(
    run: Run, experiment: Experiment, checked: Checked, observer: Observer, say: Callable[[str], None]
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

    Raises:
        UserError: Data, model or settings cannot be used; nothing is left half written.
    """
    checked.refuse(experiment)
    manifest = run.begin(experiment)
    if manifest.tuning is not None:
        return manifest
    splits = checked.splits
    # Full training of bfloat16 weights loses small updates: the weights stay float32, autocast does the products.
    dtype = experiment.model.dtype if experiment.tune.method == "lora" else "float32"
    base = load_base(run, experiment, splits, dtype=dtype)
    limits = experiment.data, experiment.tune, context_tokens(base.model.config)
    task = make_rows(splits.train, base.template, *limits)
    replay = (
        make_rows(checked.replay, base.template, *limits, origin="replay") if checked.replay else MadeRows([], 0, 0)
    )
    validation = make_rows(splits.validation, base.template, *limits).rows if splits.validation else []
    model = trainable(base.model, experiment.tune)
    write_json(run.check_path, checked.as_json())
    manifest = run.update(
        data=_data_record(checked),
        base=record_weights(experiment.model.base or "scratch", base.folder, base.model),
        notes=(*checked.notes(), *_length_notes(task, "training"), *_length_notes(replay, "replay")),
    )
    say(
        f"{len(splits.train):,} examples give {len(task.rows):,} rows; "
        + (f"{len(replay.rows):,} rows are replayed among them; " if replay.rows else "")
        + f"{_count_trainable(model):,} parameters train"
    )
    run.metrics_path.unlink(missing_ok=True)
    half = experiment.model.dtype == "bfloat16"
    order = row_order([*task.rows, *replay.rows], experiment)
    result = fit(model, order, validation, experiment.tune, run.metrics_path, observer, bfloat16=half)
    return _save(run, experiment, model, base, result)


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


def _length_notes(made: MadeRows, kind: str) -> tuple[str, ...]:
    """What the length policy did, for the run's record."""
    fates = (made.dropped, "were dropped"), (made.truncated, "lost the end of their answer")
    return tuple(
        f"{count} {kind} rows were longer than allowed and {fate} (data.too_long)." for count, fate in fates if count
    )


def row_order(rows: Sequence[Row], experiment: Experiment) -> RowOrder:
    """The order in which an experiment learns its rows."""
    tune, replay = experiment.tune, experiment.data.replay
    return RowOrder(rows, tune.batch_size * tune.accumulation, tune.seed, replay.fraction if replay else 0.0)


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
