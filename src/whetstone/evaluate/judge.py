"""Freezes the rule, then has the arms of a run answer the held-out examples and every suite."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from whetstone.data.load import load_splits
from whetstone.data.split import Splits
from whetstone.engine.torch_engine import TorchEngine
from whetstone.errors import UserError
from whetstone.evaluate.arms import OpenedArm, opened_arms
from whetstone.evaluate.candidate import (
    ADAPTER,
    judged_packages,
    load_tuned,
    open_engine,
    quantised_settings,
    record_candidate,
    tuned_folder,
)
from whetstone.evaluate.collect import Generator, Prompt, collect, copy_input
from whetstone.evaluate.evidence import EXAMPLES
from whetstone.evaluate.questions import Questions, ask_all, refuse_beyond_context
from whetstone.evaluate.sample import BASE, BASE_AGAIN, FEW_SHOT, TUNED
from whetstone.evaluate.second_look import Judged, look_again
from whetstone.experiment import Experiment
from whetstone.files import write_atomic
from whetstone.models.fingerprint import digest_weights, record_weights
from whetstone.models.load import LanguageModel, context_tokens
from whetstone.run import DataRecord, Judgement, Manifest, Run, WeightsRecord, now
from whetstone.train.tune import load_base

__all__ = ["judge"]


def judge(
    run: Run,
    experiment: Experiment,
    candidate: Path | None,
    *,
    fresh: bool,
    progress: Callable[[int, int], None],
    certain: Callable[[str], bool] | None = None,
) -> None:
    """Generates the samples of all arms into the run; what is there already is kept.

    Args:
        run: Begun, and tuned unless a candidate is given; the caller holds its lock.
        experiment: The same experiment, perhaps with a new judge section.
        candidate: A folder with an adapter or a model to judge as the tuned arm, instead of the run's own weights. An
            adapter that is named so is put on the whole base, also in a run of QLoRA.
        fresh: Throw away the samples and the frozen rule of an earlier comparison.
        progress: Told how many samples of how many are done.
        certain: Asked after some of the answers to a suite whether they decide; None has all examples answered.

    Raises:
        UserError: Nothing is tuned, or the data, weights or rule are not those that the run recorded.
    """
    judged = _answer_all(run, experiment, candidate, fresh=fresh, progress=progress, certain=certain)
    look_again(run, experiment, judged)


def _answer_all(
    run: Run,
    experiment: Experiment,
    candidate: Path | None,
    *,
    fresh: bool,
    progress: Callable[[int, int], None],
    certain: Callable[[str], bool] | None,
) -> Judged:
    manifest = run.manifest()
    splits = load_splits(experiment.data)
    if manifest.data is not None and manifest.data.hashes != splits.hashes():
        raise UserError(f"{run.path}: the data changed since tuning; restore it, or call 'whet tune' with --fresh")
    folder = candidate or tuned_folder(run, manifest)
    digest_weights(folder)
    base = _base(run, experiment, splits, manifest, candidate)
    base_record = manifest.base or record_weights(experiment.model.base or "scratch", base.folder, base.model)
    quantised = quantised_settings(manifest) if candidate is None else None
    questions = ask_all(splits, experiment.judge, base.template, context_tokens(base.model.config))
    tuned, adapters = load_tuned(base, folder, experiment, quantised)
    asked = open_engine(tuned, base, adapters, experiment)
    with opened_arms(run, experiment, candidate) as extra:
        their_prompts = _their_prompts(extra, questions)
        if manifest.base is None:
            run.update(base=base_record, data=DataRecord(counts=splits.counts(), hashes=splits.hashes()))
        judgement = _judgement(
            experiment,
            questions,
            extra,
            base_record,
            record_candidate(folder, tuned, experiment, quantised),
            device=str(tuned.device),
            packages=judged_packages(quantised),
        )
        _freeze(run, experiment, questions, judgement, fresh=fresh)
        plain = asked if tuned is base.model else open_engine(base.model, base, {}, experiment)
        arms = _Arms(judgement.fingerprint(), base, plain, asked, ADAPTER if adapters else None, tuned.device)
        arms.answer(run, questions, extra, their_prompts, progress, certain)
    return Judged(judgement.fingerprint(), tuple(questions), splits, folder, quantised)


def _base(
    run: Run, experiment: Experiment, splits: Splits, manifest: Manifest, candidate: Path | None
) -> LanguageModel:
    """The model that tuning began with, proved to be that."""
    base = load_base(run, experiment, splits)
    if manifest.base is not None and manifest.base.sha256 != digest_weights(base.folder):
        raise UserError(f"{base.folder}: the base weights changed since the run began; restore them, or tune --fresh")
    if candidate is None and manifest.tuning is not None and manifest.tuning.template_hash != base.template.hash:
        raise UserError(
            f"{run.path}: the chat template changed since tuning; restore it, or call 'whet tune' with --fresh"
        )
    return base


def _their_prompts(extra: Sequence[OpenedArm], questions: Sequence[Questions]) -> dict[tuple[str, str], list[Prompt]]:
    """What the arms beside the usual ones are asked, by suite and arm; all of it fits into their contexts."""
    rendered = {}
    for arm in extra:
        for one in questions:
            if one.suite.is_text:
                continue
            prompts = one.repeat(arm.prompts(one.suite.examples))
            if arm.model.context_tokens is not None:
                refuse_beyond_context(prompts, arm.model.context_tokens, one.suite)
            rendered[one.suite.name, arm.name] = prompts
    return rendered


def _judgement(
    experiment: Experiment,
    questions: Sequence[Questions],
    extra: Sequence[OpenedArm],
    base: WeightsRecord,
    candidate: WeightsRecord,
    *,
    device: str,
    packages: dict[str, str],
) -> Judgement:
    held_out, *suites = questions
    record = held_out.record()
    return Judgement(
        frozen_at=now(),
        rule_hash=experiment.judge.fingerprint(),
        data_hash=record.data_hash,
        prompts_hash=record.prompts_hash,
        base_sha256=base.sha256,
        candidate=candidate,
        device=device,
        packages=packages,
        arms=tuple(arm.record() for arm in extra),
        suites=tuple(one.record() for one in suites),
        shots=tuple(shot.id for shot in held_out.suite.shots) if held_out.after_shots is not None else (),
        no_few_shot=held_out.no_few_shot,
    )


@dataclass(frozen=True, slots=True)
class _Arms:
    """The usual arms: what answers, and with which adapter."""

    judgement: str
    base: LanguageModel
    plain: TorchEngine
    asked: TorchEngine
    adapter: str | None
    device: torch.device

    def answer(
        self,
        run: Run,
        questions: Sequence[Questions],
        extra: Sequence[OpenedArm],
        their_prompts: dict[tuple[str, str], list[Prompt]],
        progress: Callable[[int, int], None],
        certain: Callable[[str], bool] | None,
    ) -> None:
        """Has these arms and the others answer every suite that asks something."""
        asking = [one for one in questions if not one.suite.is_text]
        arms = len(extra) + 3
        total = sum(len(one.prompts) * (arms + (one.after_shots is not None)) for one in asking)
        before = 0
        for one in asking:
            folder = run.suite_samples(one.suite.name)
            copy_input(one.prompts, self.judgement, folder)
            generators = [
                *self._generators(one),
                *(arm.generator(self.judgement, self.device, their_prompts[one.suite.name, arm.name]) for arm in extra),
            ]
            generation = one.suite.generation
            collect(
                one.prompts,
                generators,
                self.base.template,
                generation,
                folder,
                _after(progress, before, total),
                functools.partial(certain, one.suite.name) if certain is not None else None,
            )
            before += len(one.prompts) * len(generators)

    def _generators(self, one: Questions) -> list[Generator]:
        device = self.base.model.device
        generators = [
            Generator(BASE, self.plain, None, self.judgement, device),
            Generator(BASE_AGAIN, self.plain, None, self.judgement, device),
            Generator(TUNED, self.asked, self.adapter, self.judgement, self.device),
        ]
        if one.after_shots is not None:
            generators.insert(2, Generator(FEW_SHOT, self.plain, None, self.judgement, device, one.after_shots))
        return generators


def _after(progress: Callable[[int, int], None], before: int, total: int) -> Callable[[int, int], None]:
    return lambda done, _: progress(before + done, total)


def _freeze(
    run: Run, experiment: Experiment, questions: Sequence[Questions], judgement: Judgement, *, fresh: bool
) -> None:
    """Writes the judgement into the manifest before anything is generated, or finds it unchanged."""
    manifest = run.manifest()
    frozen = manifest.judgement
    if frozen is not None and not fresh:
        new = judgement.identity()
        for name, value in frozen.identity().items():
            if new.get(name) != value:
                raise UserError(
                    f"{run.path}: {name}: not what was frozen at {frozen.frozen_at}, before generation; "
                    "--fresh judges anew, from the first sample, and the run keeps a record of both"
                )
    else:
        earlier = manifest.earlier_judgements if frozen is None else (*manifest.earlier_judgements, frozen)
        # The record goes first: a rule without samples would be taken for a finished freeze.
        run.update(judgement=None, earlier_judgements=earlier)
        run.forget_judgement()
        run.update(experiment=experiment, experiment_hash=experiment.fingerprint(), judgement=judgement)
    for one in questions:
        write_atomic(run.suite_samples(one.suite.name) / EXAMPLES, one.suite.as_jsonl())
