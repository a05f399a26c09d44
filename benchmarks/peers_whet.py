"""Whetstone's own trainer as a contestant: the one place where the benchmarks call it."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from peers_steps import StepTime
from transformers import AutoConfig, PreTrainedModel

from whetstone.data_section import Data, GrammarSource
from whetstone.experiment import Experiment
from whetstone.model_section import Model, Scratch
from whetstone.models.load import load_weights
from whetstone.train.batch import Row
from whetstone.train.order import RowOrder
from whetstone.train.prepare import prepare
from whetstone.train.recorder import StepMetrics
from whetstone.train.session import Session
from whetstone.train.settings import settle
from whetstone.train.trainer import fit
from whetstone.tune_section import Tune

__all__ = ["train"]

CPU = torch.device("cpu")


def train(weights: Path, rows: Sequence[Row], tune: Tune) -> tuple[PreTrainedModel, list[StepTime]]:
    """Trains as ``whet tune`` does, by the same functions, without checkpoints and validation.

    Args:
        weights: What to begin with; those of a scratch run are there already, too.
        rows: What to learn, in fewer than 200 steps: then each one is observed.
        tune: How.
    """
    steps: list[StepTime] = []

    def observe(step: StepMetrics) -> None:
        steps.append(StepTime(time.perf_counter(), time.process_time(), step.loss))

    # An experiment has a shape and a source; here the weights and the rows are made already.
    section = Model(base=str(weights)) if tune.adapts else Model(scratch=Scratch(context_tokens=1024))
    source = Data(source=GrammarSource(grammar="corrections"))
    experiment = Experiment(name="benchmark", model=section, data=source, tune=tune)
    settings = settle(experiment, CPU, AutoConfig.from_pretrained(weights))
    base = load_weights(weights, dtype=settings.weights_dtype, device=CPU, attention=settings.attention)
    model = prepare(base, tune, settings)
    order = RowOrder(rows, tune.batch_size * tune.accumulation, tune.seed)
    with tempfile.TemporaryDirectory() as folder:
        fit(model, order, [], tune, Session(Path(folder), settings, observe, lambda _: None, keeps_checkpoints=False))
    return model, steps
