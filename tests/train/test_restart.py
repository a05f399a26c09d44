"""An interrupted training, resumed, is the uninterrupted one, bit for bit."""

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.data import Dataset
from transformers import Adafactor, LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainingArguments

from whetstone.errors import UserError
from whetstone.train.checkpoint import CheckpointStore, read_checkpoint, read_part
from whetstone.train.restart import Restart, Restartable, load_weights
from whetstone.train.validation import ValidationLoss
from whetstone.tune_section import Checkpoints, Validation

STEPS = 6
KINDS = ("lora", "full")

Ends = dict[str, tuple[Path, dict[str, str]]]
"""Folder and end of an uninterrupted training, by kind."""


class Rows(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 4 * STEPS

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(0, 64, (10,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": ids, "labels": ids}


class Losses(TrainerCallback):  # type: ignore[misc]
    """What the Trainer logged, and a counter that draws from every generator."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, float, float]] = []
        self.drawn: list[list[float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            self.logged.append((state.global_step, logs["loss"], logs["grad_norm"]))

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.drawn.append([random.gauss(0, 1), float(np.random.normal()), float(torch.rand(()))])

    def state(self) -> dict[str, Any]:
        return {"logged": self.logged, "drawn": self.drawn}

    def restore(self, state: dict[str, Any]) -> None:
        self.logged, self.drawn = state["logged"], state["drawn"]


class PlainTrainer(Restartable):
    """A Trainer without a loss or batches of its own."""


@dataclass
class Training:
    trainer: Restartable
    losses: Losses
    store: CheckpointStore
    said: list[str] = field(default_factory=list)


def make_model(kind: str) -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        attention_dropout=0.1,
        tie_word_embeddings=True,
    )
    model: nn.Module = LlamaForCausalLM(config)
    if kind == "lora":
        adapter = LoraConfig(r=4, lora_dropout=0.2, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, adapter)
    return model


def make_training(
    folder: Path, kind: str, *, optimiser: Callable[[Any], Any] | None = None, logging_steps: int = 3, **arguments: Any
) -> Training:
    model = make_model(kind)
    losses, said = Losses(), list[str]()
    trainer = PlainTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=STEPS,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            lr_scheduler_type="cosine",
            warmup_steps=2,
            logging_steps=logging_steps,
            save_strategy="steps",
            save_steps=1,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            optim="adamw_torch_fused",
            # The order of rows is a function of the seed alone, as ours is.
            data_seed=0,
            **arguments,
        ),
        train_dataset=Rows(),
        callbacks=[losses],
        optimizers=(None if optimiser is None else optimiser(model.parameters()), None),
    )
    store = CheckpointStore(folder / "checkpoints", Checkpoints(keep=100), said.append)
    trainer.restart = Restart(store, {"losses": losses})
    return Training(trainer, losses, store, said)


def bits(value: Any) -> Any:
    """Something that is equal only where every bit is."""
    match value:
        case torch.Tensor():
            content = value.detach().flatten().view(torch.uint8).numpy().tobytes()
            return str(value.dtype), tuple(value.shape), content
        case dict():
            return {key: bits(item) for key, item in value.items()}
        case list() | tuple():
            return [bits(item) for item in value]
    return value


def digest_of(value: Any) -> str:
    return hashlib.sha256(repr(bits(value)).encode()).hexdigest()


def end_of(training: Training) -> dict[str, str]:
    """Everything that must be the same, as hashes."""
    trainer = training.trainer
    return {
        "weights": digest_of(dict(trainer.model.named_parameters())),
        "optimiser": digest_of(trainer.optimizer.state_dict()),
        "scheduler": digest_of(trainer.lr_scheduler.state_dict()),
        "logged": digest_of(training.losses.logged),
        "drawn": digest_of(training.losses.drawn),
        "next": digest_of([random.random(), float(np.random.normal()), float(torch.rand(()))]),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ends:
    """The folder and the end of a training that nothing interrupted, with a checkpoint of every step."""
    ends = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        training = make_training(folder, kind)
        training.trainer.train()
        ends[kind] = (folder, end_of(training))
    return ends


def resume(training: Training, folder: Path, step: int) -> dict[str, str]:
    # What went before in this process must not matter.
    random.seed(step)
    np.random.seed(step)
    torch.manual_seed(step + 99)
    training.trainer.train(resume_from_checkpoint=str(folder / "checkpoints" / f"step-{step:06d}"))
    return end_of(training)


@settings(max_examples=8)
@given(kind=st.sampled_from(KINDS), step=st.integers(1, STEPS - 1))
def test_resumed_from_any_step_is_uninterrupted(
    whole: Ends,
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    step: int,
) -> None:
    folder, expected = whole[kind]
    assert resume(make_training(tmp_path_factory.mktemp("again"), kind), folder, step) == expected


def test_a_fresh_process_goes_on_alike(whole: Ends, tmp_path: Path) -> None:
    script = f"""
import importlib.util, json, pathlib, sys, torch
spec = importlib.util.spec_from_file_location("restarted", {__file__!r})
tests = importlib.util.module_from_spec(spec)
sys.modules["restarted"] = tests
spec.loader.exec_module(tests)
torch.set_num_threads({torch.get_num_threads()})
for kind, folder in {[(kind, str(whole[kind][0])) for kind in KINDS]!r}:
    path = pathlib.Path({str(tmp_path)!r}) / kind
    end = tests.resume(tests.make_training(path, kind), pathlib.Path(folder), 3)
    path.with_suffix(".json").write_text(json.dumps(end))
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    for kind in KINDS:
        assert json.loads((tmp_path / f"{kind}.json").read_text()) == whole[kind][1]


def test_without_dropout_state_the_end_differs(whole: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above notices random states that are not restored."""
    monkeypatch.setattr("whetstone.train.restart.restore_random_state", lambda state: None)
    folder, expected = whole["lora"]
    assert resume(make_training(tmp_path, "lora"), folder, 3)["weights"] != expected["weights"]


def test_the_trainer_writes_no_file_of_its_own(whole: Ends) -> None:
    for folder, _ in whole.values():
        assert [path.name for path in folder.iterdir()] == ["checkpoints"]
        files = {path.name for path in (folder / "checkpoints" / "step-000003").iterdir()}
        assert {Path(name).suffix for name in files} == {".json", ".safetensors"}
        assert "trainer_state.json" in files


def test_a_checkpoint_holds_what_learns_once(whole: Ends) -> None:
    adapter = read_checkpoint(whole["lora"][0] / "checkpoints" / "step-000003").part("weights")
    assert adapter.keys() == {name for name, _ in make_model("lora").named_parameters() if "lora" in name}
    everything = read_checkpoint(whole["full"][0] / "checkpoints" / "step-000003").part("weights")
    assert "model.embed_tokens.weight" in everything
    assert "lm_head.weight" not in everything


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True)


def adafactor(parameters: Any) -> torch.optim.Optimizer:
    optimiser: torch.optim.Optimizer = Adafactor(parameters, scale_parameter=False, relative_step=False, lr=0.01)
    return optimiser


def adamw_8bit(parameters: Any) -> torch.optim.Optimizer:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    optimiser: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(parameters, lr=0.01, min_8bit_size=256)
    return optimiser


@pytest.mark.parametrize("optimiser", [sgd, adafactor, adamw_8bit])
def test_other_optimisers_go_on_alike(optimiser: Callable[[Any], Any], tmp_path: Path) -> None:
    first = make_training(tmp_path / "first", "full", optimiser=optimiser)
    first.trainer.train()
    expected = end_of(first)
    again = make_training(tmp_path / "again", "full", optimiser=optimiser)
    assert resume(again, tmp_path / "first", 4) == expected
    kinds = {value.dtype for value in tensors_in(read_part(tmp_path / "first/checkpoints/step-000004", "optimiser"))}
    assert (torch.uint8 in kinds) == (optimiser is adamw_8bit)


def tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for item in items for tensor in tensors_in(item)]


def test_float32_statistics_of_bfloat16_weights_are_not_rounded(tmp_path: Path) -> None:
    def train(folder: Path) -> Training:
        training = make_training(folder, "full")
        training.trainer.model.to(torch.bfloat16)
        training.trainer.optimizer = adafactor(training.trainer.model.parameters())
        return training

    first = train(tmp_path / "first")
    first.trainer.train()
    expected = end_of(first)
    assert resume(train(tmp_path / "again"), tmp_path / "first", 4) == expected


def test_weights_of_another_model_are_refused(whole: Ends) -> None:
    checkpoint = read_checkpoint(whole["lora"][0] / "checkpoints" / "step-000003")
    model = make_model("full")
    before = bits(dict(model.named_parameters()))
    with pytest.raises(UserError, match=r"step-000003.*in this model; resume with the same model"):
        load_weights(model, checkpoint)
    assert bits(dict(model.named_parameters())) == before


def test_a_damaged_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    training = make_training(tmp_path / "first", "lora")
    training.trainer.train()
    weights = tmp_path / "first" / "checkpoints" / "step-000005" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=r"weights\.safetensors does not match its SHA-256"):
        resume(make_training(tmp_path / "again", "lora"), tmp_path / "first", 5)


def test_a_resumable_that_a_checkpoint_lacks_keeps_its_state(whole: Ends, tmp_path: Path) -> None:
    training = make_training(tmp_path, "full")
    newcomer = Losses()
    newcomer.restore({"logged": [], "drawn": [[1.0, 2.0, 3.0]]})
    training.trainer.restart = Restart(training.store, {"newcomer": newcomer})
    resume(training, whole["full"][0], STEPS - 1)
    assert newcomer.drawn == [[1.0, 2.0, 3.0]]


def measured(losses: list[float]) -> Callable[[], float]:
    values = iter(losses)
    return lambda: next(values)


def test_validation_survives_and_ends_where_it_had_ended(tmp_path: Path) -> None:
    def train(folder: Path, losses: list[float]) -> tuple[Training, ValidationLoss]:
        training = make_training(folder, "lora")
        validation = ValidationLoss(measured(losses), Validation(every=1, patience=2))
        training.trainer.add_callback(validation)
        training.trainer.restart = Restart(training.store, {"validation": validation}, validation.at)
        return training, validation

    first, validation = train(tmp_path / "first", [3.0, 2.0, float("nan"), 2.5])
    first.trainer.train()
    assert first.trainer.state.global_step == 4
    assert [found.validation_loss for found in first.store._whole()] == [3.0, 2.0, None, 2.5]
    assert first.store.best() == read_checkpoint(tmp_path / "first" / "checkpoints" / "step-000002")
    expected = bits(dict(first.trainer.model.named_parameters()))

    for step, losses in ((4, []), (3, [2.5])):
        again, resumed = train(tmp_path / f"again-{step}", losses)
        resume(again, tmp_path / "first", step)
        assert again.trainer.state.global_step == 4
        assert bits(dict(again.trainer.model.named_parameters())) == expected
        assert json.dumps(resumed.state()) == json.dumps(validation.state())
        assert resumed.stopped == validation.stopped


def test_trl_trainers_restart_alike(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "b": 4, "c": 5, "d": 6}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    rows = [{"prompt": "a b", "chosen": f" c {'d ' * (i % 3)}", "rejected": " d a"} for i in range(16)]

    class Preferring(Restartable, trl.DPOTrainer):  # type: ignore[misc, name-defined]
        pass

    def make(folder: Path) -> Training:
        losses = Losses()
        trainer = Preferring(
            model=make_model("lora"),
            args=trl.DPOConfig(
                output_dir=str(folder),
                max_steps=4,
                per_device_train_batch_size=4,
                learning_rate=1e-2,
                logging_steps=1,
                save_steps=1,
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                bf16=False,
                data_seed=0,
            ),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[losses],
        )
        store = CheckpointStore(folder / "checkpoints", Checkpoints(keep=9), print)
        trainer.restart = Restart(store, {"losses": losses})
        return Training(trainer, losses, store)

    first = make(tmp_path / "first")
    first.trainer.train()
    expected = end_of(first)
    assert resume(make(tmp_path / "again"), tmp_path / "first", 2) == expected
    assert [path.name for path in (tmp_path / "first").iterdir()] == ["checkpoints"]
