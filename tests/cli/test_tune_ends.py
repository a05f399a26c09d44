"""How ``whet tune`` ends: gone wrong, interrupted, out of disk; and that a run that goes on ends as if nothing was.

The command is called in this process, so that a fault strikes at a step and not at a moment.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from whetstone.cli.main import main
from whetstone.models.adapter import add_adapter
from whetstone.models.load import BUILTIN_BASE, locate
from whetstone.train import prepare, retention, trainer, tune
from whetstone.train.batch import Row
from whetstone.train.checkpoint import CheckpointStore, read_checkpoint
from whetstone.train.guard import Guard
from whetstone.train.loss import Loss, PartLoss
from whetstone.train.trainer import CompletionTrainer

STEPS, EVERY = 8, 2
DATA = {
    "source": {"grammar": "corrections", "train": 24, "validation": 4, "test": 4},
    "prompt": "Correct: {source}",
    "max_tokens": 128,
    "lint": {"allow": ["small-test"]},
}
TUNE = {
    "rank": 4,
    "targets": ["q_proj", "v_proj"],
    "references": "first",
    "dropout": 0.1,
    "steps": STEPS,
    "batch_size": 4,
    "learning_rate": 2e-3,
    "checkpoints": {"every": EVERY, "keep": 9},
}
SHAPE = {"vocabulary_size": 400, "dim": 16, "layers": 1, "heads": 2, "feed_forward_dim": 32, "context_tokens": 128}


@dataclass(frozen=True)
class Ended:
    """What a call of the command left behind."""

    code: int
    said: str

    @property
    def error(self) -> str:
        """The one line that says why."""
        errors = [line for line in self.said.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in self.said, self.said
        assert len(errors) == 1, self.said
        assert self.said.rstrip().splitlines()[-1] == errors[0]
        return errors[0]


@dataclass(frozen=True)
class Workplace:
    """A folder with an experiment, and the run that is made of it."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "tiny"

    @property
    def checkpoints(self) -> list[int]:
        """The steps of the checkpoints, each of which is proven by its hashes."""
        return sorted(read_checkpoint(path).step for path in (self.run / "checkpoints").glob("step-*"))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows; every line has to be whole."""
        path = self.run / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        assert not text or text.endswith("\n"), text[-200:]
        return [json.loads(line) for line in text.splitlines()]

    @property
    def manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.run / "run.json").read_text())
        return manifest

    def write(self, model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **tuned: Any) -> None:
        """Writes the experiment; what is given replaces what it says otherwise."""
        experiment = {
            "name": "tiny",
            "model": {"device": "cpu"} | ({"base": BUILTIN_BASE} if model is None else model),
            "data": DATA if data is None else data,
            "tune": TUNE | tuned,
        }
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(experiment))

    def tune(self, *options: str) -> Ended:
        """``whet tune tiny.yaml`` with the rest of the command line."""
        said = io.StringIO()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # Processes of pytest-xdist ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.MonkeyPatch.context() as patch, redirect_stderr(said), redirect_stdout(io.StringIO()):
            patch.chdir(self.folder)
            patch.setenv("COLUMNS", "100000")
            patch.setattr(sys, "argv", ["whet", "tune", "tiny.yaml", *options])
            # Sixty texts take longer than the whole training.
            patch.setattr(tune, "general_texts", lambda: retention.general_texts()[:2])
            try:
                main()
                code: Any = 0
            except SystemExit as ended:
                code = ended.code
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return Ended(int(code or 0), said.getvalue())

    def digest(self) -> str:
        """Of every file of the adapter."""
        files = sorted(path for path in (self.run / "adapter").iterdir())
        return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


@dataclass(frozen=True)
class Undisturbed:
    """The run to which nothing happened."""

    digest: str
    steps: list[int]
    losses: list[float]

    def equals(self, workplace: Workplace) -> bool:
        """Whether another run has ended with the same adapter and the same rows."""
        rows = workplace.metrics
        assert [row["step"] for row in rows] == self.steps
        assert [row["loss"] for row in rows] == self.losses
        return workplace.digest() == self.digest


SLOW = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are rounded in one order, and two cores that are wanted by many are not waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    place = Workplace(tmp_path)
    place.write()
    return place


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    torch.set_num_threads(1)
    place = Workplace(tmp_path_factory.mktemp("undisturbed"))
    place.write()
    ended = place.tune()
    assert ended.code == 0, ended.said
    rows = place.metrics
    return Undisturbed(place.digest(), [row["step"] for row in rows], [row["loss"] for row in rows])


def at_step(patch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Has something happen within a step, before its loss is computed."""
    training_step = CompletionTrainer.training_step

    def watched(self: CompletionTrainer, *arguments: Any, **more: Any) -> torch.Tensor:
        if self.state.global_step + 1 == step:
            act()
        return training_step(self, *arguments, **more)

    patch.setattr(CompletionTrainer, "training_step", watched)


