"""Settings, retention and notes of a training: in every renderer, and in none where nothing was recorded."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from whetstone.report.summary import Summary, summarise
from whetstone.report.terminal import print_summary
from whetstone.report.training import settings_words
from whetstone.report.write import write_report
from whetstone.run import Judgement, RetentionRecord, Run, SettingsRecord

WORSE = "General text got worse by +0.0312 nats per token"
USED = SettingsRecord(
    precision="bfloat16",
    weights="bfloat16",
    attention="sdpa",
    optimiser="adamw_torch_fused",
    compiled=True,
    activation_checkpointing=True,
    quantised=False,
)
SAID = (
    "lora, bfloat16 weights, products in bfloat16, attention sdpa, optimiser adamw_torch_fused, layers compiled, "
    "activations computed twice"
)


def retained(
    source: str = "general text", *, difference: float = 0.0312, spread: float | None = 0.01
) -> RetentionRecord:
    return RetentionRecord(
        source=source,
        texts=60,
        tokens=4000,
        bytes=16_000,
        windowed=0,
        nll_before=3.12346,
        nll_after=3.12346 + difference,
        bits_per_byte_before=1.1,
        bits_per_byte_after=1.2,
        difference=difference,
        standard_error=None if spread is None else spread / 2,
        low=None if spread is None else difference - spread,
        high=None if spread is None else difference + spread,
    )


@pytest.fixture
def make(make_run: Any, tmp_path: Path) -> Callable[..., Run]:
    def make(*retention: RetentionRecord, settings: SettingsRecord | None = USED) -> Run:
        run: Run = make_run(tmp_path / "run", n=40)
        run.update(settings=settings, retention=retention)
        return run

    return make


def written(run: Run) -> dict[str, str]:
    """What each renderer shows, on one line and without markup."""
    summary = write_report(run)
    html = (run.report / "index.html").read_text(encoding="utf-8")
    shown = {
        "html": re.sub(r"<[^>]+>", "", html.partition("<body>")[2]),
        "markdown": (run.report / "report.md").read_text(encoding="utf-8"),
        "terminal": printed(summary),
    }
    return {name: " ".join(text.split()) for name, text in shown.items()}


def printed(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=100)
    print_summary(console, summary)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_renderer_shows_settings_retention_and_notes(make: Callable[..., Run]) -> None:
    run = make(retained(), retained("replay, held out", difference=-0.02))
    for name, text in written(run).items():
        assert SAID in text, name
        assert "bfloat16 was asked for; this processor has none" in text, name
        for number in ("3.1235", "3.1547", "+0.0312", "+0.0212 to +0.0412", "−0.0200", "−0.0300 to −0.0100", "60"):
            assert number in text, (name, number)
    report = json.loads((run.report / "report.json").read_text())
    assert report["manifest"]["retention"][0]["difference"] == 0.0312
    assert report["manifest"]["settings"]["optimiser"] == "adamw_torch_fused"
    assert report["forgotten"] == ["general text"]


def test_worse_is_said_where_the_whole_interval_is_above_zero(make: Callable[..., Run]) -> None:
    for name, text in written(make(retained())).items():
        assert WORSE in text, name
        assert text.count("Outside the rule: general text") == 1, name


@pytest.mark.parametrize("record", [{"spread": 0.04}, {"difference": -0.05}, {"spread": None}], ids=str)
def test_nothing_is_said_where_it_is_not(make: Callable[..., Run], record: dict[str, Any]) -> None:
    run = make(retained(**record))
    for name, text in written(run).items():
        assert "got worse by" not in text, name
        assert "Outside the rule: general text" not in text, name
    assert json.loads((run.report / "report.json").read_text())["forgotten"] == []


def test_a_single_text_has_no_interval(make: Callable[..., Run]) -> None:
    run = make(retained(spread=None))
    written(run)
    html = (run.report / "index.html").read_text(encoding="utf-8")
    assert 'data-claim="manifest.retention.0.difference"' in html
    assert 'data-claim="manifest.retention.0.low"' not in html
    assert "| +0.0312 | not measured |" in (run.report / "report.md").read_text(encoding="utf-8")


def test_a_run_that_recorded_neither_says_nothing_of_them(make: Callable[..., Run]) -> None:
    run = make(settings=None)
    for name, text in written(run).items():
        assert "etention" not in text, name
        assert "products in" not in text, name
    assert settings_words(run.manifest()) is None


def test_nf4_is_among_the_settings(make: Callable[..., Run]) -> None:
    words = settings_words(make(settings=USED.model_copy(update={"quantised": True})).manifest())
    assert words is not None
    assert "bfloat16 weights over a base in NF4, products in bfloat16" in words


@pytest.mark.parametrize("change", ["other weights", "whole base"])
def test_what_was_measured_on_other_weights_is_not_shown(make: Callable[..., Run], change: str) -> None:
    """The adapter of a quantised base is another model on the whole base, whose judgement needs no bitsandbytes."""
    run = make(retained(), settings=USED.model_copy(update={"quantised": True}))
    judgement = run.manifest().judgement
    assert judgement is not None
    on_nf4 = judgement.packages | {"bitsandbytes": "0.50.2"}
    run.update(judgement=judgement.model_copy(update={"packages": on_nf4}))
    assert summarise(run).forgotten
    assert summarise(run).manifest.tuning is not None
    run.update(judgement=moved(judgement, change))
    summary = summarise(run)
    assert summary.forgotten == summary.manifest.retention == ()
    assert summary.manifest.settings is None
    assert summary.manifest.tuning is None


def moved(judgement: Judgement, change: str) -> Judgement:
    if change == "whole base":
        return judgement
    candidate = judgement.candidate.model_copy(update={"sha256": "0" * 64})
    return judgement.model_copy(update={"candidate": candidate})


def test_without_a_measured_loss_no_file_of_a_curve_is_referred_to(make: Callable[..., Run]) -> None:
    run = make()
    run.metrics_path.write_text('{"step": 1, "loss": null, "validation_loss": null, "gpu_percent": 3}\n')
    text = written(run)
    assert "training.svg" not in text["markdown"]
    assert "Training curve: not measured." in text["markdown"]
    assert "Training curve: not measured." in text["html"]
    assert not (run.report / "training.svg").exists()
