"""What is checked before training, on small files: the order of things, and what follows from a finding."""

import json
from pathlib import Path

import pytest

from whetstone.data_section import Data, FilesSource, Lint
from whetstone.errors import UserError
from whetstone.experiment import Experiment
from whetstone.model_section import Model
from whetstone.models.load import BUILTIN_BASE
from whetstone.train import check as check_module
from whetstone.train.check import check, view_rows
from whetstone.train.estimate import MemoryEstimate, Plan, UnforeseeableError, estimate_memory
from whetstone.train.rows import rows_of_run
from whetstone.tune_section import Tune

Row = dict[str, str]


def write(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows(count: int, start: int = 0, answer: str = "It is number {}.") -> list[Row]:
    return [
        {"prompt": f"What is item {n} of the list?", "response": answer.format(n)} for n in range(start, start + count)
    ]


def experiment(data: Data, **tune: object) -> Experiment:
    return Experiment(
        name="mine", model=Model(base=BUILTIN_BASE, device="cpu"), data=data, tune=Tune.model_validate(tune)
    )


def quiet(stage: str) -> None: ...


def test_errors_stop_unless_they_are_allowed_by_name(tmp_path: Path) -> None:
    same = write(tmp_path / "same.jsonl", rows(120))
    data = Data(source=FilesSource(train=same, test=same))
    checked = check(experiment(data), quiet)
    assert [finding.code for finding in checked.findings if finding.severity == "error"] == [
        "held-out-source-in-training",
        "held-out-pair-in-training",
    ]
    with pytest.raises(UserError, match=r"^held-out-source-in-training \(and 1 more errors\): 120 of 120"):
        checked.refuse(experiment(data))
    allowing = data.model_copy(
        update={"lint": Lint(allow=("held-out-source-in-training", "held-out-pair-in-training"))}
    )
    checked.refuse(experiment(allowing))
    assert len(checked.notes()) == 2


@pytest.mark.parametrize("part", ["train", "replay"])
def test_a_part_that_the_length_policy_leaves_empty_is_an_error(tmp_path: Path, part: str) -> None:
    long = [{"prompt": "What?", "response": "word " * 200}]
    files = {"train": rows(120), "replay": rows(9, 500)} | {part: long}
    paths = {name: write(tmp_path / f"{name}.jsonl", content) for name, content in files.items()}
    test = write(tmp_path / "test.jsonl", rows(100, 900))
    data = Data.model_validate(
        {
            "source": {"train": paths["train"], "test": test},
            "replay": {"source": paths["replay"], "fraction": 0.2},
            "max_tokens": 100,
            "too_long": "drop",
        }
    )
    checked = check(experiment(data), quiet)
    (finding,) = checked.stopping(experiment(data))
    assert (finding.code, finding.count) == ("too-long", 1)
    assert f"Nothing is left of {part}." in finding.message
    with pytest.raises(UserError, match=f"every {'training' if part == 'train' else part} row is longer"):
        rows_of_run(experiment(data), checked)


def test_validation_rows_that_are_all_too_long_only_leave_nothing_to_watch(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n}.jsonl", rows(100, n * 100)) for n in range(2)]
    long = write(tmp_path / "long.jsonl", [{"prompt": "What?", "response": "word " * 200}])
    source = FilesSource(train=paths[0], validation=long, test=paths[1])
    asked = experiment(Data(source=source, max_tokens=100, too_long="drop"))
    checked = check(asked, quiet)
    assert checked.stopping(asked) == []
    made = rows_of_run(asked, checked)
    assert made.validation.rows == []
    assert made.notes() == ("1 validation rows were longer than allowed and were dropped (data.too_long).",)


def test_the_length_limit_of_training_does_not_concern_the_test_part(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", rows(100))
    asked = [{"prompt": f"{'Please say ' * 12} {n}?", "response": "Yes."} for n in range(100)]
    source = FilesSource(train=train, test=write(tmp_path / "test.jsonl", asked))
    data = Data(source=source, max_tokens=60, too_long="truncate")
    checked = check(experiment(data), quiet)
    assert "too-long" not in [finding.code for finding in checked.findings]
    assert [part.too_long for part in checked.lengths if part.part == "test"] == [0]


def test_rows_are_shown_in_the_order_of_the_part(tmp_path: Path) -> None:
    data = Data(source=write(tmp_path / "rows.jsonl", rows(150)))
    checked = check(experiment(data), quiet)
    views = view_rows(experiment(data), checked, 100)
    assert len(views) == 100
    for view, example in zip(views, checked.splits.train, strict=False):
        assert example.source.replace(" ", "·") in "".join(token.text for token in view)
        learned = "".join(token.text for token in view if token.learned and not token.special)
        assert learned == example.references[0].replace(" ", "·")


def test_memory_that_is_not_there_is_a_warning_with_what_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Data(source=write(tmp_path / "rows.jsonl", rows(150)))
    whole = check(experiment(data, batch_size=64), quiet).memory
    assert whole is not None
    missing = (whole.training_bytes - whole.held_bytes) * 9 // 10
    monkeypatch.setattr("whetstone.train.estimate.available_bytes", lambda device: missing)
    checked = check(experiment(data, batch_size=64), quiet)
    (finding,) = [finding for finding in checked.findings if finding.code == "memory"]
    assert finding.severity == "warning"
    assert any("tune.batch_size" in way and "tune.accumulation" in way for way in finding.examples)


def test_an_architecture_that_cannot_be_foreseen_is_trained_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unforeseeable(plan: Plan) -> MemoryEstimate:
        estimate_memory(plan)
        raise UnforeseeableError("model.base: the memory cannot be foreseen")

    monkeypatch.setattr(check_module, "estimate_memory", unforeseeable)
    asked = experiment(Data(source=write(tmp_path / "rows.jsonl", rows(150))))
    checked = check(asked, quiet)
    assert checked.memory is None
    assert checked.as_json()["memory"] is None
    assert [(finding.code, finding.severity) for finding in checked.findings if finding.code == "memory"] == [
        ("memory", "note")
    ]
    assert checked.stopping(asked) == []