def interrupted(place: Workplace, number: signal.Signals = signal.SIGTERM, step: int = 6) -> Ended:
    """A run that gets a signal in the middle of a step."""
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        return place.tune()


# Training that goes wrong


def test_a_loss_of_nan_names_step_examples_and_checkpoint_and_the_run_goes_on_from_there(
    workplace: Workplace, undisturbed: Undisturbed
) -> None:
    parts = Loss.parts
    seen: list[str] = []

    def poisoned(self: Loss, rows: Sequence[Row]) -> Iterator[PartLoss]:
        seen.extend(row.example for row in rows)
        for part in parts(self, rows):
            yield PartLoss(part.total * float("nan"), part.computed_tokens)

    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 6, lambda: patch.setattr(Loss, "parts", poisoned))
        ended = workplace.tune()
    assert ended.code == 2
    assert "step 6: the loss is nan" in ended.error
    assert all(f"'{example}'" in ended.error for example in seen[:3])
    assert str(Path("runs/tiny/checkpoints/step-000004")) in ended.error
    assert "learning_rate" in ended.error
    assert workplace.checkpoints == [2, 4]
    assert [row["step"] for row in workplace.metrics] == [1, 2, 3, 4, 5]
    assert not (workplace.run / "adapter").exists()
    ended = workplace.tune("--resume")
    assert ended.code == 0, ended.said
    assert undisturbed.equals(workplace)


