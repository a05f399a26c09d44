"""Every number on the page is computed a second time, from the rows and by other code, and compared."""

import functools
import json
import re
import shutil
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from whetstone.evaluate.sample import ARMS
from whetstone.judge_section import ExtraArm
from whetstone.report.page import render_page
from whetstone.report.summary import summarise
from whetstone.report.write import write_report
from whetstone.run import RetentionRecord, Run
from whetstone.stats.paired import Interval, PairedComparison, compare_paired, mean_interval, non_inferiority_p
from whetstone.stats.power import examples_needed, minimum_detectable_effect

Row = dict[str, Any]
VOID = {"meta", "link", "input", "br", "hr", "img", "path", "line", "circle", "rect"}
UNSEEN = {"style", "script", "title", "svg"}
EXTRA = (ExtraArm(name="tuned-8bit", model="tuned@int8"), ExtraArm(name="base-8bit", model="base@int8"))


@dataclass
class Claim:
    path: str
    value: str
    text: str = ""


@dataclass
class Page(HTMLParser):
    """The claims of a page, and the visible text that is neither claim, sample, manifest nor chart."""

    claims: list[Claim] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            return
        given = dict(attrs)
        exempt = tag in UNSEEN or "data-sample" in given or "data-manifest" in given
        if given.get("class") == "claim":
            exempt = True
            self.claims.append(Claim(str(given["data-claim"]), str(given["value"])))
        self._open.append((tag, exempt))

    def handle_endtag(self, tag: str) -> None:
        while tag not in VOID and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self._open]
        if "data" in tags:
            self.claims[-1].text += data
        if not UNSEEN.intersection(tags):
            self.text.append(data)
        if not any(exempt for _, exempt in self._open):
            self.prose.append(data)


def parse(html: str) -> Page:
    page = Page()
    page.feed(html)
    return page


@functools.cache
def interval_of(scores: tuple[float, ...], groups: tuple[str, ...], level: float) -> Interval:
    return mean_interval(scores, groups, level=level)


@functools.cache
def comparison_of(
    before: tuple[float, ...], after: tuple[float, ...], groups: tuple[str, ...], level: float
) -> PairedComparison:
    return compare_paired(before, after, groups, level=level)


def words(text: str) -> str:
    return " ".join(text.split())


SCORES: dict[str, Callable[[Row, Row], float | None]] = {
    "exact_match": lambda e, s: float(words(s["text"]) in [words(r) for r in e["references"]]),
    "over_edit": lambda e, s: (
        float(words(s["text"]) != words(e["source"]))
        if words(e["source"]) in [words(r) for r in e["references"]]
        else None
    ),
    "copy_rate": lambda e, s: float(words(s["text"]) == words(e["source"])),
    "extra_text": lambda e, s: float(
        words(s["text"]) not in [words(r) for r in e["references"]]
        and any(words(r) in words(s["text"]) for r in e["references"])
    ),
    "empty": lambda e, s: float(words(s["text"]) == ""),
    "too_short": lambda e, s: float(len(s["text"].split()) < 0.5 * min(len(r.split()) for r in e["references"])),
    "truncated": lambda e, s: float(s["finish_reason"] != "stop"),
    "length_words": lambda e, s: float(len(s["text"].split())),
}
LOWER_IS_BETTER = {"over_edit", "extra_text", "empty", "too_short", "truncated"}


