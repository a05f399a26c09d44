"""When the validation loss is measured, and what follows from it."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from whetstone.errors import UserError
from whetstone.train.checkpoint import CheckpointStore
from whetstone.train.validation import ValidationLoss, load_best_weights
from whetstone.tune_section import Checkpoints, Validation

ARGUMENTS = TrainingArguments(output_dir="unused", use_cpu=True)


def train(
    losses: Sequence[float], *, max_steps: int = 100, every: int | None = 1, patience: int | None = None
) -> tuple[ValidationLoss, list[int]]:
    """Runs the callback over all steps that the losses last for; returns it and the steps that were saved."""
    values = iter(losses)
    validation = ValidationLoss(lambda: next(values), Validation(every=every, patience=patience))
    control = TrainerControl()
    validation.on_train_begin(ARGUMENTS, TrainerState(max_steps=max_steps), control)
    return validation, walk(validation, control, max_steps, range(1, max_steps + 1), len(losses))


def walk(
    validation: ValidationLoss, control: TrainerControl, max_steps: int, steps: range, measurements: int
) -> list[int]:
    saved = []
    for step in steps:
        if control.should_training_stop or len(validation.history) == measurements:
            break
        control.should_save = False
        validation.on_step_end(ARGUMENTS, TrainerState(global_step=step, max_steps=max_steps), control)
        if control.should_save:
            saved.append(step)
    return saved


@pytest.mark.parametrize(
    ("every", "max_steps", "steps"),
    [
        (None, 40, [10, 20, 30, 40]),
        (None, 10, [2, 4, 6, 8, 10]),
        (None, 3, [1, 2, 3]),
        (None, 1, [1]),
        (4, 10, [4, 8, 10]),
        (50, 10, [10]),
    ],
)
def test_when_it_is_measured(every: int | None, max_steps: int, steps: list[int]) -> None:
    validation, _ = train([1.0] * len(steps), max_steps=max_steps, every=every)
    assert list(validation.history) == steps
    assert validation.at(steps[-1]) == 1.0
    assert validation.at(max_steps + 1) is None


LOSSES = st.lists(st.sampled_from([0.5, 1.0, 2.0, math.nan, math.inf]), min_size=1, max_size=12)


@given(losses=LOSSES)
def test_every_new_best_is_saved_and_nothing_else(losses: list[float]) -> None:
    validation, saved = train(losses)
    lowest, expected = math.inf, []
    for step, loss in enumerate(losses, 1):
        if loss < lowest:
            lowest = loss
            expected.append(step)
    assert saved == expected
    assert validation.best == ((expected[-1], lowest) if expected else None)
    assert [step for step in range(1, 14) if validation.is_best(step)] == expected[-1:]
    assert validation.stopped is None


@given(losses=LOSSES, patience=st.integers(1, 4))
def test_patience_counts_measurements_without_a_new_best(losses: list[float], patience: int) -> None:
    validation, _ = train(losses, patience=patience)
    lowest, waited, stop = math.inf, 0, None
    for step, loss in enumerate(losses, 1):
        waited = 0 if loss < lowest else waited + 1
        lowest = min(lowest, loss) if math.isfinite(loss) else lowest
        if waited == patience:
            stop = step
            break
    assert len(validation.history) == (stop or len(losses))
    assert (validation.stopped is None) == (stop is None)


def test_the_reason_says_where_the_lowest_was() -> None:
    validation, _ = train([2.0, 1.25, 1.5, math.nan], patience=2)
    assert validation.stopped == (
        "step 4: 2 measurements in a row without a new lowest validation loss (tune.validation.patience); the lowest "
        "is 1.2500 at step 2"
    )
    hopeless, _ = train([math.nan, math.nan], patience=2)
    assert hopeless.stopped is not None
    assert hopeless.stopped.endswith("no finite one was measured")


@given(losses=LOSSES, patience=st.none() | st.integers(1, 4), data=st.data())
def test_a_resumed_history_goes_on_alike(losses: list[float], patience: int | None, data: st.DataObject) -> None:
    whole, saved = train(losses, patience=patience)
    cut = data.draw(st.integers(1, len(whole.history)))
    first, _ = train(losses[:cut], patience=patience)
    values = iter(losses[cut:])
    again = ValidationLoss(lambda: next(values), Validation(every=1, patience=patience))
    again.restore(first.state())
    control = TrainerControl()
    again.on_train_begin(ARGUMENTS, TrainerState(max_steps=100), control)
    assert walk(again, control, 100, range(cut + 1, 101), len(losses)) == [step for step in saved if step > cut]
    assert repr(again.state()) == repr(whole.state())
    assert (again.best, again.stopped) == (whole.best, whole.stopped)


def test_what_another_callback_asked_for_stays_asked() -> None:
    validation, control = ValidationLoss(lambda: 9.0, Validation(every=1)), TrainerControl()
    validation.restore({"history": [[1, 1.0]]})
    control.should_save = control.should_training_stop = True
    validation.on_step_end(ARGUMENTS, TrainerState(global_step=2, max_steps=9), control)
    assert control.should_save
    assert control.should_training_stop


@pytest.fixture
def trained(tmp_path: Path) -> tuple[nn.Module, CheckpointStore, ValidationLoss]:
    """A model whose weight is the step; the second was the best."""
    model = nn.Linear(2, 2, bias=False)
    store = CheckpointStore(tmp_path, Checkpoints(keep=1), lambda line: None)
    validation = ValidationLoss(lambda: 0.0, Validation())
    validation.restore({"history": [[1, 2.0], [2, 1.0], [3, 1.5], [4, math.nan]]})
    for step in range(1, 5):
        nn.init.constant_(model.weight, step)
        store.save(step, {"weights": {"weight": model.weight}}, validation.at(step))
    return model, store, validation


def test_the_best_weights_come_back(trained: tuple[nn.Linear, CheckpointStore, ValidationLoss]) -> None:
    model, store, validation = trained
    parameter = model.weight
    assert load_best_weights(model, store, validation) == 2
    assert model.weight is parameter
    assert torch.equal(parameter, torch.full((2, 2), 2.0))


def test_damaged_best_weights_are_not_used(trained: tuple[nn.Linear, CheckpointStore, ValidationLoss]) -> None:
    model, store, validation = trained
    file = store.folder / "step-000002" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=r"step-000002: weights\.safetensors does not match its SHA-256"):
        load_best_weights(model, store, validation)
    file.unlink()
    with pytest.raises(UserError, match="the checkpoint of step 2, which is the best, is missing or damaged"):
        load_best_weights(model, store, validation)
    assert torch.equal(model.weight, torch.full((2, 2), 4.0))


def test_without_a_finite_loss_there_is_no_best(trained: tuple[nn.Linear, CheckpointStore, ValidationLoss]) -> None:
    model, store, validation = trained
    validation.restore({"history": [[1, math.nan], [2, math.inf]]})
    with pytest.raises(UserError, match="no finite validation loss was measured"):
        load_best_weights(model, store, validation)
