"""Every number on the page is computed a second time, from the rows and by other code, and compared."""

import functools
import json
import math
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
    "nll": lambda e, s: s["measured"]["nll_nats"] / s["measured"]["nll_tokens"],
    "bits_per_byte": lambda e, s: s["measured"]["nll_nats"] / math.log(2) / len(e["source"].encode()),
}
LOWER_IS_BETTER = {"over_edit", "extra_text", "empty", "too_short", "truncated", "nll", "bits_per_byte"}


class Rows:
    """Recomputes what a path names from the files of a run; the only borrowed code is that of whetstone.stats."""

    primary = "exact_match"

    def __init__(self, folder: Path, suite: str = "") -> None:
        self.folder = folder
        samples = folder / "samples" / suite
        self.examples = list(self._read(samples / "examples.jsonl"))
        self.arms: dict[str, dict[str, list[Row]]] = {}
        for path in samples.glob("*.jsonl"):
            if path.stem != "examples":
                answers = self.arms.setdefault(path.stem, {})
                for row in self._read(path):
                    answers.setdefault(row["example"], []).append(row)
        sanity = samples / "sanity.json"
        self.sanity = json.loads(sanity.read_text()) if sanity.exists() else None
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

    def _suites(self, suite: str, *rest: str) -> Any:
        found = Rows(self.folder, suite)
        found.primary = {"forms": "exact_match", "texts": "nll"}[suite]
        return getattr(found, f"_{rest[0]}")(*rest[1:])

    def _score(self, arm: str, metric: str) -> list[float | None]:
        """Of each example, the mean over its answers."""
        means: list[float | None] = []
        for example in self.examples:
            scores = [SCORES[metric](example, answer) for answer in self.arms[arm][example["id"]]]
            known = [score for score in scores if score is not None]
            means.append(sum(known) / len(known) if known else None)
        return means

    def pairs(self, metric: str, baseline: str, candidate: str) -> tuple[list[float], list[float], list[str]]:
        triples = zip(self._score(baseline, metric), self._score(candidate, metric), self.examples, strict=True)
        kept = [(a, b, e["group"]) for a, b, e in triples if a is not None and b is not None]
        return [a for a, _, _ in kept], [b for _, b, _ in kept], [group for _, _, group in kept]

    def compare(self, metric: str, baseline: str, candidate: str) -> PairedComparison:
        before, after, groups = self.pairs(metric, baseline, candidate)
        return comparison_of(tuple(before), tuple(after), tuple(groups), self.level)

    def _examples(self, what: str) -> int:
        answers = max((len(answers) for arm in self.arms.values() for answers in arm.values()), default=1)
        groups = len({example["group"] for example in self.examples})
        return {"n": len(self.examples), "groups": groups, "repeats": answers}[what]

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
        return self._paired(self.primary, "base", "base-again", what, end)

    def categories(self) -> list[Row]:
        """Every category, what tuning hurt most first, with p-values adjusted by hand."""
        rows = []
        for name in sorted({example["category"] for example in self.examples}):
            part = Rows.__new__(Rows)
            part.examples = [example for example in self.examples if example["category"] == name]
            part.arms, part.level, part.primary = self.arms, self.level, self.primary
            groups = len({example["group"] for example in part.examples})
            compared = None
            if groups > 1 and {"base", "tuned"} <= self.arms.keys():
                compared = part.compare(self.primary, "base", "tuned")
            rows.append({"rows": part, "name": name, "groups": groups, "compared": compared})
        ranked = sorted((row for row in rows if row["compared"]), key=lambda row: -row["compared"].p_value)
        smallest = 1.0
        for place, row in enumerate(ranked):
            smallest = min(smallest, row["compared"].p_value * len(ranked) / (len(ranked) - place))
            row["q_value"] = smallest
        sign = -1 if self.primary in LOWER_IS_BETTER else 1
        return sorted(
            rows,
            key=lambda row: (not row["compared"], row["compared"] and sign * row["compared"].difference, row["name"]),
        )

    def _categories(self, first: str, *rest: str) -> Any:
        rows = self.categories()
        if first != "rows":
            return len(rows)
        row, (what, *ends) = rows[int(rest[0])], rest[1:]
        if what == "n":
            return len(row["rows"].examples)
        if what == "groups":
            return row["groups"]
        if what == "arms":
            known = [score for score in row["rows"]._score(ends[0], self.primary) if score is not None]
            return sum(known) / len(known) if ends[1] == "mean" else len(known)
        if ends == ["q_value"]:
            return row["q_value"]
        found = row["compared"]
        for end in ends:
            found = getattr(found, end)
        return found

    def _tradeoff(self, _: str, arm: str, what: str) -> Any:
        if what == "quality":
            return self._arms(arm, "exact_match", "mean")
        if what != "beaten_by":
            return self._speed(arm, what)
        measured = [name for name, answers in self.arms.items() if next(iter(answers.values()))[0]["end_s"]]
        places = {
            name: (self._arms(name, "exact_match", "mean"), -self._speed(name, "latency_p50_s")) for name in measured
        }
        mine = places[arm]
        return max(
            (place, name)
            for name, place in places.items()
            if place != mine and all(there >= here for there, here in zip(place, mine, strict=True))
        )[1]

    def _listing(self, _: str) -> int:
        return sum(len(list(self._read(path))) for path in self.folder.rglob("examples.jsonl"))

    def _sanity(self, what: str, *rest: str) -> Any:
        assert self.sanity is not None
        if what == "engine":
            return next(check for check in self.sanity["engine"] if check["arm"] == rest[0])[rest[1]]
        if what == "leaked":
            return len(self.sanity["leaked"])
        if what != "without_leaks":
            return self.sanity[what]
        rows = Rows(self.folder)
        rows.examples = [example for example in rows.examples if example["id"] not in self.sanity["leaked"]]
        return rows._paired("exact_match", "base", "tuned", rest[0], "".join(rest[1:]))

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
        rows = [row for answers in self.arms[arm].values() for row in answers]
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
    if path.startswith("suites.texts.") and leaf in ("mean", "difference", "low", "high"):
        unit = " bits/byte" if ".bits_per_byte." in path else " nats/token"
        text = f"{value:.3f}" if ".arms." in path else sign(f"{value:+.3f}")
        return text + (unit if leaf in ("mean", "difference") and ".rows." not in path.rpartition(".arms.")[0] else "")
    if path.startswith("tradeoff.") and leaf == "latency_p50_s":
        return f"{value:.4g} s" if value >= 1 else f"{value * 1000:.4g} ms"
    if leaf == "q_value":
        return "< 0.0001" if value < 0.0001 else f"{value:.4f}"
    if path.startswith("manifest.retention.") and leaf != "texts":
        return f"{value:.4f}" if leaf.startswith("nll") else f"{value:+.4f}".replace("-", "−")
    if leaf in ("low", "high"):
        return f"{100 * value:.1f}" if re.match(r"(suites\.\w+\.)?arms\.", path) else sign(f"{100 * value:+.1f}")
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
        "quality": lambda v: f"{100 * v:.1f}%",
        "gradient_norm": lambda v: f"{v:.3g}",
        "learning_rate": lambda v: f"{v:.3g}",
        "logit_change": lambda v: f"{v:.3g}",
        "temperature": lambda v: f"{v:g}",
        "top_p": lambda v: f"{v:g}",
        "loss": lambda v: f"{v:.4f}",
        "validation_loss": lambda v: f"{v:.4f}",
    }
    return formats.get(leaf, lambda v: f"{v:,}")(value)


