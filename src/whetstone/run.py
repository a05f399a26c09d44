"""The run: a folder of plain files that holds everything a claim rests on.

``run.json`` says what was asked and with what; ``metrics.jsonl`` is the training curve; ``adapter/`` or ``model/``
holds the tuned weights; ``samples/`` the evidence; ``report/`` what was concluded. One process writes at a time, files
appear whole or not at all, and nothing that is finished is overwritten without being asked.
"""

import contextlib
import datetime
import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

import whetstone
from whetstone.errors import UserError
from whetstone.experiment import Experiment
from whetstone.files import read_json, write_json
from whetstone.judge_section import HELD_OUT
from whetstone.section import stable_hash

__all__ = [
    "ArmRecord",
    "DataRecord",
    "Hardware",
    "Judgement",
    "Manifest",
    "RetentionRecord",
    "Run",
    "SettingsRecord",
    "SuiteRecord",
    "Tuning",
    "WeightsRecord",
    "installed_packages",
    "list_runs",
    "now",
]

_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "accelerate", "numpy", "scipy", "statsmodels")


_FILES = {".lock", "check.json", "metrics.jsonl", "requests.jsonl", "requests.jsonl.meta.json", "watch.jsonl"}
_OURS = _FILES | {"adapter", "model", "merged", "base", "checkpoints", "track", "samples", "report"}


