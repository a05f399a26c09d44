"""Every number of a campaign report is computed a second time, from the files and by other code, and compared."""

import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jsonschema
import pytest
from scipy import optimize, stats
from typer.testing import CliRunner

from whetstone.cli.main import app
from whetstone.report.kinds.campaign.page import render_campaign
from whetstone.report.kinds.campaign.read import read_runs
from whetstone.report.kinds.campaign.schema import CampaignReport
from whetstone.report.kinds.campaign.summarise import summarise_campaign
from whetstone.report.kinds.campaign.write import write_campaign_report
from whetstone.report.kinds.schemas import schema_of
from whetstone.run import Run

SCHEMAS = Path(__file__).parents[3] / "src" / "whetstone" / "report" / "schemas"
SKILLS = {"plain": (0.62, 0, 16), "lucky": (0.66, 1, 16), "unlucky": (0.5, 2, 16), "small": (0.6, 0, 8)}
N = 120


class MakeRun(Protocol):
    def __call__(self, path: Path, *, n: int = ..., tuned_skill: float = ...) -> Run: ...


def made(make_run: MakeRun, path: Path, skill: float, seed: int = 0, rank: int = 16, n: int = N) -> Run:
    """A judged run of a recipe: all is the same but its skill, its seed and the rank of its adapter."""
    run = make_run(path, n=n, tuned_skill=skill)
    experiment = run.manifest().experiment
    tune = experiment.tune.model_copy(update={"seed": seed, "rank": rank})
    experiment = experiment.model_copy(update={"tune": tune})
    run.update(
        experiment=experiment,
        experiment_hash=experiment.fingerprint(),
        training_hash=experiment.training_fingerprint(),
    )
    return run


def campaign(make_run: MakeRun, folder: Path) -> list[Run]:
    """A recipe with three seeds, another, one on fewer examples, one that is not judged and one without samples."""
    runs = [made(make_run, folder / name, *how) for name, how in SKILLS.items()]
    runs.append(made(make_run, folder / "fewer", 0.55, n=40))
    begun, gone = (made(make_run, folder / name, 0.5, n=40) for name in ("begun", "gone"))
    begun.update(judgement=None)
    shutil.rmtree(gone.samples)
    return [*runs, begun, gone]


