"""Every number of a training report is computed a second time, from the files and by other code, and compared."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whetstone.report.kinds.training.charts import CHARTS
from whetstone.report.kinds.training.evidence import load
from whetstone.report.kinds.training.page import render_training
from whetstone.report.kinds.training.summarise import summarise_training
from whetstone.report.kinds.training.write import write_training_report
from whetstone.run import Run


@pytest.fixture(scope="module")
def run(make_training: Callable[[Path], Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_training(tmp_path_factory.mktemp("runs") / "trained")
    write_training_report(made, made.report / "training")
    return made


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Files:
    """Recomputes what a path names."""

    def __init__(self, run: Run) -> None:
        self.rows = read(run.metrics_path)
        self.watched = read(run.watch_path)
        self.check = json.loads(run.check_path.read_text())
        self.manifest = json.loads((run.path / "run.json").read_text())

    def expected(self, path: str) -> Any:
        first, *rest = path.split(".")
        return getattr(self, f"_{first}")(*rest)

    def column(self, name: str, since: int = 0, until: int = 10**9) -> np.ndarray[Any, Any]:
        rows = [row for row in self.rows if since <= row["step"] <= until and row[name] is not None]
        return np.array([(row["step"], row[name]) for row in rows])

    def _rows(self, index: str, name: str) -> Any:
        return self.rows[int(index)][name]

    def _loss(self, which: str, what: str) -> Any:
        points = self.column("loss")
        at = {"first": 0, "last": -1, "lowest": int(points[:, 1].argmin())}[which]
        return points[at][0 if what == "step" else 1]

    def _validation(self, which: str, what: str = "") -> Any:
        points = self.column("validation_loss")
        if which == "points":
            return len(points)
        return points[{"best": int(points[:, 1].argmin()), "last": -1}[which]][0 if what == "step" else 1]

    def _progress(self, what: str) -> Any:
        last = self.rows[-1]
        return {
            "step": last["step"],
            "steps": last["steps"],
            "epoch": last["epoch"],
            "duration_s": last["elapsed_s"],
            "loss_tokens": last["loss_tokens"],
            "tokens_per_s": np.median(self.column("tokens_per_s")[:, 1]),
            "computed_tokens_per_s": np.median(self.column("computed_tokens_per_s")[:, 1]),
            "peak_memory_bytes": self.column("memory_bytes")[:, 1].max(),
            "machine_memory_bytes": self.manifest["hardware"]["memory_bytes"],
        }[what]

    def _origins(self, index: str, what: str) -> Any:
        tokens = list(self.rows[-1]["loss_tokens_by_origin"].values())
        return tokens[int(index)] if what == "tokens" else tokens[int(index)] / sum(tokens)

    def _clipping(self, what: str) -> Any:
        norms, limit = self.column("gradient_norm")[:, 1], self.manifest["experiment"]["tune"]["max_gradient_norm"]
        return {"limit": limit, "n": len(norms), "clipped": (norms > limit).sum(), "share": (norms > limit).mean()}[
            what
        ]

    def _readings(self, sensor: str, what: str) -> Any:
        values = self.column(sensor)[:, 1]
        return {"n": len(values), "median": np.median(values), "maximum": values.max(), "last": values[-1]}[what]

    def _retention(self, index: str, what: str) -> Any:
        return self.manifest["retention"][int(index)][what]

    def _notes(self, index: str) -> Any:
        return self.manifest["notes"][int(index)]

    def _settings(self, index: str, what: str) -> Any:
        tune, used = self.manifest["experiment"]["tune"], self.manifest["settings"]
        asked = [tune["precision"], self.manifest["experiment"]["model"]["dtype"], tune["attention"], tune["optimiser"]]
        really = [used["precision"], used["weights"], used["attention"], used["optimiser"], "no", "yes"]
        return ([*asked, "no", "no"] if what == "asked" else really)[int(index)]

    def _check(self, what: str, index: str, name: str) -> Any:
        found = self.check[what][int(index)]
        spread = {"median_tokens": "median", "longest_tokens": "maximum"}
        return found["row_tokens"][spread[name]] if name in spread else found[name]

    def _answers(self, what: str, index: str, *rest: str) -> Any:
        if what == "steps":
            step = sorted({row["step"] for row in self.watched})[int(index)]
            said = [row["answer"] == row["reference"] for row in self.watched if row["step"] == step]
            return {"step": step, "n": len(said), "right": sum(said)}[rest[0]]
        name = ("v1", "v2")[int(index)]
        said = [(row["step"], row["answer"]) for row in self.watched if row["example"] == name]
        texts = list(dict.fromkeys(text for _, text in said))
        steps = [step for step, text in said if text == texts[int(rest[1])]]
        return {"step": min(steps), "until": max(steps)}[rest[2]]

    def _guard(self, what: str, index: str, name: str) -> Any:
        step, note = 30, self.manifest["notes"][1]
        assert (what, index) == ("events", "0")
        return {"step": step, "text": note, "kind": "out of memory"}[name]

    def _advice(self, index: str, what: str, *rest: str) -> Any:
        rules = ["overfitting", "forgotten", "faulty_data", "better_weights_earlier", "memory_nearly_full", "slower"]
        rules.insert(5, "mostly_clipped")
        rules = [rule for rule in rules if rule != "mostly_clipped" or self._clipping("share") >= 0.5]
        # The worst first, and each severity in the order of the rules.
        rule = rules[int(index)]
        if what == "title":
            return {
                "overfitting": "It overfits",
                "forgotten": "General text got worse",
                "faulty_data": "It was trained on data with known faults",
                "better_weights_earlier": "Earlier weights predicted better",
                "mostly_clipped": "Most gradients were clipped",
                "memory_nearly_full": "Memory was nearly full",
                "slower": "Training slowed down",
            }[rule]
        return self.numbers(rule)[rest[0]]

    def numbers(self, rule: str) -> dict[str, Any]:
        validation, losses, rates = self.column("validation_loss"), self.column("loss"), self.column("tokens_per_s")[1:]
        best = int(validation[:, 1].argmin())
        turn, last = validation[best], validation[-1]
        quarter = len(rates) // 4
        early, late = np.median(rates[:quarter, 1]), np.median(rates[-quarter:, 1])
        peak, machine = self._progress("peak_memory_bytes"), self._progress("machine_memory_bytes")
        return {
            "overfitting": {
                "rises": len(validation) - 1 - best,
                "points": len(validation),
                "lowest": turn[1],
                "turn": turn[0],
                "last": last[1],
                "last_step": last[0],
                "before": losses[losses[:, 0] <= turn[0]][-3:, 1].mean(),
                "after": losses[-3:, 1].mean(),
            },
            "forgotten": {k: self._retention("0", k) for k in ("difference", "low", "high", "texts")},
            "faulty_data": {"errors": 0, "warnings": 1},
            "better_weights_earlier": {"best": turn[1], "best_step": turn[0], "last": last[1]},
            "mostly_clipped": {
                **{k: self._clipping(k) for k in ("clipped", "n")},
                "median": np.median(self.column("gradient_norm")[:, 1]),
            },
            "memory_nearly_full": {"peak": peak, "machine": machine, "share": peak / machine},
            "slower": {
                "early": early,
                "late": late,
                "share": 1 - late / early,
                "hottest": self.column("cpu_temperature_c")[:, 1].max(),
            },
        }[rule]


def same(value: str, expected: Any) -> bool:
    return value == expected if isinstance(expected, str) else float(value) == pytest.approx(float(expected))


def test_every_claim_is_recomputed_from_the_files(run: Run, parse: Callable[[Path], Any]) -> None:
    files = Files(run)
    claims = parse(run.report / "training" / "index.html").claims
    wrong = [(path, value) for path, value, _ in claims if not same(value, files.expected(path))]
    assert wrong == []
    families = {path.split(".")[0] for path, _, _ in claims}
    assert families == {*" ".join(GONE.values()).split(), "advice", "notes", "retention", "settings"}
    assert len({path for path, _, _ in claims}) > 300


def test_what_is_shown_is_the_value_rounded(run: Run, parse: Callable[[Path], Any]) -> None:
    shown = {path: text for path, _, text in parse(run.report / "training" / "index.html").claims}
    files = Files(run)
    assert shown["loss.last.value"] == f"{files.expected('loss.last.value'):.4f}"
    assert shown["progress.duration_s"] == "7 min 20 s"
    assert shown["progress.peak_memory_bytes"] == f"{24e9 / 2**30:.1f} GiB"
    assert shown["origins.1.share"] == "15.0%"
    assert shown["retention.1.difference"] == "−0.0500"
    assert shown["rows.3.learning_rate"] == f"{files.expected('rows.3.learning_rate'):.2e}"


def test_claims_are_the_values_of_the_same_path_in_the_json_report(run: Run, parse: Callable[[Path], Any]) -> None:
    report = json.loads((run.report / "training" / "report.json").read_text())
    for path, value, _ in parse(run.report / "training" / "index.html").claims:
        found = report
        for key in path.split("."):
            found = found[int(key)] if isinstance(found, list) else found[key]
        assert value == str(found)


def test_no_number_stands_outside_claims_samples_manifest_and_charts(run: Run, parse: Callable[[Path], Any]) -> None:
    page = parse(run.report / "training" / "index.html")
    assert [text for text in page.prose if re.search(r"\d", text)] == []
    assert len(page.prose) > 100


GONE = {
    "metrics.jsonl": "clipping loss origins progress readings rows validation guard",
    "watch.jsonl": "answers",
    "check.json": "check",
}


@pytest.mark.parametrize("name", GONE)
def test_without_a_file_its_numbers_are_not_measured(
    make_training: Callable[[Path], Run], parse: Callable[[Path], Any], tmp_path: Path, name: str
) -> None:
    run = make_training(tmp_path / "run")
    page = tmp_path / "index.html"

    def shown() -> Any:
        # The small charts take a second to draw, and say nothing that is a claim.
        report = summarise_training(load(run))
        page.write_text(render_training(report, dict.fromkeys(chart.name for chart in CHARTS)), encoding="utf-8")
        return parse(page)

    before = shown()
    (run.path / name).unlink()
    after = shown()
    families = {path.split(".")[0] for path, _, _ in after.claims}
    assert set(GONE[name].split()) <= {path.split(".")[0] for path, _, _ in before.claims}
    assert families.isdisjoint(GONE[name].split())
    assert after.text.count("not measured") > before.text.count("not measured")
    kept = {path: value for path, value, _ in before.claims if not path.startswith("advice.")}
    assert all(kept[path] == value for path, value, _ in after.claims if not path.startswith("advice."))


def test_with_the_record_alone_only_what_it_holds_is_said(
    make_training: Callable[[Path], Run], parse: Callable[[Path], Any], tmp_path: Path
) -> None:
    run = make_training(tmp_path / "run")
    for name in GONE:
        (run.path / name).unlink()
    run.update(retention=(), settings=None, tuning=None, notes=())
    out = tmp_path / "out"
    out.mkdir()
    (out / "loss.svg").write_text("of an earlier report")
    report = write_training_report(run, out)
    assert report.advice == ()
    assert not list(out.glob("*.svg"))
    assert ".svg" not in (out / "report.md").read_text()
    page = parse(out / "index.html")
    assert {path.rpartition(".")[2] for path, _, _ in page.claims} == {"asked"}


def test_the_markdown_says_the_same_numbers(run: Run) -> None:
    text, files = (run.report / "training" / "report.md").read_text(), Files(run)
    for path in ("loss.last.value", "validation.best.value", "retention.0.nll_after"):
        assert f"{files.expected(path):.4f}" in text
    for chart in (run.report / "training").glob("*.svg"):
        assert f"]({chart.name})" in text
    assert "Power of the GPU: not measured." in text
    assert "- **Mend: It overfits.** The validation loss rose for the last" in text
