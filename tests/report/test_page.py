"""The page stands whatever the models wrote and whatever is missing."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from whetstone.evaluate.sample import ARMS
from whetstone.judge_section import MustImprove
from whetstone.report.markdown import render_markdown
from whetstone.report.page import render_page
from whetstone.report.palette import DARK, LIGHT
from whetstone.report.summary import summarise
from whetstone.run import Run

HOSTILE = "</style></script><script>alert(1)</script><img src=x onerror=alert(1)> \"' & {{ 7 * 7 }}"


@pytest.fixture(scope="module")
def made(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run: Run = make_run(tmp_path_factory.mktemp("runs") / "made", n=40, tuning=False)
    return run


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    """A copy that a test may damage."""
    shutil.copytree(made.path, tmp_path / "run")
    return Run(tmp_path / "run")


def page_of(run: Run) -> str:
    return render_page(summarise(run))


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def set_text(text: str) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        row["text"] = text

    return change


def set_source(text: str) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        row.update(id=f"{row['id']}{text}", source=text, category=text, references=[*row["references"], text])

    return change


def test_hostile_texts_are_shown_as_text(run: Run) -> None:
    edit(run.samples / "tuned.jsonl", set_text(HOSTILE))
    html = page_of(run)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script>alert(1)" not in html
    assert "<img" not in html
    assert html.count("</style>") == 1
    assert html.count("<script>") == 1
    assert "{{ 7 * 7 }}" in html


def test_hostile_examples_are_shown_as_text(run: Run) -> None:
    edit(run.samples / "examples.jsonl", set_source(HOSTILE))
    for arm in ARMS:
        edit(run.samples / f"{arm}.jsonl", lambda row: row.update(example=row["example"] + HOSTILE))
    html = page_of(run)
    assert html.count("&lt;/style&gt;") > 30
    assert html.count("</style>") == html.count("<script>") == 1


def test_only_the_pages_own_script_may_run(run: Run) -> None:
    html = page_of(run)
    script = html.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = html.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_nothing_is_fetched(run: Run) -> None:
    html = page_of(run)
    assert not re.search(r'(?:src|href)="(?!#|data:,)', html)
    assert not re.search(r"@import|url\(", html)


@pytest.mark.parametrize("text", ["日本語のテキスト 🙂 العربية", "\u202eevil\u202c", "zero\u200bwidth", "a" * 5000])
def test_any_unicode_and_any_length_is_shown_unchanged(run: Run, text: str) -> None:
    edit(run.samples / "tuned.jsonl", set_text(text))
    assert f"<ins>{text}</ins>" in page_of(run)


def test_texts_cannot_turn_the_text_around_them(run: Run) -> None:
    edit(run.samples / "tuned.jsonl", set_text("\u202eevil"))
    html = page_of(run)
    assert html.count("<bdi>") == html.count("</bdi>") > 0
    assert re.search("<ins>\u202eevil</ins>\\s*</bdi>", html)


def test_without_changes_the_page_says_so(run: Run) -> None:
    shutil.copy(run.samples / "base.jsonl", run.samples / "tuned.jsonl")
    edit(run.samples / "tuned.jsonl", lambda row: row.update(arm="tuned"))
    html = page_of(run)
    assert "Tuning fixed no example and broke none." in html
    assert 'class="change"' not in html


def test_only_the_examples_leaves_no_number_about_answers(run: Run) -> None:
    for arm in ARMS:
        (run.samples / f"{arm}.jsonl").unlink()
    run.update(tuning=None, judgement=None, base=None, data=None, git_commit=None)
    html = page_of(run)
    families = {path.split(".")[0] for path in re.findall(r'data-claim="([^"]+)"', html)}
    assert families == {"verdict", "gates", "examples"}
    assert html.count("not measured") > 60


def test_an_arm_that_is_half_written_is_not_measured(run: Run) -> None:
    path = run.samples / "tuned.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert 'data-claim="arms.tuned' not in page_of(run)


def test_one_changed_row_changes_the_page(run: Run) -> None:
    path, claim = run.samples / "tuned.jsonl", r'value="([^"]+)" data-claim="arms.tuned.exact_match.mean"'
    before = float(re.findall(claim, page_of(run))[0])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    references = [json.loads(line)["references"] for line in (run.samples / "examples.jsonl").read_text().splitlines()]
    wrong = next(i for i, row in enumerate(rows) if row["text"] not in references[i])
    rows[wrong]["text"] = references[wrong][0]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert float(re.findall(claim, page_of(run))[0]) == pytest.approx(before + 1 / len(rows))


def test_unknown_memory_is_not_a_zero(run: Run) -> None:
    edit(run.samples / "base.jsonl", lambda row: row.update(memory_bytes=None))
    html = page_of(run)
    assert 'data-claim="speed.base.tokens_per_s"' in html
    assert 'data-claim="speed.base.memory_bytes"' not in html


def test_at_most_thirty_of_each_kind_are_listed_and_the_total_is_said(make_run: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "many", n=160, tuned_skill=0.9)
    html = page_of(run)
    total = int(re.findall(r'value="(\d+)" data-claim="changes.fixed.total"', html)[0])
    assert total > 30
    assert html.count('data-kind="fixed"') == 30


def test_metrics_without_a_reference_in_the_input_apply_to_nothing(run: Run) -> None:
    edit(run.samples / "examples.jsonl", lambda row: row.update(source="wrong"))
    html = page_of(run)
    assert 'data-claim="arms.tuned.over_edit' not in html
    assert 'data-claim="arms.tuned.exact_match.mean"' in html


def test_losses_that_are_not_numbers_are_left_out(run: Run) -> None:
    rows = ['{"step": 10, "loss": 1.5, "validation_loss": 2.0}', '{"step": 20, "loss": NaN, "validation_loss": null}']
    run.metrics_path.write_text("".join(f"{row}\n" for row in rows))
    html = page_of(run)
    assert 'data-claim="training.0.loss">1.5000<' in html
    assert 'data-claim="training.1.loss"' not in html
    assert "nan" not in re.findall(r'value="([^"]*)"', html.lower())


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "muted", "accent", "good", "bad", "open"])
def test_text_has_the_contrast_of_wcag_aa(palette: dict[str, str], ink: str) -> None:
    own = [f"{ink}-soft"] if f"{ink}-soft" in palette else ["surface"]
    for paper in ("paper", *own):
        light, dark = sorted((luminance(palette[ink]), luminance(palette[paper])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_both_palettes_name_the_same_colours_once() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)


def test_earlier_judgements_are_told(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", n=40)
    assert "were judged on this run before" not in page_of(run)
    frozen = run.manifest().judgement
    assert frozen is not None
    run.update(earlier_judgements=(frozen.model_copy(update={"rule_hash": "0123abcd"}),))
    html = page_of(run)
    assert "were judged on this run before" in html
    assert "0123abcd" in html


def test_the_runs_own_training_is_not_shown_for_other_weights(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", n=40)
    assert 'data-claim="manifest.tuning.steps"' in page_of(run)
    manifest = run.manifest()
    assert manifest.judgement is not None
    other = manifest.judgement.candidate.model_copy(update={"sha256": "ee" * 32})
    run.update(judgement=manifest.judgement.model_copy(update={"candidate": other}))
    assert 'data-claim="manifest.tuning.steps" value=' not in page_of(run)


def test_a_loss_that_no_gate_looks_at_is_said_beside_the_gates(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tuned_skill=0.05)
    manifest = run.manifest()
    assert "Outside the rule: Exact match" not in page_of(run)
    gates = (MustImprove(metric="empty"),)
    blind = manifest.experiment.judge.model_copy(update={"must_not_regress": (), "must_improve": gates})
    run.update(experiment=manifest.experiment.model_copy(update={"judge": blind}))
    summary = summarise(run)
    assert "exact_match" in [found.metric.name for _, found in summary.unguarded_losses]
    for text in (render_page(summary), render_markdown(summary)):
        assert "Outside the rule: Exact match" in text