class Record(BaseModel):
    """Part of ``run.json``; unknown keys are an error, because a record that is half understood proves nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Hardware(Record):
    """The machine that the run was made on."""

    machine: str
    processor: str
    cores: int
    memory_bytes: int
    system: str
    python: str

    @classmethod
    def here(cls) -> "Hardware":
        """Describes this machine."""
        return cls(
            machine=platform.machine(),
            processor=_processor_name(),
            cores=psutil.cpu_count() or 1,
            memory_bytes=psutil.virtual_memory().total,
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
        )


class DataRecord(Record):
    """How many examples each split holds, and the hash of their content."""

    counts: dict[str, int]
    hashes: dict[str, str]
    replay_examples: int = 0
    replay_hash: str | None = None


class WeightsRecord(Record):
    """Which weights: where they came from and the hash of the tensors."""

    origin: str
    sha256: str
    parameters: int
    trainable_parameters: int = 0


class SettingsRecord(Record):
    """What training really used; where that is not what was asked, a note says why."""

    precision: str
    weights: str
    attention: str
    optimiser: str
    compiled: bool
    activation_checkpointing: bool
    quantised: bool


class RetentionRecord(Record):
    """What is left of what the base could do: the loss of texts that are not of the task, before and after.

    Attributes:
        source: What the texts are.
        texts: How many.
        tokens: How many tokens of them were predicted.
        bytes: Of their text.
        windowed: Texts that were longer than the model's context and were predicted in several windows.
        nll_before: Nats per token over all tokens.
        nll_after: Nats per token over all tokens.
        bits_per_byte_before: Over all bytes.
        bits_per_byte_after: Over all bytes.
        difference: ``nll_after - nll_before``; above zero, something was forgotten.
        standard_error: Of ``difference``, texts being drawn at random from their source; None for a single text.
        low: Lower bound of the 95% interval of ``difference``; None for a single text.
        high: Its upper bound.
    """

    source: str
    texts: int
    tokens: int
    bytes: int
    windowed: int
    nll_before: float
    nll_after: float
    bits_per_byte_before: float
    bits_per_byte_after: float
    difference: float
    standard_error: float | None
    low: float | None
    high: float | None


class Tuning(Record):
    """What training did, written once, when the tuned weights are safely on disk."""

    finished_at: str
    duration_s: float
    steps: int
    loss_tokens: int
    final_loss: float
    peak_memory_bytes: int
    device: str
    template_hash: str
    tuned: WeightsRecord


class ArmRecord(Record):
    """An arm beside the usual ones: what answered, as it was opened.

    Attributes:
        name: Of the arm.
        ref: The name that the model was opened by.
        engine: What computed: ``torch``, ``llama.cpp``, ``mlx`` or ``http``.
        origin: Where the weights are from, in words.
        sha256: Hash of the weights; None where they are with a server.
        adapter_sha256: Hash of the adapter on them.
        dtype: The type of the weights that are not quantised; None where the engine decides.
        quantisation: Of the weights; None for none that was asked for.
        template_hash: The chat template; None where a server renders.
        random_weights: The answers mean nothing.
        packages: Versions of what computed, beside those that every judgement records.
    """

    name: str
    ref: str
    engine: str
    origin: str
    sha256: str | None
    adapter_sha256: str | None
    dtype: str | None
    quantisation: str | None
    template_hash: str | None
    random_weights: bool
    packages: dict[str, str]

    def fingerprint(self) -> str:
        """Hash of what answered; not of the folder that it came from."""
        return stable_hash(self.model_dump(mode="json", exclude={"name", "ref", "origin"}))


class SuiteRecord(Record):
    """A suite that was asked beside the held-out examples, as it was frozen.

    Attributes:
        name: Of its file, without the ending.
        about: What it measures, in its own words.
        origin: The suite of the package by name, or the path of the file.
        data_hash: Of the file of its examples.
        prompts_hash: Of the prompts.
        metrics: What it is scored with.
        repeats: How many answers each of its examples has.
        max_new_tokens: The longest answer.
        temperature: Zero is greedy.
    """

    name: str
    about: str
    origin: str
    data_hash: str
    prompts_hash: str
    metrics: tuple[str, ...]
    repeats: int
    max_new_tokens: int
    temperature: float

    def fingerprint(self) -> str:
        """Hash of what is asked and how it is scored; not of where it came from."""
        return stable_hash(self.model_dump(mode="json", exclude={"about", "origin"}))


class Judgement(Record):
    """What was fixed before the first token was generated, so that every row can say which judgement it belongs to."""

    frozen_at: str
    rule_hash: str
    data_hash: str
    prompts_hash: str
    base_sha256: str
    candidate: WeightsRecord
    device: str
    packages: dict[str, str]
    arms: tuple[ArmRecord, ...] = ()
    """Those beside the usual ones."""
    suites: tuple[SuiteRecord, ...] = ()
    """Those beside the held-out examples."""
    shots: tuple[str, ...] = ()
    """The training examples that the few-shot arm is shown."""
    no_few_shot: str | None = None
    """Why there is no few-shot arm, where one was asked for."""

    def identity(self) -> dict[str, str]:
        """What two judgements must share for their rows to be mixed, by name; not when, and not from which folder."""
        return {
            "rule": self.rule_hash,
            "data": self.data_hash,
            "prompts": self.prompts_hash,
            "base weights": self.base_sha256,
            "candidate weights": self.candidate.sha256,
            "device": self.device,
            "packages": stable_hash(self.packages),
            **{f"arm {arm.name}": arm.fingerprint() for arm in self.arms},
            **{f"suite {suite.name}": suite.fingerprint() for suite in self.suites},
            **({"few-shot examples": stable_hash(self.shots)} if self.shots else {}),
        }

    def fingerprint(self) -> str:
        """Hash of :meth:`identity`, written into every row."""
        return stable_hash(self.identity())


class Manifest(Record):
    """The content of ``run.json``."""

    name: str
    created_at: str
    whetstone_version: str
    git_commit: str | None
    experiment: Experiment
    experiment_hash: str
    training_hash: str
    packages: dict[str, str]
    hardware: Hardware
    data: DataRecord | None = None
    base: WeightsRecord | None = None
    settings: SettingsRecord | None = None
    retention: tuple[RetentionRecord, ...] = ()
    tuning: Tuning | None = None
    judgement: Judgement | None = None
    earlier_judgements: tuple[Judgement, ...] = ()
    """Rules and candidates that were judged on this run before, and thrown away with --fresh."""
    notes: tuple[str, ...] = ()
    """What was asked and could not be done as asked."""

    @property
    def state(self) -> str:
        """How far the run has come, in one word."""
        if self.tuning is None:
            return "begun"
        return "tuned" if self.judgement is None else "judged"


class Run:
    """One run folder, opened for reading, or for writing inside :meth:`lock`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def metrics_path(self) -> Path:
        """One JSON row for each logged training step."""
        return self.path / "metrics.jsonl"

    @property
    def watch_path(self) -> Path:
        """Sample answers while training runs."""
        return self.path / "watch.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints; gone once the run is tuned."""
        return self.path / "checkpoints"

    @property
    def check_path(self) -> Path:
        """What was found in the data before training."""
        return self.path / "check.json"

    @property
    def requests_path(self) -> Path:
        """Requests that were measured while the tuned model was served, where that was done."""
        return self.path / "requests.jsonl"

    @property
    def samples(self) -> Path:
        """The folder of evidence: ``examples.jsonl`` and one file an arm."""
        return self.path / "samples"

    def suite_samples(self, suite: str) -> Path:
        """Where the evidence of a suite is: of the held-out examples beside the folders of the others."""
        return self.samples if suite == HELD_OUT else self.samples / suite

    @property
    def report(self) -> Path:
        """The folder of rendered reports."""
        return self.path / "report"

    def weights(self, kind: str) -> Path:
        """``adapter`` (LoRA), ``model`` (full or scratch) or ``base`` (the untrained weights of a scratch run)."""
        return self.path / kind

    def exists(self) -> bool:
        """Whether a manifest is there; a folder without one was abandoned before it began."""
        return (self.path / "run.json").exists()

    def manifest(self) -> Manifest:
        """Reads ``run.json``.

        Raises:
            UserError: There is none, or it does not follow the schema of this version.
        """
        path = self.path / "run.json"
        if not path.exists():
            raise UserError(f"{self.path}: not a run (no run.json); 'whet runs' lists what there is")
        try:
            return Manifest.model_validate(read_json(path), strict=False)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{path}: {where}: {first['msg']}; the run was made by another version or edited: make it again"
            ) from None

    def write(self, manifest: Manifest) -> None:
        """Replaces ``run.json`` atomically."""
        write_json(self.path / "run.json", manifest.model_dump(mode="json"))

    def update(self, **changes: Any) -> Manifest:
        """Replaces fields of the manifest and writes it."""
        manifest = self.manifest().model_copy(update=changes)
        self.write(manifest)
        return manifest

    def begin(self, experiment: Experiment) -> Manifest:
        """Starts the folder for an experiment, or finds the one that was started for the same training.

        Raises:
            UserError: The folder holds a run with another model, data or tune section.
        """
        if self.exists():
            manifest = self.manifest()
            if manifest.training_hash != experiment.training_fingerprint():
                raise UserError(
                    f"{self.path}: holds a run with other model, data or tune sections ({manifest.training_hash}, this "
                    f"file gives {experiment.training_fingerprint()}); give --name NEW, or --fresh to replace it"
                )
            if manifest.tuning is None and manifest.judgement is None:
                # What does not bear on the weights may still change before anything rests on it.
                return self.update(experiment=experiment, experiment_hash=experiment.fingerprint())
            return manifest
        manifest = Manifest(
            name=self.name,
            created_at=now(),
            whetstone_version=whetstone.__version__,
            git_commit=_git_commit(),
            experiment=experiment,
            experiment_hash=experiment.fingerprint(),
            training_hash=experiment.training_fingerprint(),
            packages=installed_packages(),
            hardware=Hardware.here(),
        )
        self.write(manifest)
        return manifest

    def clear(self) -> None:
        """Deletes everything but the lock, ``run.json`` first, so that an interrupted deletion is not a run.

        Raises:
            UserError: The folder holds something, but no run: it is not ours to empty.
        """
        if not self.exists() and any(child.name not in _OURS for child in self.path.iterdir()):
            raise UserError(f"{self.path}: not a run, and not empty; give --name NEW, or empty it yourself")
        (self.path / "run.json").unlink(missing_ok=True)
        for child in self.path.iterdir():
            if child.name != ".lock":
                shutil.rmtree(child) if child.is_dir() else child.unlink()

    def forget_judgement(self) -> None:
        """Deletes samples and reports."""
        for folder in (self.samples, self.report):
            for child in folder.glob("*"):
                shutil.rmtree(child) if child.is_dir() else child.unlink()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Makes this process the only writer; the operating system frees the lock when the process dies.

        Raises:
            UserError: Another process is writing.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be made ({error.strerror}); give another --runs folder") from None
        try:
            with FileLock(self.path / ".lock", timeout=0):
                self._sweep()
                yield
        except Timeout:
            raise UserError(f"{self.path}: another process is writing to this run; wait for it or stop it") from None

    def _sweep(self) -> None:
        """Removes what a killed writer left unfinished; only the holder of the lock may."""
        for left in list(self.path.rglob(".*.partial")):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)


def list_runs(root: Path) -> list[Run]:
    """The runs under a folder, by name."""
    if not root.is_dir():
        return []
    return [run for run in map(Run, sorted(root.iterdir())) if run.exists()]


def installed_packages() -> dict[str, str]:
    """The versions of the libraries that numbers depend on."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _git_commit() -> str | None:
    """The commit of the folder that the command was called in, marked when files differ from it."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def _processor_name() -> str:
    """The processor's own name on Linux, what Python knows elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
