"""Each rule on both sides of its threshold, with the numbers that it names."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from whetstone.report.kinds.advice import Advice
from whetstone.report.kinds.training import rules
from whetstone.report.kinds.training.evidence import Evidence, load
from whetstone.report.kinds.training.schema import Row
from whetstone.run import Manifest, Run

QUIET: dict[str, Any] = {
    "steps": 100,
    "loss": 1.0,
    "validation_loss": 1.0,
    "learning_rate": 1e-4,
    "gradient_norm": 0.5,
    "tokens_per_s": 1000.0,
    "memory_bytes": 10**9,
}


@pytest.fixture(scope="module")
def manifest(make_training: Callable[[Path], Run], tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return load(make_training(tmp_path_factory.mktemp("runs") / "rules")).manifest.model_copy(
        update={"retention": (), "notes": ()}
    )


def row(step: int, **changes: Any) -> Row:
    return Row(step=step, **{name: None for name in Row.model_fields if name != "step"} | QUIET | changes)


def rows(name: str, values: Sequence[float | None], **all_rows: Any) -> tuple[Row, ...]:
    return tuple(row(5 * index + 5, **{name: value}, **all_rows) for index, value in enumerate(values))


@pytest.fixture
def quiet(manifest: Manifest) -> Evidence:
    return Evidence(manifest=manifest, rows=rows("loss", [1.0] * 20), watched=None, check=None)


def said(rule: Callable[[Evidence], Iterator[Advice]], evidence: Evidence) -> list[tuple[str, dict[str, float]]]:
    return [(advice.tone, {name: number.value for name, number in advice.numbers.items()}) for advice in rule(evidence)]


def test_nothing_is_said_of_a_training_without_faults(quiet: Evidence) -> None:
    assert rules.recommend(quiet) == ()


def test_nothing_is_said_without_rows(quiet: Evidence) -> None:
    assert rules.recommend(replace(quiet, rows=())) == ()


def test_unfinished(quiet: Evidence) -> None:
    stopped = replace(quiet, manifest=quiet.manifest.model_copy(update={"tuning": None}))
    assert said(rules.unfinished, quiet) == []
    assert said(rules.unfinished, stopped) == [("bad", {"step": 100, "steps": 100})]


def test_not_finite(quiet: Evidence) -> None:
    assert said(rules.not_finite, quiet) == []
    broken = rows("loss", [1.0, None, 1.0, None])
    assert said(rules.not_finite, replace(quiet, rows=broken)) == [("bad", {"rows": 2, "step": 10})]


FALLING = (2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.9, 0.8)


@pytest.mark.parametrize(
    ("validation", "training", "speaks"),
    [
        ((2.0, None, 1.5, None, 1.6, None, 1.7, None), FALLING, True),
        ((2.0, None, 1.5, None, 1.5, None, 1.7, None), FALLING, False),  # one rise is noise
        ((2.0, None, 1.5, None, 1.4, None, 1.3, None), FALLING, False),
        ((2.0, None, 1.5, None, 1.6, None, 1.7, None), (1.0,) * 8, False),  # training did not fall
    ],
)
def test_overfitting(
    quiet: Evidence, validation: Sequence[float | None], training: Sequence[float], speaks: bool
) -> None:
    made = tuple(
        row(10 * index, loss=loss, validation_loss=measured)
        for index, (loss, measured) in enumerate(zip(training, validation, strict=True))
    )
    found = said(rules.overfitting, replace(quiet, rows=made))
    assert bool(found) == speaks
    if found:
        tone, numbers = found[0]
        assert tone == "bad"
        assert numbers == pytest.approx(
            {
                "rises": 2,
                "points": 4,
                "lowest": 1.5,
                "turn": 20,
                "last": 1.7,
                "last_step": 60,
                "before": (2.0 + 1.8 + 1.6) / 3,
                "after": (1.2 + 1.0 + 0.9) / 3,
            }
        )


@pytest.mark.parametrize(("last", "speaks"), [(1.009, False), (1.011, True), (0.9, False)])
@pytest.mark.parametrize("keep", ["last", "best"])
def test_better_weights_earlier(quiet: Evidence, last: float, speaks: bool, keep: str) -> None:
    tune = quiet.manifest.experiment.tune
    tune = tune.model_copy(update={"validation": tune.validation.model_copy(update={"keep": keep})})
    experiment = quiet.manifest.experiment.model_copy(update={"tune": tune})
    manifest = quiet.manifest.model_copy(update={"experiment": experiment})
    found = said(
        rules.better_weights_earlier,
        replace(quiet, manifest=manifest, rows=rows("validation_loss", [1.5, 1.0, last])),
    )
    assert bool(found) == (speaks and keep == "last")
    if found:
        assert found == [("open", {"best": 1.0, "best_step": 10, "last": last})]


def test_validation_missing(quiet: Evidence) -> None:
    assert said(rules.validation_missing, quiet) == []
    without = rows("validation_loss", [None] * 20)
    assert said(rules.validation_missing, replace(quiet, rows=without)) == [("open", {"rows": 20})]


def test_still_falling(quiet: Evidence) -> None:
    def of(slope_per_row: float, validation: float = 1.0) -> list[tuple[str, dict[str, float]]]:
        losses = [3 - slope_per_row * index + 0.001 * (-1) ** index for index in range(40)]
        made = rows("loss", losses)
        last = made[-1].model_copy(update={"validation_loss": validation})
        return said(rules.still_falling, replace(quiet, rows=(*made[:-1], last)))

    ((tone, numbers),) = of(0.05)
    assert tone == "open"
    assert numbers["steps"] == 45
    assert numbers["low"] < numbers["slope"] < numbers["high"] < 0
    assert numbers["slope"] == pytest.approx(-0.05 / 5 * 100, rel=0.01)
    assert of(0.0) == []
    assert of(-0.05) == []
    assert of(0.002) == []  # below two hundredths of the loss
    assert of(0.05, validation=1.1) == []  # the validation loss is past its best
    assert said(rules.still_falling, replace(quiet, rows=rows("loss", [3.0, 2.0, 1.0]))) == []


@pytest.mark.parametrize(("peak", "speaks"), [(22_400_000_000, False), (22_600_000_000, True)])
def test_memory_nearly_full(quiet: Evidence, peak: int, speaks: bool) -> None:
    machine = 25_000_000_000
    found = said(rules.memory_nearly_full, replace(quiet, rows=rows("memory_bytes", [10**9, peak])))
    assert found == ([("open", {"peak": peak, "machine": machine, "share": peak / machine})] if speaks else [])


def test_the_memory_of_a_gpu_is_what_the_check_found_there(quiet: Evidence) -> None:
    assert quiet.manifest.tuning is not None
    tuning = quiet.manifest.tuning.model_copy(update={"device": "cuda:0"})
    on_gpu = replace(quiet, manifest=quiet.manifest.model_copy(update={"tuning": tuning}))
    full = rows("memory_bytes", [9_500_000_000])
    assert rules.machine_memory(on_gpu) is None
    assert said(rules.memory_nearly_full, replace(on_gpu, rows=full)) == []
    measured = replace(on_gpu, rows=full, memory_device=("cuda", 10**10))
    assert said(rules.memory_nearly_full, measured)[0][1]["share"] == 0.95
    assert rules.machine_memory(replace(on_gpu, memory_device=("cpu", 10**10))) is None


@pytest.mark.parametrize(("late", "speaks"), [(880.0, True), (920.0, False), (1100.0, False)])
def test_slower(quiet: Evidence, late: float, speaks: bool) -> None:
    rates = [1.0, *[1000.0] * 10, *[late] * 10]
    made = rows("tokens_per_s", rates, cpu_temperature_c=71.0)
    found = said(rules.slower, replace(quiet, rows=made))
    numbers = {"early": 1000.0, "late": late, "share": pytest.approx(1 - late / 1000), "hottest": 71.0}
    assert found == ([("open", numbers)] if speaks else [])
    assert said(rules.slower, replace(quiet, rows=made[:6])) == []


@pytest.mark.parametrize(("clipped", "speaks"), [(9, False), (10, True)])
def test_mostly_clipped(quiet: Evidence, clipped: int, speaks: bool) -> None:
    norms = [1.5] * clipped + [0.5] * (20 - clipped)
    found = said(rules.mostly_clipped, replace(quiet, rows=rows("gradient_norm", norms)))
    assert found == ([("open", {"clipped": 10, "n": 20, "median": 1.0})] if speaks else [])


@pytest.mark.parametrize(("percent", "speaks"), [(49.0, True), (50.0, False), (None, False)])
def test_gpu_idle(quiet: Evidence, percent: float | None, speaks: bool) -> None:
    found = said(rules.gpu_idle, replace(quiet, rows=rows("gpu_percent", [percent] * 20)))
    assert found == ([("open", {"n": 20, "median": 0.49})] if speaks else [])


@pytest.mark.parametrize(
    ("difference", "spread", "speaks"), [(0.1, 0.09, True), (0.1, 0.11, False), (0.1, None, False)]
)
def test_forgotten(
    quiet: Evidence, retained: Callable[..., Any], difference: float, spread: float | None, speaks: bool
) -> None:
    record = retained("general text", difference, spread)
    evidence = replace(quiet, manifest=quiet.manifest.model_copy(update={"retention": (record,)}))
    numbers = {"difference": 0.1, "low": record.low, "high": record.high, "texts": 60}
    assert said(rules.forgotten, evidence) == ([("bad", numbers)] if speaks else [])
    if speaks:
        assert "data.replay" in next(rules.forgotten(evidence)).action


@pytest.mark.parametrize(("severity", "tone"), [("error", "bad"), ("warning", "open"), ("note", None)])
def test_faulty_data(
    make_training: Callable[[Path], Run], tmp_path: Path, quiet: Evidence, severity: str, tone: str | None
) -> None:
    check = load(make_training(tmp_path / "run")).check
    assert check is not None
    finding = check.findings[0].model_copy(update={"severity": severity})
    found = said(rules.faulty_data, replace(quiet, check=check.model_copy(update={"findings": (finding,)})))
    numbers = {"errors": int(severity == "error"), "warnings": int(severity == "warning")}
    assert found == ([] if tone is None else [(tone, numbers)])


def test_the_worst_comes_first_and_every_number_is_written(quiet: Evidence) -> None:
    made = rows("validation_loss", [None] * 20, memory_bytes=24_000_000_000)
    broken = (*made, row(200, loss=None, validation_loss=None))
    advice = rules.recommend(replace(quiet, rows=broken))
    assert [one.rule for one in advice] == ["not_finite", "validation_missing", "memory_nearly_full"]
    assert advice[0].text() == "In 1 logged rows, first at step 200."
    assert advice[2].text() == "The peak was 22.4 GiB, 96.0% of the 23.3 GiB that there is."


def test_every_rule_is_asked() -> None:
    own = {name for name, value in vars(rules).items() if getattr(value, "__module__", "") == rules.__name__}
    assert {rule.__name__ for rule in rules.RULES} == {
        name for name in own if not name.startswith("_") and name not in ("recommend", "machine_memory")
    }


def test_evidence_that_names_other_numbers_than_it_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the evidence names \['n'\], given are \[\]"):
        Advice(rule="r", tone="open", title="t", evidence="{n} of them.", action="a", numbers={})
