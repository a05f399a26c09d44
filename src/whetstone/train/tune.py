"""From an experiment to tuned weights in a run folder."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedModel, TrainerCallback

from whetstone.data.split import Splits
from whetstone.errors import UserError
from whetstone.experiment import Experiment
from whetstone.files import atomic_folder, read_json, write_json, written_by_libraries
from whetstone.models.device import choose_device, peak_memory_bytes
from whetstone.models.fingerprint import record_weights
from whetstone.models.load import LanguageModel, load_model, load_template, locate
from whetstone.models.scratch import save_scratch, scratch_texts
from whetstone.run import DataRecord, Manifest, Run, SettingsRecord, Tuning, now
from whetstone.section import stable_hash
from whetstone.train.check import Checked
from whetstone.train.micro import is_out_of_memory
from whetstone.train.prepare import memory_cap, prepare
from whetstone.train.recorder import StepMetrics
from whetstone.train.retention import TextLosses, compare_losses, general_texts, measure_rows, measure_texts
from whetstone.train.rows import RunRows, rows_of_run
from whetstone.train.sample_answers import SampleAnswer, SampleAnswers
from whetstone.train.session import Session
from whetstone.train.settings import Settings, load_settled
from whetstone.train.supervise import TrainingResult
from whetstone.train.track import tracking
from whetstone.train.trainer import fit
from whetstone.tune_section import Tune

__all__ = ["View", "base_folder", "load_base", "tune"]

_REPLAY_TOLERANCE = 0.01


class View(Protocol):
    """Whoever watches a training."""

    def metrics(self, metrics: StepMetrics) -> None:
        """Told of every logged step."""

    def sample(self, sample: SampleAnswer) -> None:
        """Told of every sample answer."""


def tune(
    run: Run,
    experiment: Experiment,
    checked: Checked,
    view: View,
    say: Callable[[str], None],
    *,
    fresh: bool = False,
    resume: bool = False,
) -> Manifest:
    """Trains what the experiment says; a run that is already tuned is left as it is.

    The tuned weights appear in one rename and are recorded after it; the checkpoints, which an interrupted run goes on
    from, are deleted then. The caller holds the run's lock.

    Args:
        run: The folder; begun here when it is new.
        experiment: What to do.
        checked: The examples, and what was found in them.
        view: Watches.
        say: Told, in one line each, what is being done.
        fresh: Throw away an earlier run of this name, once nothing stands in the way of this one.
        resume: Go on from the newest checkpoint of an interrupted run.

    Raises:
        UserError: Data, model or settings cannot be used; nothing is left half written.
    """
    checked.refuse(experiment)
    if run.exists() and not fresh:
        manifest = run.begin(experiment)
        if manifest.tuning is not None:
            return manifest
        if not resume and any(run.checkpoints.glob("step-*")):
            raise UserError(f"{run.path}: was interrupted and has checkpoints; --resume goes on, --fresh begins anew")
    rows = rows_of_run(experiment, checked)
    # Nothing of an earlier run is touched before the weights of this one are there.
    loaded = None if experiment.model.base is None else _load(run, experiment, checked.splits)
    if fresh:
        run.clear()
    run.begin(experiment)
    base, settings = loaded or _load(run, experiment, checked.splits)
    # Preferences are pairs of answers, and count their own.
    of_rows = () if experiment.tune.preferences else rows.notes()
    notes = (*checked.notes(), *of_rows, *settings.notes)
    write_json(run.check_path, checked.as_json())
    run.update(
        data=_data_record(checked),
        base=record_weights(experiment.model.base or "scratch", base.folder, base.model),
        settings=_settings_record(settings),
        notes=notes,
    )
    with memory_cap(experiment.tune.memory_fraction, base.model.device), _memory_said_plainly():
        model = prepare(base.model, experiment.tune, settings)
        say(_described(checked, rows, model))
        before = _losses(model, base, rows)
        result = _fit(run, experiment, (checked, rows), (model, base), settings, view, say, resume=resume)
        after = _losses(model, base, rows)
    run.update(
        notes=(*notes, *result.notes, *_note_replay(experiment, result)),
        retention=tuple(compare_losses(source, before[source], after[source]) for source in before),
    )
    return _save(run, experiment, model, base, result)


def _fit(
    run: Run,
    experiment: Experiment,
    data: tuple[Checked, RunRows],
    loaded: tuple[PreTrainedModel, LanguageModel],
    settings: Settings,
    view: View,
    say: Callable[[str], None],
    *,
    resume: bool,
) -> TrainingResult:
    """Trains, with everybody told who wants to know."""
    (checked, rows), (model, base), section = data, loaded, experiment.tune
    with tracking(section, run.name, run.path / "track", say) as trackers:

        def observe(metrics: StepMetrics) -> None:
            view.metrics(metrics)
            trackers.log(metrics)

        session = Session(run.path, settings, observe, say, _answering(run, section, rows, base, view), resume=resume)
        if section.preferences:
            # TRL is an extra, and imports slowly.
            from whetstone.train.preference import fit_preferences

            result = fit_preferences(model, experiment, checked, session)
        else:
            result = fit(model, rows.order(experiment), rows.validation.rows, section, session)
        return replace(result, notes=(*result.notes, *trackers.notes))


@contextmanager
def _memory_said_plainly() -> Iterator[None]:
    """What an allocator says outside the steps of training, where nothing can be halved."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            "out of memory beside the steps of training (loading the adapter, measuring losses); lower "
            "tune.batch_size or data.max_tokens, or take a smaller base; 'whet tune --resume' goes on"
        ) from error