class Rows:
    """Recomputes what a path names from the files of a run; the only borrowed code is that of whetstone.stats."""

    def __init__(self, folder: Path) -> None:
        self.examples = list(self._read(folder / "samples" / "examples.jsonl"))
        self.arms = {
            path.stem: {row["example"]: row for row in self._read(path)}
            for path in (folder / "samples").glob("*.jsonl")
            if path.stem != "examples"
        }
        curve = folder / "metrics.jsonl"
        self.training = list(self._read(curve)) if curve.exists() else []
        self.manifest = json.loads((folder / "run.json").read_text())
        self.level = self.manifest["experiment"]["judge"]["confidence"]

    @staticmethod
    def _read(path: Path) -> Iterator[Row]:
        for line in path.read_text().splitlines():
            yield json.loads(line)

    def expected(self, path: str) -> Any:
        first, *rest = path.split(".")
        return getattr(self, f"_{first}")(*rest)

    def _score(self, arm: str, metric: str) -> list[float | None]:
        return [SCORES[metric](example, self.arms[arm][example["id"]]) for example in self.examples]

    def pairs(self, metric: str, baseline: str, candidate: str) -> tuple[list[float], list[float], list[str]]:
        triples = zip(self._score(baseline, metric), self._score(candidate, metric), self.examples, strict=True)
        kept = [(a, b, e["group"]) for a, b, e in triples if a is not None and b is not None]
        return [a for a, _, _ in kept], [b for _, b, _ in kept], [group for _, _, group in kept]

    def compare(self, metric: str, baseline: str, candidate: str) -> PairedComparison:
        before, after, groups = self.pairs(metric, baseline, candidate)
        return comparison_of(tuple(before), tuple(after), tuple(groups), self.level)

    def _examples(self, what: str) -> int:
        return {"n": len(self.examples), "groups": len({example["group"] for example in self.examples})}[what]

    def _verdict(self, what: str) -> Any:
        return {"outcome": self.outcome(), "confidence": self.level}[what]

    def _arms(self, arm: str, metric: str, what: str, end: str = "") -> Any:
        scored = zip(self._score(arm, metric), self.examples, strict=True)
        kept = [(score, example["group"]) for score, example in scored if score is not None]
        scores, groups = [score for score, _ in kept], [group for _, group in kept]
        if what == "interval":
            return getattr(interval_of(tuple(scores), tuple(groups), self.level), end)
        return {"mean": sum(scores) / len(scores), "n": len(scores), "groups": len(set(groups))}[what]

    def _comparisons(self, metric: str, over: str, what: str, end: str = "") -> Any:
        return self._paired(metric, over, "tuned", what, end)

    def _variants(self, arm: str, what: str, end: str = "") -> Any:
        return self._paired("exact_match", {"tuned-8bit": "tuned", "base-8bit": "base"}[arm], arm, what, end)

    def _noise_floor(self, what: str, end: str = "") -> Any:
        return self._paired("exact_match", "base", "base-again", what, end)

    def _paired(self, metric: str, baseline: str, candidate: str, what: str, end: str) -> Any:
        before, after, _ = self.pairs(metric, baseline, candidate)
        if what == "difference":
            return sum(after) / len(after) - sum(before) / len(before)
        if what == "n":
            return len(before)
        if what == "flips":
            return self._count_flips(before, after)[end]
        found = getattr(self.compare(metric, baseline, candidate), what)
        return getattr(found, end) if end else found

    @staticmethod
    def _count_flips(before: list[float], after: list[float]) -> dict[str, int]:
        names = {(1.0, 1.0): "both_right", (0.0, 1.0): "fixed", (1.0, 0.0): "broken", (0.0, 0.0): "both_wrong"}
        kinds = [names[pair] for pair in zip(before, after, strict=True)]
        return {name: kinds.count(name) for name in names.values()}

    def _flips(self, what: str) -> int:
        before, after, _ = self.pairs("exact_match", "base", "tuned")
        return self._count_flips(before, after)[what]

    def _changes(self, kind: str, what: str) -> int:
        return min(30, self._flips(kind)) if what == "listed" else self._flips(kind)

    def _speed(self, arm: str, what: str) -> float:
        rows = list(self.arms[arm].values())
        longest: dict[int, float] = {}
        for row in rows:
            longest[row["batch"]] = max(row["end_s"], longest.get(row["batch"], 0.0))
        found: dict[str, float] = {
            "tokens_per_s": sum(len(row["token_ids"]) for row in rows) / sum(longest.values()),
            "latency_p50_s": statistics.median(row["end_s"] for row in rows),
            "first_token_p50_s": statistics.median(row["first_token_s"] for row in rows),
            "memory_bytes": max(row["memory_bytes"] for row in rows),
        }
        return found[what]

    def _training(self, index: str, what: str) -> Any:
        return self.training[int(index)][what]

    def _manifest(self, *keys: str) -> Any:
        found: Any = self.manifest
        for key in keys:
            found = found[int(key)] if isinstance(found, list) else found[key]
        return found

    # The rule, written a second time.

    def rules(self) -> list[Row]:
        judge = self.manifest["experiment"]["judge"]
        return [*judge["must_improve"], *judge["must_not_regress"]]

    def adjusted(self) -> list[float]:
        """Holm's step-down over all statistical gates."""
        raw = [self._raw_p(rule) for rule in self.rules()]
        result, largest = [0.0] * len(raw), 0.0
        for rank, index in enumerate(sorted(range(len(raw)), key=raw.__getitem__)):
            largest = max(largest, min(1.0, (len(raw) - rank) * raw[index]))
            result[index] = largest
        return result

    def _raw_p(self, rule: Row) -> float:
        metric = rule["metric"]
        if "margin" not in rule:
            return self.compare(metric, rule["over"], "tuned").p_value
        before, after, groups = self.pairs(metric, rule["over"], "tuned")
        sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        turned = [sign * score for score in before], [sign * score for score in after]
        return min(1.0, 2 * non_inferiority_p(*turned, groups, margin=rule["margin"]))

    def gate_state(self, index: int) -> str:
        rule, p = self.rules()[index], self.adjusted()[index]
        interval = self.compare(rule["metric"], rule["over"], "tuned").interval
        low, high = interval.low, interval.high
        if rule["metric"] in LOWER_IS_BETTER:
            low, high = -high, -low
        if "margin" in rule:
            return "passed" if p < 1 - self.level else "failed" if high < -rule["margin"] else "open"
        return "passed" if p < 1 - self.level and low > 0 else "failed" if high < 0 else "open"

    def outcome(self) -> str:
        states = {self.gate_state(index) for index in range(len(self.rules()))}
        return "REJECT" if "failed" in states else "INCONCLUSIVE" if "open" in states else "SHIP"

    def gate_numbers(self, index: int, what: str) -> set[str]:
        """What a sentence of a gate may say, as it is written there."""
        rule = self.rules()[index]
        found = self.compare(rule["metric"], rule["over"], "tuned")
        before, after, groups = self.pairs(rule["metric"], rule["over"], "tuned")
        if what == "name":
            return {f"{100 * rule['margin']:.1f}"} if "margin" in rule else set()
        if what == "reason":
            means = [found.candidate_mean, found.baseline_mean, found.difference]
            shares = {f"{100 * share:.1f}" for share in (*means, found.interval.low, found.interval.high)}
            p = self.adjusted()[index]
            return shares | {str(found.n), "0.0001" if p < 0.0001 else f"{p:.4f}"}
        alpha = (1 - self.level) / len(self.rules())
        detectable = minimum_detectable_effect(before, after, groups, alpha=alpha)
        needed = examples_needed(before, after, groups, effect=found.difference, alpha=alpha)
        width = found.interval.high - found.interval.low
        return {f"{100 * detectable:.1f}", f"{100 * width:.1f}", str(needed), str(found.n), "4", "5"}