def sign(text: str) -> str:
    return text[1:] if float(text) == 0 else text.replace("-", "−")


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


@pytest.fixture(scope="module")
def suites(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """This one was asked suites, too, and looked at its own sanity."""
    run: Run = make_run(tmp_path_factory.mktemp("runs") / "suites", n=90, suites=True)
    write_report(run)
    return run


@pytest.fixture(params=["singletons", "groups", "suites"])
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
        if claim.path.startswith(("gates.", "recommendations.")):
            continue
        expected = rows.expected(claim.path)
        same = claim.value == expected if isinstance(expected, str) else float(claim.value) == pytest.approx(expected)
        if not same or words(claim.text) != as_shown(claim.path, expected):
            wrong.append((claim, expected))
    assert not wrong
    families = (
        "verdict examples gates arms comparisons flips noise_floor changes speed training manifest categories tradeoff "
        "listing recommendations"
    )
    extra = {"variants"} if rows.manifest["judgement"]["arms"] else set()
    extra |= {"suites", "sanity"} if rows.manifest["judgement"]["suites"] else set()
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
    proofs = 3 if rows.sanity is None else 4
    gates = [claim for claim in page.claims if claim.path.startswith("gates.")]
    assert {claim.path.split(".")[1] for claim in gates} == {str(i) for i in range(proofs + len(rows.rules()))}
    for claim in gates:
        _, index, what = claim.path.split(".")
        assert numbers_in(claim.text) == numbers_in(claim.value)
        if int(index) < proofs:
            tried = {"4", "3.44"} if rows.sanity else set()
            assert numbers_in(claim.text) <= {str(rows.expected("listing.total")), *tried}
            continue
        allowed = rows.gate_numbers(int(index) - proofs, what)
        assert numbers_in(claim.text) <= allowed, claim
        if what != "remedy":
            assert allowed <= numbers_in(claim.text), claim


def test_every_number_of_a_recommendation_stands_elsewhere_on_the_page(run: Run, page: Page) -> None:
    """The rules compute nothing: what they name is a claim that is recomputed from the rows."""
    said = [claim for claim in page.claims if claim.path.startswith("recommendations.")]
    assert len(said) >= 5
    report = json.loads((run.report / "report.json").read_text())
    counts = [len(report["gates"]), sum(gate["comparison"] is not None for gate in report["gates"])]
    counts += [sum(row["comparison"] is not None for row in report["categories"]["rows"])]
    counts += [len(report["manifest"]["retention"])]
    known = set().union(*(numbers_in(claim.text) for claim in page.claims if claim not in said))
    known |= {str(count) for count in counts} | {"0.05"}
    known |= {number.removeprefix("-") for number in known}
    for claim in said:
        assert {number.removeprefix("-") for number in numbers_in(claim.text)} <= known, claim.text


def test_the_gates_say_how_the_rule_ends(run: Run) -> None:
    rows = Rows(run.path)
    gates = json.loads((run.report / "report.json").read_text())["gates"]
    states = [gate["state"] for gate in gates]
    proofs = 3 if rows.sanity is None else 4
    assert states == [*["passed"] * proofs, *(rows.gate_state(index) for index in range(len(rows.rules())))]
    assert [gate["p_adjusted"] for gate in gates] == [*[None] * proofs, *(pytest.approx(p) for p in rows.adjusted())]


def test_claims_are_the_values_of_the_same_path_in_the_json_report(run: Run, page: Page) -> None:
    report = json.loads((run.report / "report.json").read_text())
    for claim in page.claims:
        found = report
        for key in claim.path.split("."):
            found = found[int(key)] if isinstance(found, list) else found[key]
        assert claim.value == str(found)


def test_no_number_stands_outside_claims_samples_manifest_and_charts(page: Page) -> None:
    assert [text for text in page.prose if re.search(r"\d", text.replace("UTF-8", ""))] == []
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
        if not claim.path.startswith(("gates.", "verdict.", "recommendations.")):
            expected = rows.expected(claim.path)
            assert claim.value == str(expected) or float(claim.value) == pytest.approx(expected)


def claimed(html: str) -> set[str]:
    return {claim.path for claim in parse(html).claims}


@pytest.mark.parametrize("suite", ["forms", "texts"])
def test_without_the_rows_of_an_arm_a_suite_is_not_measured(suites: Run, suite: str, tmp_path: Path) -> None:
    shutil.copytree(suites.path, tmp_path / "run")
    (tmp_path / "run" / "samples" / suite / "tuned.jsonl").unlink()
    before = (suites.report / "index.html").read_text(encoding="utf-8")
    after = render_page(summarise(Run(tmp_path / "run")))
    gone = claimed(before) - claimed(after)
    compared = re.compile(
        rf"suites\.{suite}\.(arms\.tuned|comparisons|flips|categories\.rows\.\d+\.(arms\.tuned|comparison))\."
    )
    assert {path.split(".")[2] for path in gone if compared.match(path)} >= {"arms", "comparisons", "categories"}
    assert not [path for path in claimed(after) if compared.match(path)]
    assert {path for path in gone if not path.startswith((f"suites.{suite}.", "gates."))} == set()
    assert after.count("not measured") > before.count("not measured")


def test_what_was_not_tried_is_not_measured(suites: Run, tmp_path: Path) -> None:
    shutil.copytree(suites.path, tmp_path / "run")
    (tmp_path / "run" / "samples" / "sanity.json").unlink()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    html = render_page(summarise(Run(tmp_path / "run")))
    assert not [path for path in claimed(html) if path.startswith("sanity.")]
    assert {path for path in claimed(html) if path.startswith("training.")} == {"training.0.step", "training.0.loss"}
    section = "".join(parse(html.split('<section id="sanity"')[1].split("</section>")[0]).text)
    assert section.split("Leaks")[1].split("Sampling")[0].strip() == "not measured"
    assert html.split('class="telemetry"')[1].split("</details>")[0].count("not measured") == 4


def test_every_listed_answer_is_that_of_the_rows(suites: Run) -> None:
    html = (suites.report / "index.html").read_text(encoding="utf-8")
    listing = json.loads(html.split('id="listing">')[1].split("</script>")[0])
    seen = 0
    for suite in listing["suites"]:
        folder = "" if suite["name"] == "held-out" else suite["name"]
        rows = Rows(suites.path, folder)
        examples = {example["id"]: example for example in rows.examples}
        metric = "nll" if folder == "texts" else "exact_match"
        scores = {arm: dict(zip(examples, rows._score(arm, metric), strict=True)) for arm in rows.arms}
        for name, category, texts, references, answers, scored in suite["rows"]:
            example = examples.pop(name)
            assert suite["categories"][category] == example["category"]
            assert texts[0] == example["source"]
            assert [texts[place] for place in references] == (example["references"] if example["messages"] else [])
            for arm, answer, score in zip(listing["arms"], answers, scored, strict=True):
                if arm not in rows.arms:
                    assert (answer, score) == (None, None)
                    continue
                first = rows.arms[arm][name][0]
                assert score == pytest.approx(scores[arm][name], abs=1e-6)
                if example["messages"]:
                    assert texts[-1 - answer if answer < 0 else answer] == first["text"]
                    assert (answer < 0) == (first["finish_reason"] == "length")
            seen += 1
        assert not examples
    assert seen == 90 + 20 + 16
