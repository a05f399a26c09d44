"""Answers on the way: what is written, and that the weights do not notice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, Trainer, TrainingArguments

from whetstone.data.example import Message
from whetstone.data.template import Template
from whetstone.files import read_jsonl
from whetstone.train.batch import Row
from whetstone.train.sample_answers import SampleAnswer, SampleAnswers
from whetstone.tune_section import Watch

STEPS = 7
WATCH = Watch(samples_every=3, samples=2)


@pytest.fixture(scope="module")
def template(load_tokenizer: Callable[[str], PreTrainedTokenizerBase]) -> Template:
    return Template(load_tokenizer("smollm2"))


@pytest.fixture(scope="module")
def rows(template: Template) -> list[Row]:
    """Three examples, the first with two references."""

    def row(example: str, question: str, answer: str) -> Row:
        prompt = template.prompt_ids([Message("user", question)])
        return Row(example, (*prompt, *template.answer_ids(answer)), len(prompt))

    return [
        row("a", "Correct this sentence: He go .", "He goes ."),
        row("a", "Correct this sentence: He go .", "He went ."),
        row("b", "Correct: she don't .", "She doesn't ."),
        row("c", "The cat sit .", "The cat sits ."),
    ]


def model(template: Template, *, lora: bool = False) -> Any:
    """With dropout, so that a random stream that moved would show."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(template.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=96,
        attention_dropout=0.1,
        attn_implementation="eager",
        pad_token_id=0,
    )
    made = LlamaForCausalLM(config)
    return get_peft_model(made, LoraConfig(r=2, lora_dropout=0.2, target_modules="all-linear")) if lora else made


def train(made: Any, rows: list[Row], folder: Path, callbacks: list[Any], **settings: Any) -> dict[str, torch.Tensor]:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=1,
        learning_rate=1e-2,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        **settings,
    )
    data = [{"input_ids": torch.tensor(row.input_ids), "labels": torch.tensor(row.labels)} for row in rows]
    Trainer(made, arguments, train_dataset=data, callbacks=callbacks).train()
    weights: dict[str, torch.Tensor] = made.state_dict()
    return weights


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_weights_are_the_same_bit_for_bit_with_and_without(
    template: Template, rows: list[Row], tmp_path: Path, lora: bool, checkpointing: bool
) -> None:
    seen: list[SampleAnswer] = []
    watching = SampleAnswers(tmp_path / "watch.jsonl", rows, template, WATCH, seen.append)
    watched, alone = (model(template, lora=lora) for _ in range(2))
    with_answers = train(watched, rows, tmp_path, [watching], activation_checkpointing=checkpointing)
    without = train(alone, rows, tmp_path, [], activation_checkpointing=checkpointing)
    assert len(seen) == 6
    assert all(torch.equal(with_answers[name], tensor) for name, tensor in without.items())
    assert watched.config.use_cache == alone.config.use_cache
    assert watched.is_activation_checkpointing == alone.is_activation_checkpointing == checkpointing


def test_rows_at_every_interval_and_at_the_end(template: Template, rows: list[Row], tmp_path: Path) -> None:
    seen: list[SampleAnswer] = []
    watching = SampleAnswers(tmp_path / "watch.jsonl", rows, template, WATCH, seen.append)
    train(model(template), rows, tmp_path, [watching])
    written = read_jsonl(tmp_path / "watch.jsonl")
    assert [(row["step"], row["example"]) for row in written] == [(s, e) for s in (3, 6, 7) for e in ("a", "b")]
    assert written == [
        {field: getattr(answer, field) for field in ("step", "example", "prompt", "answer", "reference")}
        for answer in seen
    ]
    assert "Correct this sentence: He go ." in written[0]["prompt"]
    assert (written[0]["reference"], written[1]["reference"]) == ("He goes .", "She doesn't .")


def test_the_answer_is_the_greedy_one_and_ends_with_its_turn(
    template: Template, rows: list[Row], tmp_path: Path
) -> None:
    seen: list[SampleAnswer] = []
    made = model(template).eval()
    watching = SampleAnswers(tmp_path / "watch.jsonl", rows[:1], template, WATCH, seen.append)
    train(made, rows[:1], tmp_path, [watching], num_train_epochs=1, lr_scheduler_type="constant")
    made.eval()
    ids = list(rows[0].input_ids[: rows[0].prompt_tokens])
    answer: list[int] = []
    while len(answer) < 64 and (not answer or answer[-1] != template.end_of_turn_id) and len(ids) < 96:
        with torch.no_grad():
            answer.append(int(made(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        ids.append(answer[-1])
    assert seen[-1].answer == template.decode(answer)


def test_an_answer_stops_where_the_context_does(template: Template, rows: list[Row], tmp_path: Path) -> None:
    made = model(template)
    made.config.max_position_embeddings = rows[0].prompt_tokens + 2
    lengths: list[int] = []
    generate = made.generate

    def measured(**kwargs: Any) -> torch.Tensor:
        generated: torch.Tensor = generate(**kwargs)
        lengths.append(generated.shape[1] - kwargs["input_ids"].shape[1])
        return generated

    made.generate = measured
    SampleAnswers(tmp_path / "watch.jsonl", rows[:1], template, WATCH, lambda _: None)._answer(made, 1)
    assert 1 <= lengths[0] <= 2


def test_modes_streams_and_failures_leave_no_trace(template: Template, rows: list[Row], tmp_path: Path) -> None:
    made = model(template).train()
    made.model.layers[0].eval()
    before = {name: module.training for name, module in made.named_modules()}
    stream = torch.get_rng_state()

    def fail(answer: SampleAnswer) -> None:
        torch.rand(3)
        raise InterruptedError

    watching = SampleAnswers(tmp_path / "watch.jsonl", rows, template, WATCH, fail)
    with pytest.raises(InterruptedError):
        watching._answer(made, 1)
    assert {name: module.training for name, module in made.named_modules()} == before
    assert torch.equal(torch.get_rng_state(), stream)


def test_nothing_is_answered_unless_asked(template: Template, rows: list[Row], tmp_path: Path) -> None:
    watching = SampleAnswers(tmp_path / "watch.jsonl", rows, template, Watch(), lambda _: None)
    train(model(template), rows, tmp_path, [watching])
    assert not (tmp_path / "watch.jsonl").exists()