def test_a_token_whose_embedding_is_nan_is_found_by_the_example_that_has_it(workplace: Workplace) -> None:
    """The one bad example of 24 is named, though three others stand before it in the step."""
    base = workplace.folder / "base"
    tokenizer = AutoTokenizer.from_pretrained(locate(BUILTIN_BASE))
    model = AutoModelForCausalLM.from_pretrained(locate(BUILTIN_BASE))
    token = tokenizer("~")["input_ids"][-1]
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.get_input_embeddings().weight.data[token] = float("nan")
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    rows = [
        {"id": f"row-{n}", "prompt": f"Say {'~' if n == 17 else 'it'} {n} times.", "response": f"It is {n}."}
        for n in range(40)
    ]
    (workplace.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lint = {"near_duplicates": False, "allow": ["small-test", "near-duplicate"]}
    split = {"validation": 4, "test": 4}
    workplace.write({"base": str(base)}, {"source": "rows.jsonl", "max_tokens": 128, "lint": lint, "split": split})
    ended = workplace.tune()
    assert ended.code == 2
    assert "the loss is nan" in ended.error
    assert "'row-17'" in ended.error


@pytest.mark.parametrize(
    ("model", "method"),
    [({"base": BUILTIN_BASE}, "lora"), pytest.param({"base": BUILTIN_BASE}, "full", marks=SLOW), ({}, "scratch")],
)
def test_an_absurd_learning_rate_ends_within_a_few_steps(
    workplace: Workplace, model: dict[str, Any], method: str
) -> None:
    workplace.write(model or {"scratch": SHAPE}, method=method, learning_rate=1e4, steps=100, warmup_steps=0)
    ended = workplace.tune()
    assert ended.code == 2
    assert "lower tune.learning_rate" in ended.error
    assert len(workplace.metrics) < 20
    assert not (workplace.run / "adapter").exists()
    assert not (workplace.run / "model").exists()


def test_a_learning_rate_that_is_lost_in_rounding_is_named_as_the_cause(workplace: Workplace) -> None:
    workplace.write(learning_rate=1e-30, guard={"frozen_steps": 3})
    ended = workplace.tune()
    assert ended.code == 2
    assert "step 3: the logits are still, bit for bit, those before training" in ended.error
    assert "tune.learning_rate" in ended.error
    assert workplace.checkpoints == [2]


def test_targets_that_the_forward_does_not_use_end_before_the_first_step(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layers are there and hold an adapter; nothing of them reaches the logits."""

    def bypassed(model: Any, section: Any) -> Any:
        for layer in model.model.layers:
            layer.mlp.forward = torch.zeros_like
        return add_adapter(model, section)

    monkeypatch.setattr(prepare, "add_adapter", bypassed)
    workplace.write(targets=["gate_proj", "up_proj"])
    ended = workplace.tune()
    assert ended.code == 2
    assert "no parameter that is trained bears on the logits" in ended.error
    assert "tune.targets" in ended.error
    assert not workplace.metrics


def test_targets_that_do_not_exist_end_before_the_first_step(workplace: Workplace) -> None:
    workplace.write(targets=["c_attn"])
    ended = workplace.tune()
    assert ended.code == 2
    assert "tune.targets" in ended.error
    workplace.write()
    assert workplace.tune("--fresh").code == 0


def test_a_warm_up_longer_than_the_run_is_refused(workplace: Workplace) -> None:
    workplace.write(steps=None, epochs=0.5, warmup_steps=50)
    ended = workplace.tune()
    assert ended.code == 2
    assert "tune.warmup_steps: 50 steps of warm-up, but the run has 3" in ended.error


# Interruptions


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=SLOW)])
def test_a_signal_ends_with_its_code_and_the_resumed_run_ends_with_the_same_adapter(
    workplace: Workplace, undisturbed: Undisturbed, number: signal.Signals, code: int
) -> None:
    ended = interrupted(workplace, number)
    assert ended.code == code
    assert "Traceback" not in ended.said
    assert workplace.checkpoints == [2, 4]
    refused = workplace.tune()
    assert refused.code == 2
    assert "was interrupted and has checkpoints; --resume goes on, --fresh begins anew" in refused.error
    assert workplace.checkpoints == [2, 4]
    ended = workplace.tune("--resume")
    assert ended.code == 0
    assert "going on after step 4" in ended.said
    assert undisturbed.equals(workplace)
    assert not (workplace.run / "checkpoints").exists()


def test_an_interruption_before_the_first_checkpoint_leaves_no_rows_behind(
    workplace: Workplace, undisturbed: Undisturbed
) -> None:
    """Whether it is said that the run goes on, or not: there is nothing to go on from."""
    for options in ((), ("--resume",)):
        assert interrupted(workplace, step=2).code == 143
        assert [row["step"] for row in workplace.metrics] == [1]
        ended = workplace.tune(*options)
        assert ended.code == 0, ended.said
        assert undisturbed.equals(workplace)
        shutil.rmtree(workplace.run)


@SLOW
def test_a_run_can_be_interrupted_again_and_again(workplace: Workplace, undisturbed: Undisturbed) -> None:
    for step, options in ((4, ()), (5, ("--resume",)), (8, ("--resume",))):
        with pytest.MonkeyPatch.context() as patch:
            at_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
            assert workplace.tune(*options).code == 143
    assert workplace.checkpoints == [2, 4, 6]
    assert workplace.tune("--resume").code == 0
    assert undisturbed.equals(workplace)


def test_an_interruption_after_the_last_step_is_no_dead_end(
    workplace: Workplace, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of the last step is there and the adapter is not."""

    def signalled(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(tune, "_save", signalled)
        assert workplace.tune().code == 143
    assert workplace.checkpoints[-1] == STEPS
    ended = workplace.tune("--resume")
    assert ended.code == 0, ended.said
    assert undisturbed.equals(workplace)


def test_resuming_is_refused_where_what_is_learned_has_changed_and_only_there(
    workplace: Workplace, undisturbed: Undisturbed
) -> None:
    assert interrupted(workplace).code == 143
    before = workplace.metrics
    workplace.write(learning_rate=1e-3)
    refused = workplace.tune("--resume")
    assert refused.code == 2
    assert "other model, data or tune sections" in refused.error
    workplace.write()
    assert "give one of them" in workplace.tune("--resume", "--fresh").error
    assert workplace.metrics == before
    assert workplace.checkpoints == [2, 4]
    workplace.write(checkpoints={"every": 3, "keep": 1}, watch={"track": ["tensorboard"]}, guard={"spikes": 5})
    ended = workplace.tune("--resume")
    assert ended.code == 0, ended.said
    assert workplace.digest() == undisturbed.digest
    assert [row["step"] for row in workplace.metrics] == undisturbed.steps
    assert list((workplace.run / "track").rglob("*tfevents*"))
    assert workplace.manifest["experiment"]["tune"]["checkpoints"]["every"] == 3


@SLOW
def test_fresh_begins_an_interrupted_run_anew(workplace: Workplace, undisturbed: Undisturbed) -> None:
    assert interrupted(workplace).code == 143
    ended = workplace.tune("--fresh")
    assert ended.code == 0
    assert "going on" not in ended.said
    assert undisturbed.equals(workplace)


def test_resuming_what_was_never_begun_or_is_finished_is_harmless(
    workplace: Workplace, undisturbed: Undisturbed
) -> None:
    assert workplace.tune("--resume").code == 0
    assert undisturbed.equals(workplace)
    ended = workplace.tune("--resume")
    assert ended.code == 0
    assert "is tuned already" in ended.said
    assert undisturbed.equals(workplace)


# Damage


def damage(place: Workplace, *steps: int) -> None:
    """Cuts the weights of checkpoints short."""
    for step in steps:
        path = place.run / "checkpoints" / f"step-{step:06d}" / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:-100])


def test_a_truncated_checkpoint_is_skipped_for_the_one_before(workplace: Workplace, undisturbed: Undisturbed) -> None:
    assert interrupted(workplace).code == 143
    damage(workplace, 4)
    ended = workplace.tune("--resume")
    assert ended.code == 0
    warning = next(line for line in ended.said.splitlines() if line.startswith("warning: "))
    assert "step-000004" in warning
    assert "skipped" in warning
    assert "going on after step 2" in ended.said
    assert undisturbed.equals(workplace)


def test_a_run_whose_checkpoints_are_all_damaged_begins_at_its_start(
    workplace: Workplace, undisturbed: Undisturbed
) -> None:
    assert interrupted(workplace).code == 143
    damage(workplace, 2, 4)
    ended = workplace.tune("--resume")
    assert ended.code == 0
    assert "no checkpoint here is whole" in ended.said
    assert undisturbed.equals(workplace)


@SLOW
def test_a_torn_row_of_metrics_is_cut_off(workplace: Workplace, undisturbed: Undisturbed) -> None:
    assert interrupted(workplace).code == 143
    with (workplace.run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    assert workplace.tune("--resume").code == 0
    assert undisturbed.equals(workplace)


# The disk


@dataclass(frozen=True)
class SmallDisk:
    """A disk of a few megabytes at ``runs``, and a file that takes what is to be missing."""

    folder: Path

    @property
    def ballast(self) -> Path:
        return self.folder / "ballast"

    def leave(self, free_bytes: int) -> None:
        """Fills all but so much."""
        there = os.statvfs(self.folder)
        self.ballast.write_bytes(bytes(there.f_bavail * there.f_frsize - free_bytes))


@pytest.fixture
def small_disk(workplace: Workplace) -> Iterator[SmallDisk]:
    folder = workplace.folder / "runs"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("this user may not mount a tmpfs")
    yield SmallDisk(folder)
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_in_one_line_and_the_run_goes_on_once_there_is_space(
    workplace: Workplace, undisturbed: Undisturbed, small_disk: SmallDisk
) -> None:
    at_four: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 4, lambda: small_disk.leave(40_000))
        ended = workplace.tune()
    assert ended.code == 2
    assert "the checkpoint of step 4 cannot be saved" in ended.error
    assert "No space left on device" in ended.error
    assert "the last good checkpoint is step 2: free some space, then 'whet tune --resume'" in ended.error
    assert workplace.checkpoints == [2]
    at_four = [row["step"] for row in workplace.metrics]
    assert at_four in ([1, 2, 3], [1, 2, 3, 4])
    assert not list(workplace.run.rglob("*.partial"))
    small_disk.ballast.unlink()
    ended = workplace.tune("--resume")
    assert ended.code == 0, ended.said
    assert undisturbed.equals(workplace)


def full_at(place: Workplace, disk: SmallDisk, free_bytes: int) -> Ended:
    """A run that begins with little space."""
    disk.leave(free_bytes)
    ended = place.tune()
    disk.ballast.unlink()
    return ended


def goes_on_after_a_full_disk(workplace: Workplace, undisturbed: Undisturbed, disk: SmallDisk, free_bytes: int) -> bool:
    """Whether the disk was full; what is left then is whole, and the run ends as it would have."""
    ended = full_at(workplace, disk, free_bytes)
    if ended.code == 0:
        assert undisturbed.equals(workplace)
        shutil.rmtree(workplace.run)
        return False
    assert ended.code == 2, ended.said
    assert "space" in ended.error, ended.error
    assert workplace.checkpoints is not None
    assert [row["step"] for row in workplace.metrics] == list(range(1, len(workplace.metrics) + 1))
    again = workplace.tune("--resume")
    assert again.code == 0, again.said
    assert undisturbed.equals(workplace)
    shutil.rmtree(workplace.run)
    return True


@pytest.mark.parametrize("free_bytes", [pytest.param(0, marks=SLOW), pytest.param(8_192, marks=SLOW), 65_536])
def test_a_disk_that_is_full_when_the_adapter_is_written(
    workplace: Workplace, undisturbed: Undisturbed, small_disk: SmallDisk, free_bytes: int
) -> None:
    """Its configuration, its weights or its tokenizer is what does not fit."""
    save = tune._save

    def crowded(*arguments: Any) -> Any:
        small_disk.leave(free_bytes)
        return save(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "_save", crowded)
        ended = workplace.tune()
    assert ended.code == 2, ended.said
    assert "No space left on device" in ended.error
    assert "--resume" in ended.error
    assert not (workplace.run / "adapter").exists()
    assert not list(workplace.run.rglob("*.partial"))
    small_disk.ballast.unlink()
    ended = workplace.tune("--resume")
    assert ended.code == 0, ended.said
    assert undisturbed.equals(workplace)


@pytest.mark.parametrize("free_bytes", [pytest.param(0, marks=SLOW), 12_288])
def test_a_disk_that_is_full_from_the_start(
    workplace: Workplace, undisturbed: Undisturbed, small_disk: SmallDisk, free_bytes: int
) -> None:
    assert goes_on_after_a_full_disk(workplace, undisturbed, small_disk, free_bytes)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_disk_that_fills_anywhere(workplace: Workplace, undisturbed: Undisturbed, small_disk: SmallDisk) -> None:
    """From the first byte of the run to the last."""
    full = [goes_on_after_a_full_disk(workplace, undisturbed, small_disk, pages * 4096) for pages in range(1, 200, 7)]
    assert sum(full) > 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_disk_that_fills_anywhere_in_a_run_from_scratch(workplace: Workplace, small_disk: SmallDisk) -> None:
    """Which writes the weights before training, and a whole model after it."""
    workplace.write({"scratch": SHAPE}, method="scratch")
    assert workplace.tune().code == 0
    rows = workplace.metrics
    weights = (workplace.run / "model" / "model.safetensors").read_bytes()
    ends = []
    for pages in range(1, 300, 9):
        shutil.rmtree(workplace.run)
        ended = full_at(workplace, small_disk, pages * 4096)
        ends.append(ended.code)
        assert ended.code in (0, 2), ended.said
        if ended.code == 2:
            assert "space" in ended.error
            ended = workplace.tune("--resume")
        assert ended.code == 0, ended.said
        assert [row["loss"] for row in workplace.metrics] == [row["loss"] for row in rows]
        assert (workplace.run / "model" / "model.safetensors").read_bytes() == weights
    assert ends.count(2) > 10


def test_checkpoints_keep_to_their_disk_budget_and_the_result_is_the_same(
    workplace: Workplace, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one is written, too."""
    budget_bytes, sizes, kept = 300_000, list[int](), list[int]()
    save = CheckpointStore.save

    def measured(self: CheckpointStore, *arguments: Any) -> Any:
        saved = save(self, *arguments)
        folders = list(self.folder.glob("step-*"))
        sizes.append(sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()))
        kept.append(len(folders))
        return saved

    monkeypatch.setattr(CheckpointStore, "save", measured)
    workplace.write(checkpoints={"every": 1, "keep": 9, "disk_gigabytes": budget_bytes / 1e9})
    ended = workplace.tune()
    assert ended.code == 0, ended.said
    assert max(sizes) <= budget_bytes
    assert 1 < max(kept) < STEPS
    assert workplace.digest() == undisturbed.digest


@SLOW
def test_a_disk_budget_too_small_for_two_is_said_and_keeps_the_newest_and_the_best(workplace: Workplace) -> None:
    workplace.write(checkpoints={"every": 1, "disk_gigabytes": 1e-5})
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        ended = workplace.tune()
    assert ended.said.count("exceed tune.checkpoints.disk_gigabytes (1e-05)") == 1
    assert workplace.checkpoints[-1] == 5
    assert len(workplace.checkpoints) <= 2


# Early stopping


def scripted(patch: pytest.MonkeyPatch, losses: Sequence[float]) -> None:
    """Validation losses that are known in advance."""
    left = iter(losses)
    patch.setattr(trainer, "_mean_loss", lambda *arguments: next(left))


def watch_weights(patch: pytest.MonkeyPatch) -> dict[int, dict[str, torch.Tensor]]:
    """The weights after each step but the last, as the next one finds them."""
    by_step: dict[int, dict[str, torch.Tensor]] = {}
    clip = CompletionTrainer._clip_grad_norm

    def watched(self: CompletionTrainer, model: Any) -> Any:
        learned = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
        by_step[self.state.global_step] = learned
        return clip(self, model)

    patch.setattr(CompletionTrainer, "_clip_grad_norm", watched)
    return by_step


def same_weights(place: Workplace, learned: dict[str, torch.Tensor]) -> bool:
    saved = load_file(place.run / "adapter" / "adapter_model.safetensors")
    return len(saved) == len(learned) and all(
        torch.equal(saved[name.replace(".default", "")], weight) for name, weight in learned.items()
    )


EARLY = {"every": 1, "patience": 2, "keep": "best"}


def test_patience_ends_the_run_with_the_best_weights(workplace: Workplace) -> None:
    workplace.write(validation=EARLY, checkpoints={"every": 5, "keep": 1})
    with pytest.MonkeyPatch.context() as patch:
        by_step = watch_weights(patch)
        scripted(patch, [3.0, 2.0, 2.5, 2.4])
        ended = workplace.tune()
    assert ended.code == 0, ended.said
    assert same_weights(workplace, by_step[2])
    assert not same_weights(workplace, by_step[3])
    assert workplace.manifest["tuning"]["steps"] == 4
    assert any(
        "Stopped early" in note and "the lowest is 2.0000 at step 2" in note for note in workplace.manifest["notes"]
    )


def test_the_best_weights_are_kept_though_the_training_loss_was_a_spike(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The validation loss knows better than the loss of one step."""
    workplace.write(validation=EARLY, checkpoints={"every": 5, "keep": 1})
    by_step = watch_weights(monkeypatch)
    scripted(monkeypatch, [3.0, 2.0, 2.5, 2.4])
    monkeypatch.setattr(Guard, "calm", property(lambda self: len(by_step) != 2))
    ended = workplace.tune()
    assert ended.code == 0, ended.said
    assert same_weights(workplace, by_step[2])


@SLOW
def test_early_stopping_is_the_same_after_an_interruption(workplace: Workplace) -> None:
    """The best is before the interruption, and the patience runs out after it."""
    workplace.write(validation=EARLY, checkpoints={"every": 3, "keep": 1})
    with pytest.MonkeyPatch.context() as patch:
        scripted(patch, [3.0, 2.0, 2.5, 2.4])
        assert workplace.tune().code == 0
    digest, steps = workplace.digest(), [row["step"] for row in workplace.metrics]
    shutil.rmtree(workplace.run)
    with pytest.MonkeyPatch.context() as patch:
        scripted(patch, [3.0, 2.0, 2.5])
        at_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert workplace.tune().code == 143
    with pytest.MonkeyPatch.context() as patch:
        scripted(patch, [2.4])
        ended = workplace.tune("--resume")
    assert ended.code == 0, ended.said
    assert workplace.digest() == digest
    assert [row["step"] for row in workplace.metrics] == steps


def test_a_validation_loss_that_is_never_finite_ends_in_one_line_where_the_best_is_wanted(
    workplace: Workplace,
) -> None:
    workplace.write(validation={"every": 4, "keep": "best"})
    with pytest.MonkeyPatch.context() as patch:
        scripted(patch, [float("nan")] * 2)
        ended = workplace.tune()
    assert ended.code == 2
    assert "no finite validation loss was measured" in ended.error


# Memory


@pytest.mark.parametrize(
    "error",
    [pytest.param(torch.OutOfMemoryError("CUDA out of memory"), marks=SLOW), RuntimeError("can't allocate memory")],
)
def test_out_of_memory_goes_on_with_fewer_rows_at_once_and_says_so(workplace: Workplace, error: RuntimeError) -> None:
    parts = Loss.parts

    def limited(self: Loss, rows: Sequence[Row]) -> Iterator[PartLoss]:
        if len(rows) > 4:
            raise error
        return parts(self, rows)

    data = DATA | {"source": {"grammar": "corrections", "train": 24, "validation": 20, "test": 4}}
    workplace.write(data=data, batch_size=16, validation={"every": 3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loss, "parts", limited)
        ended = workplace.tune()
    assert ended.code == 0, ended.said
    notes = [note for note in workplace.manifest["notes"] if "Out of memory" in note]
    assert notes == [
        f"Out of memory at step 1: {rows} rows are computed at once instead of {2 * rows}; an optimiser step still "
        "learns 16."
        for rows in (8, 4)
    ]


def test_out_of_memory_with_one_row_is_one_line(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Loss, rows: Sequence[Row]) -> Iterator[PartLoss]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Loss, "parts", refused)
    ended = workplace.tune()
    assert ended.code == 2
    assert "step 1: out of memory with one row at a time" in ended.error
    assert "tune.activation_checkpointing" in ended.error