def numbers_in(sentence: str) -> set[str]:
    return set(re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", sentence.replace("−", "-")))


def as_shown(path: str, value: Any) -> str:
    """How the text of a claim has to read, written a second time."""
    leaf = path.rpartition(".")[2]
    if isinstance(value, str):
        return value
    if leaf in ("mean", "low", "high") and ".length_words." in path:
        return f"{value:.1f}" + (" words" if leaf == "mean" else "")
    if path.startswith("manifest.retention.") and leaf != "texts":
        return f"{value:.4f}" if leaf.startswith("nll") else f"{value:+.4f}".replace("-", "−")
    if leaf in ("low", "high"):
        return f"{100 * value:.1f}" if path.startswith("arms.") else sign(f"{100 * value:+.1f}")
    formats: dict[str, Callable[[Any], str]] = {
        "mean": lambda v: f"{100 * v:.1f}%",
        "difference": lambda v: f"{sign(f'{100 * v:+.1f}')} points",
        "p_value": lambda v: "< 0.0001" if v < 0.0001 else f"= {v:.4f}",
        "confidence": lambda v: f"{round(100 * v)}%",
        "tokens_per_s": lambda v: f"{v:.0f}" if v >= 100 else f"{v:.1f}",
        "first_token_p50_s": lambda v: f"{round(v * 1000)} ms",
        "latency_p50_s": lambda v: f"{v:.1f} s" if v >= 1 else f"{round(v * 1000)} ms",
        "duration_s": lambda v: f"{round(v) // 60} min {round(v) % 60:02d} s",
        "memory_bytes": lambda v: f"{v / 2**30:.1f} GiB",
        "peak_memory_bytes": lambda v: f"{v / 2**30:.1f} GiB",
        "loss": lambda v: f"{v:.4f}",
        "validation_loss": lambda v: f"{v:.4f}",
    }
    return formats.get(leaf, lambda v: f"{v:,}")(value)


def sign(text: str) -> str:
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def retained(source: str, difference: float) -> RetentionRecord:
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
        standard_error=0.01,
        low=difference - 0.03,
        high=difference + 0.03,
    )


