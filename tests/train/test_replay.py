"""Replay through the real Trainer: what is learned, what is recorded, and where a resumed run goes on."""

import json
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from whetstone.cli.live import live_training
from whetstone.data_section import Data, GrammarSource, Replay
from whetstone.experiment import Experiment
from whetstone.model_section import Model, Scratch
from whetstone.run import Run
from whetstone.train.batch import Origin, Row
from whetstone.train.check import check
from whetstone.train.loss import Loss
from whetstone.train.order import RowOrder
from whetstone.train.recorder import StepMetrics
from whetstone.train.trainer import fit
from whetstone.train.tune import tune
from whetstone.tune_section import Checkpoints, Tune

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


def learned_rows(
    monkeypatch: pytest.MonkeyPatch, model: LlamaForCausalLM, session: Any
) -> tuple[list[list[int]], dict[str, torch.Tensor]]:
    """The first token of every row that reaches the loss, micro-batch by micro-batch, and the weights at the end."""
    seen: list[list[int]] = []
    parts = Loss.parts

    def watched(loss: Loss, batch: Sequence[Row]) -> Any:
        seen.append([row.input_ids[0] for row in batch])
        return parts(loss, batch)

    monkeypatch.setattr(Loss, "parts", watched)
    section = Checkpoints(every=3, keep=9)
    settings = Tune(
        method="full",
        steps=STEPS,
        batch_size=BATCH,
        accumulation=ACCUMULATION,
        learning_rate=1e-2,
        checkpoints=section,
    )
    fit(model, example_order(), [], settings, session)
    monkeypatch.undo()
    return seen, dict(model.state_dict())


def test_the_trainer_learns_the_order_and_a_new_process_goes_on_with_the_rows_that_come_next(
    tmp_path: Path, make_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the first epoch and after the second; the weights at the end are those of the undisturbed run."""
    order = example_order()
    steps = list(islice(order.batches(), STEPS))
    assert order.epochs(STEPS) > 2
    expected = [
        [order.rows[index].input_ids[0] for index in step[at : at + BATCH]]
        for step in steps
        for at in range(0, 6, BATCH)
    ]
    seen, weights = learned_rows(monkeypatch, tiny(), make_session(tmp_path, keeps_checkpoints=True))
    assert seen == expected
    for newest in (9, 3):
        for folder in (tmp_path / "checkpoints").iterdir():
            if int(folder.name.removeprefix("step-")) > newest:
                shutil.rmtree(folder)
        session = make_session(tmp_path, keeps_checkpoints=True, resume=True)
        seen_again, weights_again = learned_rows(monkeypatch, tiny(), session)
        assert seen_again == expected[newest * ACCUMULATION :]
        for name, tensor in weights.items():
            assert torch.equal(tensor, weights_again[name]), name


def test_long_replayed_rows_count_the_same_however_a_step_is_cut(tmp_path: Path, make_session: Any) -> None:
    """Six rows at once are cut into short and long ones; one row at a time cannot be."""
    states = []
    for batch_size, accumulation in ((6, 1), (2, 3), (1, 6)):
        model = tiny()
        settings = Tune(method="full", steps=4, batch_size=batch_size, accumulation=accumulation, learning_rate=1e-2)
        fit(model, example_order(), [], settings, make_session(tmp_path))
        states.append(model.state_dict())
    for name, weights in states[-1].items():
        assert torch.allclose(weights, states[0][name], atol=2e-5), name
        assert torch.allclose(weights, states[1][name], atol=2e-5), name


def test_metrics_count_loss_tokens_by_origin(tmp_path: Path, make_session: Any) -> None:
    order, seen = example_order(), list[StepMetrics]()
    settings = Tune(method="full", epochs=2, batch_size=BATCH, accumulation=ACCUMULATION)
    result = fit(tiny(), order, [], settings, make_session(tmp_path, seen.append))
    learned = {"task": 0, "replay": 0}
    for metrics, step in zip(seen, order.batches(), strict=False):
        for index in step:
            learned[order.rows[index].origin] += order.rows[index].loss_tokens
        assert metrics.loss_tokens_by_origin == learned
        assert metrics.loss_tokens == sum(learned.values())
    assert result.steps == len(seen) == order.steps(2)
    assert seen[-1].epoch == pytest.approx(2, abs=0.3)
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["loss_tokens_by_origin"] == learned


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
    run, said = Run(tmp_path / "mixed"), list[str]()
    with run.lock(), live_training(Console(quiet=True)) as view:
        manifest = tune(run, experiment, check(experiment, said.append), view, said.append)
    seen = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    assert manifest.data is not None
    assert manifest.data.replay_examples == 4
    assert "4 replay rows were longer than allowed and lost the end of their answer (data.too_long)." in manifest.notes
    assert seen[-1]["loss_tokens_by_origin"]["replay"] > 0
    assert any("4 rows to replay" in line for line in said)