def _answering(run: Run, section: Tune, rows: RunRows, base: LanguageModel, view: View) -> Sequence[TrainerCallback]:
    asked = [row for row in rows.validation.rows if row.prompt_tokens]
    if section.watch.samples_every is None or not asked:
        return ()
    return (SampleAnswers(run.watch_path, asked, base.template, section.watch, view.sample),)


def _losses(model: PreTrainedModel, base: LanguageModel, rows: RunRows) -> dict[str, TextLosses]:
    """What the model can do beside the task: general text, and replayed examples that it does not learn."""
    tokenizer = base.template.tokenizer
    losses = {"general text": measure_texts(model, tokenizer, general_texts())}
    if rows.held_replay:
        losses["replay, held out"] = measure_rows(model, tokenizer, rows.held_replay)
    return losses


def _note_replay(experiment: Experiment, result: TrainingResult) -> tuple[str, ...]:
    """Says what share was replayed where it is not what was asked, as in a run shorter than its long rows allow."""
    replay = experiment.data.replay
    if replay is None or experiment.tune.preferences:
        return ()
    share = result.loss_tokens_by_origin["replay"] / result.loss_tokens
    if abs(share - replay.fraction) <= _REPLAY_TOLERANCE:
        return ()
    return (f"{share:.1%} of the loss tokens were replayed, not {replay.fraction:.1%} (data.replay.fraction).",)


def _load(run: Run, experiment: Experiment, splits: Splits) -> tuple[LanguageModel, Settings]:
    """The weights as they are trained, and the settings that they were loaded with."""
    _make_scratch(run, experiment, splits)
    folder = base_folder(run, experiment)
    template, _ = load_template(folder, experiment.model.template)
    model, settings = load_settled(folder, experiment, choose_device(experiment.model.device))
    return LanguageModel(model, template, folder), settings


def _make_scratch(run: Run, experiment: Experiment, splits: Splits) -> None:
    """Makes the random weights of a scratch run, once, from the seed; they are kept in the run."""
    shape = experiment.model.scratch
    if shape is not None and not run.weights("base").exists():
        written = written_by_libraries(run.weights("base"), "free some space and tune again")
        with written, atomic_folder(run.weights("base")) as folder:
            save_scratch(folder, shape, scratch_texts(splits.train), experiment.tune.seed)


def load_base(run: Run, experiment: Experiment, splits: Splits) -> LanguageModel:
    """The weights before tuning, as they are judged.

    Args:
        run: The run.
        experiment: Says which weights.
        splits: The text that a scratch run's tokenizer is trained on.
    """
    _make_scratch(run, experiment, splits)
    section = experiment.model
    folder, device = base_folder(run, experiment), choose_device(section.device)
    return load_model(folder, template=section.template, dtype=section.dtype, device=device)


def base_folder(run: Run, experiment: Experiment) -> Path:
    """Where the weights before tuning are."""
    return run.weights("base") if experiment.model.base is None else locate(experiment.model.base)


def _described(checked: Checked, rows: RunRows, model: PreTrainedModel) -> str:
    trains = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    replay = f"{len(rows.replay.rows):,} rows to replay; " if rows.replay.rows else ""
    made = f"{len(checked.splits.train):,} examples give {len(rows.task.rows):,} rows"
    return f"{made}; {replay}{trains:,} parameters train"


def _settings_record(settings: Settings) -> SettingsRecord:
    return SettingsRecord(
        precision=settings.precision,
        weights=str(settings.weights_dtype).removeprefix("torch."),
        attention=settings.attention,
        optimiser=settings.optimiser,
        compiled=settings.compile,
        activation_checkpointing=settings.activation_checkpointing,
        quantised=settings.quantised,
    )


def _data_record(checked: Checked) -> DataRecord:
    splits, replay = checked.splits, checked.replay
    return DataRecord(
        counts=splits.counts(),
        hashes=splits.hashes(),
        replay_examples=len(replay),
        replay_hash=stable_hash([example.as_row() for example in replay]) if replay else None,
    )


def _save(
    run: Run, experiment: Experiment, model: PreTrainedModel, base: LanguageModel, result: TrainingResult
) -> Manifest:
    kind = "adapter" if experiment.tune.adapts else "model"
    mend = "free some space, then 'whet tune --resume'"
    with written_by_libraries(run.weights(kind), mend), atomic_folder(run.weights(kind)) as folder:
        model.save_pretrained(folder)
        base.template.tokenizer.save_pretrained(folder)
        # PEFT writes a model card of empty headings; run.json says what is known.
        (folder / "README.md").unlink(missing_ok=True)
        _order_lists(folder / "adapter_config.json")
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
    manifest = run.update(tuning=tuning)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    return manifest


def _order_lists(path: Path) -> None:
    """PEFT writes sets in the order of the process's hash seed; equal adapters must have equal files."""
    if path.exists():
        values = read_json(path)
        ordered = {
            key: sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value
            for key, value in values.items()
        }
        write_json(path, ordered)
