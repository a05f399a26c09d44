"""The probe of speed: which rows it times, what it makes of the times, and that nothing stays."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from whetstone.train import probe
from whetstone.train.batch import Row
from whetstone.train.order import RowOrder
from whetstone.train.probe import SpeedEstimate, probe_speed
from whetstone.train.recorder import StepMetrics
from whetstone.train.session import Session
from whetstone.tune_section import Tune


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    return LlamaForCausalLM(shape)


def rows(*lengths: int) -> list[Row]:
    return [Row(f"row {n}", [1] * length, 1) for n, length in enumerate(lengths)]


class Clock:
    """A trainer that takes a second for each 100 tokens, and ten for the first step."""

    def __init__(self, token_s: float) -> None:
        self.token_s = token_s
        self.lengths: list[set[int]] = []

    def __call__(self, model: Any, order: RowOrder, validation: Sequence[Row], tune: Tune, session: Session) -> None:
        assert tune.steps is not None
        session.metrics_path.write_text("what the trainer writes")
        self.lengths.append({len(row.input_ids) for row in order.rows})
        now = 10.0
        for step, batch in zip(range(1, tune.steps + 1), order.batches(), strict=False):
            tokens = sum(len(order.rows[index].input_ids) for index in batch)
            now += tokens * self.token_s
            rate = 1 / self.token_s if step > 1 else 1.0
            session.observer(StepMetrics(step, tune.steps, 0.0, 1.0, 1e-3, 1.0, rate, 0, {}, now, 0, None))


def test_the_time_of_an_epoch_is_that_of_its_tokens(
    monkeypatch: pytest.MonkeyPatch, make_session: Any, tmp_path: Path
) -> None:
    clock = Clock(token_s=0.01)
    monkeypatch.setattr(probe, "fit", clock)
    order = RowOrder(rows(*[10] * 20, *[30] * 60, *[50] * 20), step_rows=4, seed=0)
    speed = probe_speed(tiny(), order, Tune(batch_size=2, accumulation=2, epochs=2), make_session(tmp_path).settings)
    assert clock.lengths == [{30}]
    assert speed.tokens_per_s == pytest.approx(100)
    assert speed.measured_steps == 2
    assert speed.epoch_s == pytest.approx(30)
    assert speed.training_s == pytest.approx(60)
    assert speed.as_row()["epoch_tokens"] == 3000


def test_short_steps_are_timed_for_a_second(monkeypatch: pytest.MonkeyPatch, make_session: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(probe, "fit", Clock(token_s=1 / 1024))
    order = RowOrder(rows(*[32] * 12), step_rows=4, seed=0)
    speed = probe_speed(tiny(), order, Tune(batch_size=4, steps=7), make_session(tmp_path).settings)
    assert speed.measured_steps == 8
    assert speed.tokens_per_s == pytest.approx(1024)
    assert speed.training_s == pytest.approx(7 * 4 * 32 / 1024)


def test_replayed_tokens_are_in_the_epoch_and_their_rows_may_be_timed(
    monkeypatch: pytest.MonkeyPatch, make_session: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(probe, "fit", Clock(token_s=0.01))
    replayed = [Row(f"replay {n}", [1] * 12, 4, "replay") for n in range(10)]
    order = RowOrder([*rows(*[12] * 40), *replayed], step_rows=4, seed=0, replay_fraction=0.3)
    speed = probe_speed(tiny(), order, Tune(batch_size=4), make_session(tmp_path).settings)
    assert speed.epoch_tokens == 12 * len(order.epoch(0)) > 12 * 40


def test_a_real_probe_leaves_nothing_on_disk(
    tmp_path: Path, make_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(probe, "_ENOUGH_S", 0.0)
    order, settings = RowOrder(rows(*range(5, 15)), 2, 0), make_session(tmp_path).settings
    speed: SpeedEstimate = probe_speed(tiny(), order, Tune(batch_size=2, method="full"), settings)
    assert speed.tokens_per_s > 0
    assert speed.epoch_s == pytest.approx(speed.epoch_tokens / speed.tokens_per_s)
    assert list(tmp_path.iterdir()) == []
