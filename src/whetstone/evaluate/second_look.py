"""When all arms have answered: base and tuned are loaded once more, without our engine, to predict texts and be tried.

Loaded once more because an engine puts its own attention into a model, and what checks an engine must not be it.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from whetstone.data.load import load_replay
from whetstone.data.split import Splits
from whetstone.engine.open import open_engines
from whetstone.evaluate.candidate import load_tuned
from whetstone.evaluate.metrics.preferred import PREFERRED
from whetstone.evaluate.predict import predict
from whetstone.evaluate.preference import ask_graders
from whetstone.evaluate.questions import Questions
from whetstone.evaluate.sample import BASE, BASE_AGAIN, TUNED
from whetstone.evaluate.sanity import read_sanity
from whetstone.evaluate.trial import leaked, try_models
from whetstone.experiment import Experiment
from whetstone.models.adapter import load_adapter
from whetstone.models.load import LanguageModel, end_ids
from whetstone.run import Run, SettingsRecord
from whetstone.train.tune import load_base

__all__ = ["Judged", "look_again"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What the arms have answered.

    Attributes:
        judgement: Fingerprint of the frozen judgement.
        questions: What was asked, the held-out examples first.
        splits: The experiment's data.
        folder: The tuned weights.
        quantised: What the tuned weights were trained with, where their base was in NF4.
    """

    judgement: str
    questions: tuple[Questions, ...]
    splits: Splits
    folder: Path
    quantised: SettingsRecord | None


def look_again(run: Run, experiment: Experiment, judged: Judged) -> None:
    """Predicts the suites of texts, and tries base and tuned; does nothing where that is on disk.

    Args:
        run: The caller holds its lock.
        experiment: What was judged.
        judged: The answers are on disk.
    """
    _grade(run, experiment, judged)
    known = read_sanity(run.samples)
    if known is not None and known.judgement == judged.judgement:
        return
    base = load_base(run, experiment, judged.splits)
    texts = [one for one in judged.questions if one.suite.is_text]
    # PEFT wraps the layers of the model that it is put on, so the base predicts first.
    _predict((BASE, BASE_AGAIN), base.model, base, texts, judged, run)
    tuned, adapters = load_tuned(base, judged.folder, experiment, judged.quantised)
    before = base.model
    for adapter in adapters.values():
        shared = tuned is before
        tuned = load_adapter(tuned, adapter)
        before = tuned if shared else before
    _predict((TUNED,), tuned, base, texts, judged, run)
    replay = load_replay(experiment.data)
    replayed = replay.examples if replay is not None else ()
    try_models(
        before,
        tuned,
        judged.questions[0].prompts,
        sorted(base.template.stop_ids(end_ids(base.model))),
        run.samples,
        judgement=judged.judgement,
        training_examples=len(judged.splits.train) + len(replayed),
        leaked_ids=leaked(judged.splits, replayed),
    )


def _grade(run: Run, experiment: Experiment, judged: Judged) -> None:
    """Has graders compare the answers of every suite that is scored by what they prefer."""
    suites = [one.suite.name for one in judged.questions if PREFERRED in one.suite.metrics and not one.suite.is_text]
    graders = experiment.judge.graders
    if not suites or not graders:
        return
    opened = open_engines([grader.model for grader in graders], runs=run.path.parent, device=experiment.model.device)
    with contextlib.ExitStack() as closing:
        for one in opened:
            closing.callback(one.close)
        for suite in suites:
            pairs = list(zip(graders, opened, strict=True))
            ask_graders(pairs, run.suite_samples(suite), judged.judgement)


def _predict(
    arms: Sequence[str],
    model: PreTrainedModel,
    base: LanguageModel,
    texts: Sequence[Questions],
    judged: Judged,
    run: Run,
) -> None:
    tokenizer = base.template.tokenizer
    for one in texts:
        for arm in arms:
            predict(arm, model, tokenizer, one.prompts, judged.judgement, run.suite_samples(one.suite.name))