@pytest.fixture(scope="module")
def folder(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    write_campaign_report(campaign(make_run, folder), folder / "out")
    return folder


ORDER = [*SKILLS, "fewer", "begun", "gone"]


class Rows:
    """The exact matches of base and tuned, read without any code of the package."""

    def __init__(self, run: Path) -> None:
        self.manifest = json.loads((run / "run.json").read_text())
        examples, base, tuned = (
            [json.loads(line) for line in (run / "samples" / f"{name}.jsonl").read_text().splitlines()]
            for name in ("examples", "base", "tuned")
        )
        right = [{" ".join(reference.split()) for reference in example["references"]} for example in examples]
        self.base, self.tuned = (
            [int(" ".join(row["text"].split()) in known) for row, known in zip(rows, right, strict=True)]
            for rows in (base, tuned)
        )

    @property
    def differences(self) -> list[int]:
        return [after - before for before, after in zip(self.base, self.tuned, strict=True)]

    def effect(self, what: str, level: float = 0.95) -> float:
        n, flips = len(self.base), Counter(self.differences)
        return {
            "n": n,
            "groups": n,
            "baseline_mean": sum(self.base) / n,
            "candidate_mean": sum(self.tuned) / n,
            "difference": sum(self.differences) / n,
            "low": tango(flips[1], flips[-1], n, level)[0],
            "high": tango(flips[1], flips[-1], n, level)[1],
            "level": level,
        }[what]


def tango(fixed: int, broken: int, n: int, level: float) -> tuple[float, float]:
    """The interval by the score of Tango (1998), its nuisance parameter by maximising the likelihood."""
    z, observed = stats.norm.isf((1 - level) / 2), (fixed - broken) / n

    def score(delta: float) -> float:
        a = 2 * n
        b = -(fixed + broken) + (2 * n - fixed + broken) * delta
        c = -broken * delta * (1 - delta)
        share = (math.sqrt(b * b - 4 * a * c) - b) / (2 * a)
        return float((fixed - broken - n * delta) / math.sqrt(n * (2 * share + delta * (1 - delta))))

    return (
        float(optimize.brentq(lambda delta: score(delta) - z, -1 + 1e-9, observed)),
        float(optimize.brentq(lambda delta: score(delta) + z, observed, 1 - 1e-9)),
    )


def over_seeds(runs: list[Rows], level: float = 0.95) -> dict[str, float]:
    """The two-way table, with loops; every example is its own group."""
    table = [run.differences for run in runs]
    s, g = len(table), len(table[0])
    of_seed = [sum(row) / g for row in table]
    of_group = [sum(row[j] for row in table) / s for j in range(g)]
    mean = sum(of_seed) / s
    square_seeds = g * sum((one - mean) ** 2 for one in of_seed) / (s - 1)
    square_groups = s * sum((one - mean) ** 2 for one in of_group) / (g - 1)
    rest = sum((table[i][j] - of_seed[i] - of_group[j] + mean) ** 2 for i in range(s) for j in range(g))
    square_rest = rest / (s - 1) / (g - 1)
    a, b = square_seeds / (s * g), max(0.0, square_groups - square_rest) / (s * g)

    def half(alpha: float) -> float:
        few, many = stats.t.isf(alpha / 2, s - 1), stats.t.isf(alpha / 2, g - 1)
        return float((few * a + many * b) / math.sqrt(a + b))

    return {
        "difference": mean,
        "low": mean - half(1 - level),
        "high": mean + half(1 - level),
        "p_value": optimize.brentq(lambda alpha: half(alpha) - abs(mean), 1e-12, 1 - 1e-12),
        "seed_share": max(0.0, a - square_rest / (s * g)) / (a + b),
        "seed_count": s,
        "n": g,
        "level": level,
    }


class Files:
    """Recomputes what a path names."""

    def __init__(self, folder: Path) -> None:
        self.manifests = [json.loads((folder / name / "run.json").read_text()) for name in ORDER]
        self.rows = {name: Rows(folder / name) for name in ORDER[:5]}
        self.gone = folder / "gone"

    def expected(self, path: str) -> Any:
        first, *rest = path.split(".")
        return getattr(self, f"_{first}")(*rest)

    def _runs(self, index: str, what: str, *rest: str) -> Any:
        name, manifest = ORDER[int(index)], self.manifests[int(index)]
        if what == "training":
            return manifest["tuning"][rest[0]]
        if what == "measured":
            return "INCONCLUSIVE" if rest[0] == "verdict" else self.rows[name].effect(rest[-1])
        return {
            "base": manifest["base"]["origin"],
            "method": manifest["experiment"]["tune"]["method"],
            "reason": {
                "begun": "not judged yet; 'whet compare' judges begun",
                "gone": f"{self.gone}/samples/examples.jsonl: no such file; 'whet compare' generates the samples",
            }.get(name),
        }[what]

    def _settings(self, index: str, _: str, run: str) -> Any:
        return str(self.manifests[int(run)]["experiment"]["tune"][("rank", "seed")[int(index)]])

    def _groups(self, index: str, _: str, what: str, end: str = "") -> Any:
        assert index == "0"
        best = max(list(SKILLS), key=lambda name: self.rows[name].effect("difference"))
        return 4 if what == "runs" else self.rows[best].effect(end or what, level=1 - 0.05 / 4)

    def _recipes(self, index: str, what: str, end: str = "") -> Any:
        assert index == "0"
        of_seed = [self.rows[name] for name in ("plain", "lucky", "unlucky")]
        if what == "seed_differences":
            return of_seed[int(end)].effect("difference")
        return over_seeds(of_seed)[end or what]

    def _advice(self, index: str, what: str, name: str = "", _: str = "") -> Any:
        rule = ["not_measured", "other_questions", "overlapping"][int(index)] if int(index) < 3 else "recipe"
        if what == "title":
            return {
                "not_measured": "Some runs are not measured",
                "other_questions": "The runs answer different questions",
                "overlapping": "lucky and small are not told apart",
                "recipe": "plain and its other seeds: the recipe is better than the base",
            }[rule]
        seeds = over_seeds([self.rows[one] for one in ("plain", "lucky", "unlucky")])
        numbers: dict[str, dict[str, float]] = {
            "not_measured": {"missing": 2, "runs": 7},
            "other_questions": {"groups": 2},
            "overlapping": {"low": self.rows["lucky"].effect("low"), "high": self.rows["small"].effect("high")},
            "recipe": {"share": seeds["seed_share"], "n": N, "seeds": 3, "low": seeds["low"], "high": seeds["high"]},
        }
        return numbers[rule][name]


def same(value: str, expected: Any) -> bool:
    return value == expected if isinstance(expected, str) else float(value) == pytest.approx(float(expected), abs=1e-6)


def test_every_claim_is_recomputed_from_the_files(folder: Path, parse: Callable[[Path], Any]) -> None:
    files = Files(folder)
    claims = parse(folder / "out" / "index.html").claims
    wrong = [(path, value, files.expected(path)) for path, value, _ in claims if not same(value, files.expected(path))]
    assert wrong == []
    assert {path.split(".")[0] for path, _, _ in claims} == {"advice", "groups", "recipes", "runs", "settings"}
    assert len({path for path, _, _ in claims}) > 80


def test_claims_are_the_values_of_the_same_path_in_the_json_report(folder: Path, parse: Callable[[Path], Any]) -> None:
    report = json.loads((folder / "out" / "report.json").read_text())
    for path, value, _ in parse(folder / "out" / "index.html").claims:
        found = report
        for key in path.split("."):
            found = found[int(key)] if isinstance(found, list) else found[key]
        assert value == str(found)


def test_no_number_stands_outside_claims_manifest_and_charts(folder: Path, parse: Callable[[Path], Any]) -> None:
    page = parse(folder / "out" / "index.html")
    assert [text for text in page.prose if re.search(r"\d", text)] == []
    assert len(page.prose) > 50


def test_the_report_follows_the_published_schema(folder: Path) -> None:
    published = json.loads((SCHEMAS / "campaign.schema.json").read_text())
    assert published == json.loads(json.dumps(schema_of("campaign")))
    jsonschema.validate(json.loads((folder / "out" / "report.json").read_text()), published)


def test_runs_on_other_examples_are_in_a_group_of_their_own(folder: Path) -> None:
    report = CampaignReport.model_validate_json((folder / "out" / "report.json").read_text())
    assert [group.runs for group in report.groups] == [(0, 1, 2, 3), (4,)]
    assert report.groups[1].best is None
    assert [(recipe.runs, recipe.seeds) for recipe in report.recipes] == [((0, 1, 2), (0, 1, 2))]
    assert [one.key for one in report.settings] == ["tune.rank", "tune.seed"]


def test_the_markdown_says_the_same_and_refers_to_the_chart(folder: Path) -> None:
    text, files = (folder / "out" / "report.md").read_text(), Files(folder)
    assert f"+{100 * files.expected('recipes.0.difference'):.1f} points" in text
    assert "](forest.svg)" in text and (folder / "out" / "forest.svg").exists()
    assert "not measured: not judged yet" in text
    assert "98.75% interval" in text


def test_without_its_samples_the_numbers_of_a_run_are_not_measured(
    make_run: MakeRun, parse: Callable[[Path], Any], tmp_path: Path
) -> None:
    runs = [made(make_run, tmp_path / name, *SKILLS[name], n=40) for name in ("plain", "lucky", "small")]

    def shown(page: Path) -> Any:
        page.write_text(render_campaign(summarise_campaign(read_runs(runs)), {}), encoding="utf-8")
        return parse(page)

    before = shown(tmp_path / "before.html")
    shutil.rmtree(runs[1].samples)
    after = shown(tmp_path / "after.html")
    paths = {path for path, _, _ in after.claims}
    assert not any(path.startswith(("runs.1.measured", "recipes.")) for path in paths)
    assert any(path.startswith("recipes.") for path, _, _ in before.claims)
    kept = {path: value for path, value, _ in before.claims if path.startswith(("runs.0", "runs.2"))}
    assert kept == {path: value for path, value, _ in after.claims if path.startswith(("runs.0", "runs.2"))}
    assert after.text.count("not measured") > before.text.count("not measured")


def test_what_is_no_seed_of_a_recipe(make_run: MakeRun, tmp_path: Path) -> None:
    """The same seed again, weights that this run did not train, and another base."""
    seeds = {"first": 0, "again": 0, "foreign": 1, "based": 2, "other": 3}
    runs = {name: made(make_run, tmp_path / name, 0.6, seed, n=30) for name, seed in seeds.items()}
    runs["foreign"].update(tuning=None)
    judgement = runs["based"].manifest().judgement
    assert judgement is not None
    runs["based"].update(judgement=judgement.model_copy(update={"base_sha256": "55" * 32}))
    report = summarise_campaign(read_runs(list(runs.values())))
    assert [(recipe.runs, recipe.repeated) for recipe in report.recipes] == [((0, 4), (1,))]
    assert report.runs[2].training is None
    assert report.groups[0].bases == 2


def test_a_run_that_stopped_early_is_neither_ranked_nor_a_seed(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [made(make_run, tmp_path / f"seed-{seed}", 0.9, seed, n=40) for seed in range(2)]
    experiment = runs[0].manifest().experiment
    judge = experiment.judge.model_copy(update={"stop_early": True})
    runs[0].update(experiment=experiment.model_copy(update={"judge": judge}))
    for arm in ("base", "tuned", "copy-input", "base-again", "few-shot"):
        path = runs[0].samples / f"{arm}.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:30]))
    report = summarise_campaign(read_runs(runs))
    effects = [run.measured.effect.n for run in report.runs if run.measured is not None]
    assert effects == [30, 40]
    assert [run.measured.stopped_early for run in report.runs if run.measured is not None] == [True, False]
    assert report.recipes == ()
    assert report.groups[0].best is not None and report.groups[0].best.run == 1


def test_runs_of_one_name_are_told_apart_by_their_folders(make_run: MakeRun, tmp_path: Path) -> None:
    one, other = (made(make_run, tmp_path / folder / "run", 0.6, n=20) for folder in ("a", "b"))
    (other.path / "run.json").write_text("{}")
    report = summarise_campaign(read_runs([one, other]))
    assert [run.name for run in report.runs] == [str(one.path), str(other.path)]
    assert report.runs[1].base is None
    assert "made by another version" in (report.runs[1].reason or "")


def test_the_verb_writes_and_prints_it(folder: Path, tmp_path: Path) -> None:
    def whet(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["report", *arguments, "--runs", str(folder)])

    said = whet("fewer", "begun", "--kind", "campaign", "--out", str(tmp_path / "out"))
    assert said.exit_code == 0
    assert "best of" not in said.output and "not judged yet" in said.output
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "forest.svg",
        "index.html",
        "report.json",
        "report.md",
    ]
    printed = whet("begun", "gone", "--kind", "campaign", "--json", "--out", str(tmp_path / "out"))
    assert json.loads(printed.stdout) == json.loads((tmp_path / "out" / "report.json").read_text())
    assert not (tmp_path / "out" / "forest.svg").exists()
    assert "every run" not in (tmp_path / "out" / "report.md").read_text()
    for arguments, problem in (
        (("plain", "lucky"), "--kind decision is of one; give --kind campaign"),
        (("plain", "--kind", "campaign"), "give two or more"),
        (("plain", "plain", "--kind", "campaign"), "given twice"),
        (("plain", "--out", "x"), "--out is for --kind service and campaign"),
    ):
        refused = whet(*arguments)
        assert problem in str(refused.exception)
