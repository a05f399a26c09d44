"""A finished run made of synthetic rows, for everything that reads runs."""

import json
import os
import random
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

from whetstone.data.example import Example, Message
from whetstone.data_section import Data, GrammarSource
from whetstone.errors import UserError
from whetstone.evaluate.evidence import data_hash
from whetstone.evaluate.sample import ARMS, BASE, BASE_AGAIN, COPY_INPUT, FEW_SHOT, TUNED, Sample
from whetstone.evaluate.sanity import SANITY_FILE
from whetstone.experiment import Experiment
from whetstone.files import write_json
from whetstone.judge_section import ExtraArm, Judge, MustImprove, MustNotRegress
from whetstone.model_section import Model
from whetstone.run import ArmRecord, DataRecord, Hardware, Judgement, Manifest, Run, SuiteRecord, Tuning, WeightsRecord
from whetstone.sandbox import require_sandbox

# A busy machine is not a failed property, and a commit must not fail on another commit's luck.
settings.register_profile(
    "whetstone",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("whetstone")

SUBJECTS = ("She", "My brother", "The teacher", "Anna", "Our neighbour", "The new student", "His cat", "Nobody here")
VERBS = (("goes", "go"), ("walks", "walk"), ("drives", "drive"), ("runs", "run"), ("travels", "travel"))
PLACES = ("to the market", "to school", "to an old library", "to the station", "along the river", "into the garden")
CATEGORIES = ("verb form", "article", "word order")
TIMES = ("every morning .", "on Mondays .", "when it rains .", "before breakfast .", "after the long meeting .")

SANITY = {
    "prompts": 4,
    "logit_change": 3.4375,
    "engine": [{"arm": "base", "compared": 4, "equal": 4}, {"arm": "tuned", "compared": 4, "equal": 3}],
    "training_examples": 6000,
    "leaked": ["test-0003", "test-0008", "test-0021"],
}


def pytest_configure() -> None:
    """Hears Ctrl-C, which a shell has its background jobs ignore, and their children too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the longest test, so that no core waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


class MakeRun(Protocol):
    """Writes a run folder and opens it."""

    def __call__(
        self,
        path: Path,
        *,
        n: int = 300,
        group_size: int = 1,
        arms: Sequence[str | ExtraArm] = ARMS,
        tuned_skill: float = 0.62,
        tuning: bool = True,
        suites: bool = False,
    ) -> Run: ...


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """The function, as a fixture, because test modules cannot import from each other."""
    return _make_run


def _make_run(
    path: Path,
    *,
    n: int = 300,
    group_size: int = 1,
    arms: Sequence[str | ExtraArm] = ARMS,
    tuned_skill: float = 0.62,
    tuning: bool = True,
    suites: bool = False,
) -> Run:
    """Writes the folder.

    With ``suites`` the run was also asked one suite three times and predicted the texts of another, and has looked at
    its own sanity.
    """
    run = Run(path)
    run.samples.mkdir(parents=True)
    examples = [_example(index, group_size) for index in range(n)]
    extra_arms = tuple(arm for arm in arms if isinstance(arm, ExtraArm))
    _write_rows(run.samples / "examples.jsonl", [example.as_row() for example in examples])
    digest = data_hash((run.samples / "examples.jsonl").read_bytes())
    manifest = _manifest(run.name, tuning, digest, extra_arms)
    if suites:
        manifest = _with_suites(run, manifest)
    run.write(manifest)
    judgement = manifest.judgement.fingerprint() if manifest.judgement else ""
    skills = {COPY_INPUT: 0.0, BASE: 0.38, BASE_AGAIN: 0.38, FEW_SHOT: 0.5, TUNED: tuned_skill}
    for arm in (one.name if isinstance(one, ExtraArm) else one for one in arms):
        samples = [_sample(example, index, arm, skills.get(arm, 0.5)) for index, example in enumerate(examples)]
        samples = [replace(sample, judgement=judgement) for sample in samples]
        _write_rows(run.samples / f"{arm}.jsonl", [sample.as_row() for sample in samples])
    if suites:
        _write_suite_answers(run, judgement)
        write_json(run.samples / SANITY_FILE, {**SANITY, "judgement": judgement})
    if tuning:
        _write_rows(run.metrics_path, [_logged_step(step) for step in range(10, 401, 10)])
    return run


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _example(index: int, group_size: int) -> Example:
    random_choice = random.Random(f"example {index}").choice
    right, wrong = random_choice(VERBS)
    subject, place, time = random_choice(SUBJECTS), random_choice(PLACES), random_choice(TIMES)
    reference = f"{subject} {right} {place} {time}"
    source = reference if index % 4 == 0 else f"{subject} {wrong} {place} {time}"
    return Example(
        id=f"test-{index:04d}",
        messages=(Message("user", f"Correct the sentence: {source}"),),
        references=(reference, f"{subject} always {right} {place} {time}"),
        source=source,
        group=f"group-{index // group_size}",
        category=CATEGORIES[index % 7 % 3],
    )


def _asked_suite() -> list[Example]:
    """Twenty examples of three categories; the last has one example only."""
    examples = [_example(1000 + index, 2) for index in range(20)]
    kinds = ["long", "short"] * 10
    kinds[-1] = "rare <kind>"
    return [replace(example, category=kind) for example, kind in zip(examples, kinds, strict=True)]


def _text_suite() -> list[Example]:
    texts = [
        f"{subject} waits {place} {time}" for subject in SUBJECTS for place, time in zip(PLACES, TIMES, strict=False)
    ]
    return [
        Example(f"text-{index}", (), (text,), text, f"text-{index}", ("story", "letter")[index % 2])
        for index, text in enumerate(texts[:16])
    ]


def _with_suites(run: Run, manifest: Manifest) -> Manifest:
    assert manifest.judgement is not None
    records = []
    for name, about, metrics, examples, repeats in (
        ("forms", "Asks for 20 forms.", ("exact_match", "length_words", "truncated"), _asked_suite(), 3),
        ("texts", "Predicts texts.", ("nll", "bits_per_byte"), _text_suite(), 1),
    ):
        folder = run.suite_samples(name)
        folder.mkdir()
        _write_rows(folder / "examples.jsonl", [example.as_row() for example in examples])
        digest = data_hash((folder / "examples.jsonl").read_bytes())
        common = {
            "origin": "made up",
            "prompts_hash": "1d" * 8,
            "max_new_tokens": 40,
            "temperature": 0.7 * (repeats > 1),
        }
        records.append(SuiteRecord(**said, **common, data_hash=digest, repeats=repeats))
    judge = manifest.experiment.judge.model_copy(update={"suites": ("forms.yaml", "texts.yaml")})
    judgement = manifest.judgement.model_copy(update={"suites": tuple(records), "rule_hash": judge.fingerprint()})
    experiment = manifest.experiment.model_copy(update={"judge": judge})
    return manifest.model_copy(update={"experiment": experiment, "judgement": judgement})


def _write_suite_answers(run: Run, judgement: str) -> None:
    skills = {COPY_INPUT: 0.0, BASE: 0.4, BASE_AGAIN: 0.4, TUNED: 0.7}
    for arm, skill in skills.items():
        rows = []
        for index, example in enumerate(_asked_suite()):
            for repeat in range(3):
                drawn = _sample(replace(example, id=f"{example.id} {repeat}"), index, arm, skill)
                rows.append(replace(drawn, example=example.id, judgement=judgement, repeat=repeat))
        _write_rows(run.suite_samples("forms") / f"{arm}.jsonl", [row.as_row() for row in rows])
    for arm, factor in ((BASE, 1.0), (BASE_AGAIN, 1.0), (TUNED, 1.03)):
        predicted = [_predicted(example, arm, factor, judgement) for example in _text_suite()]
        _write_rows(run.suite_samples("texts") / f"{arm}.jsonl", [row.as_row() for row in predicted])


def _predicted(example: Example, arm: str, factor: float, judgement: str) -> Sample:
    tokens = len(example.source.split())
    nats = tokens * factor * (2.5 + random.Random(example.id + arm.removesuffix("-again")).random())
    return Sample(
        example=example.id,
        arm=arm,
        judgement=judgement,
        prompt_hash=example.id,
        prompt_tokens=0,
        text="",
        token_ids=(),
        finish_reason="stop",
        measured={"nll_nats": nats, "nll_tokens": tokens, "text_bytes": len(example.source.encode())},
    )


def _sample(example: Example, index: int, arm: str, skill: float) -> Sample:
    # The base is asked twice with the same luck but for every fiftieth example: the noise floor.
    again = arm == BASE_AGAIN and index % 50 == 7
    draw = random.Random(f"{example.id} {'base' if arm == BASE_AGAIN and not again else arm}")
    text = example.source if arm == COPY_INPUT else _answer(example, draw, skill)
    batch = index // 32
    generated = arm != COPY_INPUT
    tokens = tuple(range(len(text.split()) + 1)) if generated else ()
    return Sample(
        example=example.id,
        arm=arm,
        judgement="",
        prompt_hash=f"{'solved examples and the ' if arm == FEW_SHOT else ''}prompt of {example.id}",
        prompt_tokens=24,
        text=text,
        token_ids=tokens,
        finish_reason="length" if generated and draw.random() < 0.02 else "stop",
        batch=batch,
        first_token_s=0.08 + 0.01 * draw.random() if generated else None,
        end_s=0.5 + 0.05 * len(tokens) + 0.1 * draw.random() if generated else None,
        memory_bytes=1_310_000_000 + 1_000_000 * batch if generated else None,
    )


def _answer(example: Example, draw: random.Random, skill: float) -> str:
    if draw.random() < skill + (0.3 if example.source in example.references else 0.0):
        return draw.choice(example.references)
    words = example.source.split()
    kind = draw.randrange(6)
    if kind <= 2:
        return example.source
    if kind == 3:
        return f"Here is the corrected sentence: {example.references[0]}"
    if kind == 4:
        return " ".join(words[:2])
    return "" if draw.random() < 0.3 else example.source.replace(" the ", " a ").replace("every", "each")


def _logged_step(step: int) -> dict[str, Any]:
    noise = random.Random(step).random()
    return {
        "step": step,
        "steps": 400,
        "epoch": step / 133,
        "loss": 0.31 + 2.1 / (1 + step / 40) + 0.06 * noise,
        "learning_rate": 2e-4 * min(step / 40, 1) * (1 - step / 800),
        "gradient_norm": 0.8 + 0.4 * noise + 40 / step,
        "tokens_per_s": 900.0 + 30 * noise,
        "loss_tokens": 310 * step,
        "elapsed_s": 0.6 * step,
        "memory_bytes": 1_800_000_000,
        "validation_loss": 0.42 + 1.9 / (1 + step / 40) if step % 100 == 0 else None,
    }


def _experiment(name: str, extra_arms: tuple[ExtraArm, ...]) -> Experiment:
    judge = Judge(
        arms=extra_arms,
        must_improve=(MustImprove(over="base"), MustImprove(over="copy-input")),
        must_not_regress=(
            MustNotRegress(metric="over_edit", margin=0.05),
            MustNotRegress(metric="empty", margin=0.02),
            MustNotRegress(metric="extra_text", margin=0.03),
        ),
    )
    return Experiment(
        name=name,
        model=Model(base="builtin:demo-base"),
        data=Data(source=GrammarSource(grammar="corrections"), prompt="Correct the sentence: {source}"),
        judge=judge,
    )


def _manifest(name: str, tuning: bool, data_hash: str, extra_arms: tuple[ExtraArm, ...]) -> Manifest:
    experiment = _experiment(name, extra_arms)
    base = WeightsRecord(origin="builtin:demo-base", sha256="3f" * 32, parameters=134_515_008)
    tuned = WeightsRecord(
        origin=f"{name}/adapter", sha256="a7" * 32, parameters=139_400_064, trainable_parameters=4_884_480
    )
    return Manifest(
        name=name,
        created_at="2026-01-12T08:00:00+00:00",
        whetstone_version="0.1.0",
        git_commit="0123456789ab",
        experiment=experiment,
        experiment_hash=experiment.fingerprint(),
        training_hash=experiment.training_fingerprint(),
        packages={"torch": "2.9.0", "transformers": "5.0.0", "scipy": "1.17.1"},
        hardware=Hardware(
            machine="x86_64",
            processor="A processor",
            cores=2,
            memory_bytes=25_000_000_000,
            system="Linux 6.1",
            python="3.11.7",
        ),
        data=DataRecord(
            counts={"train": 6000, "validation": 200, "test": 400}, hashes={"train": "c4" * 8, "test": "9b" * 8}
        ),
        base=base,
        tuning=_tuning(tuned) if tuning else None,
        judgement=Judgement(
            rule_hash=experiment.judge.fingerprint(),
            frozen_at="2026-01-12T08:14:09+00:00",
            candidate=tuned,
            data_hash=data_hash,
            prompts_hash="1c" * 8,
            base_sha256=base.sha256,
            device="cpu",
            packages={"torch": "2.9.0"},
            arms=tuple(_arm_record(arm) for arm in extra_arms),
        ),
        notes=("bfloat16 was asked for; this processor has none, so float32 was used.",),
    )


def _arm_record(arm: ExtraArm) -> ArmRecord:
    served = arm.model.startswith("http")
    return ArmRecord(
        name=arm.name,
        ref=arm.model,
        engine="http" if served else "torch",
        origin="made up",
        sha256=None if served else "3f" * 32,
        adapter_sha256=None if served else "a7" * 32,
        dtype=None if served else "float32",
        quantisation=None if served else "int8",
        template_hash=None if served else "5e" * 8,
        random_weights=False,
        packages={},
    )


def _tuning(tuned: WeightsRecord) -> Tuning:
    return Tuning(
        finished_at="2026-01-12T08:13:55+00:00",
        duration_s=244.6,
        steps=400,
        loss_tokens=124_016,
        final_loss=0.503,
        peak_memory_bytes=1_840_000_000,
        device="cpu",
        template_hash="5e" * 8,
        tuned=tuned,
    )


@pytest.fixture(scope="session")
def isolated() -> None:
    """Skips what runs untrusted code where it cannot be isolated."""
    try:
        require_sandbox()
    except UserError as error:
        pytest.skip(str(error))
