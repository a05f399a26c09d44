"""Replay through the real Trainer: what is learned, what is recorded, and where a resumed run goes on."""

import json
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from whetstone.data_section import Data, GrammarSource, Replay
from whetstone.experiment import Experiment
from whetstone.model_section import Model, Scratch
from whetstone.run import Run
from whetstone.train.batch import Origin, Row, collate
from whetstone.train.check import check
from whetstone.train.order import RowOrder
from whetstone.train.trainer import CompletionTrainer, StepMetrics, fit
from whetstone.train.tune import tune
from whetstone.tune_section import Tune

STEPS = 14
BATCH, ACCUMULATION = 2, 3


def rows(count: int, first_token: int, origin: Origin) -> list[Row]:
    """Rows that are known by their first token; replayed ones are several times as long."""
    shortest = 3 if origin == "task" else 20
    return [
        Row(f"{origin} {n}", (first_token + n, *range(1, shortest + n % 4)), 1 + n % 2, origin) for n in range(count)
    ]


def example_order() -> RowOrder:
    """An epoch is no whole number of steps, and the replay set is smaller than an epoch needs."""
    return RowOrder([*rows(23, 30, "task"), *rows(3, 60, "replay")], BATCH * ACCUMULATION, 5, 0.4)


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=80,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


class Watched(CompletionTrainer):
    """Remembers the first token of every row that reaches the loss."""

    def __init__(self, folder: Path) -> None:
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=ACCUMULATION,
            learning_rate=1e-2,
            save_strategy="steps",
            save_steps=3,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
            dataloader_pin_memory=False,
        )
        super().__init__(example_order(), model=tiny(), args=arguments, data_collator=partial(collate, pad_id=0))
        self.seen: list[list[int]] = []

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        self.seen.append(inputs["input_ids"][:, 0].tolist())
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    trainer = Watched(tmp_path_factory.mktemp("undisturbed"))
    trainer.train()
    return trainer


def test_the_trainer_learns_the_order_batch_by_batch(undisturbed: Watched) -> None:
    order = example_order()
    steps = list(islice(order.batches(), STEPS))
    assert order.epochs(STEPS) > 2
    expected = [
        [order.rows[index].input_ids[0] for index in step[at : at + BATCH]]
        for step in steps
        for at in range(0, 6, BATCH)
    ]
    assert undisturbed.seen == expected


@pytest.mark.parametrize("step", [3, 9])
def test_a_new_process_goes_on_with_the_rows_that_come_next(undisturbed: Watched, tmp_path: Path, step: int) -> None:
    """Within the first epoch and after the second; the weights at the end are those of the undisturbed run."""
    checkpoint = Path(str(undisturbed.args.output_dir)) / f"checkpoint-{step}"
    resumed = Watched(tmp_path)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == STEPS
    assert resumed.seen == undisturbed.seen[step * ACCUMULATION :]
    for name, weights in undisturbed.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name


def test_long_replayed_rows_count_the_same_however_a_step_is_cut(tmp_path: Path) -> None:
    """Six rows at once are cut into short and long ones; one row at a time cannot be."""
    states = []
    for batch_size, accumulation in ((6, 1), (2, 3), (1, 6)):
        model = tiny()
        settings = Tune(method="full", steps=4, batch_size=batch_size, accumulation=accumulation, learning_rate=1e-2)
        fit(model, example_order(), [], settings, tmp_path / "metrics.jsonl", lambda metrics: None)
        states.append(model.state_dict())
    for name, weights in states[-1].items():
        assert torch.allclose(weights, states[0][name], atol=2e-5), name
        assert torch.allclose(weights, states[1][name], atol=2e-5), name


def test_metrics_count_loss_tokens_by_origin(tmp_path: Path) -> None:
    order, seen = example_order(), list[StepMetrics]()
    settings = Tune(method="full", epochs=2, batch_size=BATCH, accumulation=ACCUMULATION)
    path = tmp_path / "metrics.jsonl"
    result = fit(tiny(), order, [], settings, path, seen.append)
    learned = {"task": 0, "replay": 0}
    for metrics, step in zip(seen, order.batches(), strict=False):
        for index in step:
            learned[order.rows[index].origin] += order.rows[index].loss_tokens
        assert metrics.loss_tokens_by_origin == learned
        assert metrics.loss_tokens == sum(learned.values())
    assert result.steps == len(seen) == order.steps(2)
    assert seen[-1].epoch == pytest.approx(2, abs=0.3)
    assert json.loads(path.read_text().splitlines()[-1])["loss_tokens_by_origin"] == learned


def test_replay_of_an_experiment_is_learned_and_cut_rows_are_noted(tmp_path: Path) -> None:
    rows = [{"prompt": f"Say it {n} times.", "response": "A word. " * 40} for n in range(4)]
    (tmp_path / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = GrammarSource(grammar="corrections", train=40, validation=5, test=10)
    experiment = Experiment(
        name="mixed",
        model=Model(scratch=Scratch(vocabulary_size=400, dim=16, layers=1, heads=2, feed_forward_dim=32), device="cpu"),
        data=Data(
            source=source,
            max_tokens=100,
            too_long="truncate",
            replay=Replay(source=str(tmp_path / "general.jsonl"), fraction=0.5),
        ),
        tune=Tune(method="scratch", steps=3, batch_size=8),
    )
    run, seen, said = Run(tmp_path / "mixed"), list[StepMetrics](), list[str]()
    with run.lock():
        manifest = tune(run, experiment, check(experiment, said.append), seen.append, said.append)
    assert manifest.data is not None
    assert manifest.data.replay_examples == 4
    assert "4 replay rows were longer than allowed and lost the end of their answer (data.too_long)." in manifest.notes
    assert seen[-1].loss_tokens_by_origin["replay"] > 0
    assert any("4 rows to replay" in line for line in said)