@pytest.fixture(scope="module")
def singletons(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run: Run = make_run(tmp_path_factory.mktemp("runs") / "singletons", n=240)
    write_report(run)
    return run


@pytest.fixture(scope="module")
def groups(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """This one also measured what it left of the base, and an arm beside the four."""
    run: Run = make_run(
        tmp_path_factory.mktemp("runs") / "groups", n=150, group_size=3, tuned_skill=0.44, arms=(*ARMS, *EXTRA)
    )
    run.update(retention=(retained("general text", 0.1), retained("replay, held out", -0.05)))
    write_report(run)
    return run


@pytest.fixture(params=["singletons", "groups"])
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def page(run: Run) -> Page:
    return parse((run.report / "index.html").read_text(encoding="utf-8"))


def test_every_claim_is_recomputed_from_the_rows(run: Run, page: Page) -> None:
    rows = Rows(run.path)
    wrong = []
    for claim in page.claims:
        if claim.path.startswith("gates."):
            continue
        expected = rows.expected(claim.path)
        same = claim.value == expected if isinstance(expected, str) else float(claim.value) == pytest.approx(expected)
        if not same or words(claim.text) != as_shown(claim.path, expected):
            wrong.append((claim, expected))
    assert not wrong
    families = "verdict examples gates arms comparisons flips noise_floor changes speed training manifest"
    extra = {"variants"} if rows.manifest["judgement"]["arms"] else set()
    assert {claim.path.split(".")[0] for claim in page.claims} == set(families.split()) | extra
    assert len({claim.path for claim in page.claims}) > 300


def test_retention_is_claimed_by_the_run_that_measured_it(singletons: Run, groups: Run) -> None:
    def claimed(run: Run) -> set[str]:
        claims = parse((run.report / "index.html").read_text(encoding="utf-8")).claims
        return {claim.path for claim in claims if claim.path.startswith("manifest.retention.")}

    each = ("texts", "nll_before", "nll_after", "difference", "low", "high")
    assert claimed(singletons) == set()
    assert claimed(groups) == {f"manifest.retention.{index}.{leaf}" for index in range(2) for leaf in each}


def test_every_number_in_a_gate_is_recomputed_from_the_rows(run: Run, page: Page) -> None:
    rows = Rows(run.path)
    proofs = 3
    gates = [claim for claim in page.claims if claim.path.startswith("gates.")]
    assert {claim.path.split(".")[1] for claim in gates} == {str(i) for i in range(proofs + len(rows.rules()))}
    for claim in gates:
        _, index, what = claim.path.split(".")
        assert numbers_in(claim.text) == numbers_in(claim.value)
        if int(index) < proofs:
            assert numbers_in(claim.text) <= {str(len(rows.examples))}
            continue
        allowed = rows.gate_numbers(int(index) - proofs, what)
        assert numbers_in(claim.text) <= allowed, claim
        if what != "remedy":
            assert allowed <= numbers_in(claim.text), claim


def test_the_gates_say_how_the_rule_ends(run: Run) -> None:
    rows = Rows(run.path)
    gates = json.loads((run.report / "report.json").read_text())["gates"]
    states = [gate["state"] for gate in gates]
    assert states == [*["passed"] * 3, *(rows.gate_state(index) for index in range(len(rows.rules())))]
    assert [gate["p_adjusted"] for gate in gates] == [*[None] * 3, *(pytest.approx(p) for p in rows.adjusted())]


def test_claims_are_the_values_of_the_same_path_in_the_json_report(run: Run, page: Page) -> None:
    report = json.loads((run.report / "report.json").read_text())
    for claim in page.claims:
        found = report
        for key in claim.path.split("."):
            found = found[int(key)] if isinstance(found, list) else found[key]
        assert claim.value == str(found)


def test_no_number_stands_outside_claims_samples_manifest_and_charts(page: Page) -> None:
    assert [text for text in page.prose if re.search(r"\d", text)] == []
    assert len(page.prose) > 100


@pytest.mark.parametrize("arm", ["copy-input", "base", "base-again", "tuned"])
def test_without_the_rows_of_an_arm_its_numbers_are_not_measured(singletons: Run, arm: str, tmp_path: Path) -> None:
    shutil.copytree(singletons.path, tmp_path / "run")
    (tmp_path / "run" / "samples" / f"{arm}.jsonl").unlink()
    before = parse((singletons.report / "index.html").read_text(encoding="utf-8"))
    after = parse(render_page(summarise(Run(tmp_path / "run"))))
    gone = {claim.path for claim in before.claims} - {claim.path for claim in after.claims}
    own = {path for path in (claim.path for claim in before.claims) if f".{arm}." in path}
    assert own
    assert own <= gone
    assert "".join(after.text).count("not measured") > "".join(before.text).count("not measured")
    rows = Rows(tmp_path / "run")
    for claim in after.claims:
        if not claim.path.startswith(("gates.", "verdict.")):
            expected = rows.expected(claim.path)
            assert claim.value == str(expected) or float(claim.value) == pytest.approx(expected)
