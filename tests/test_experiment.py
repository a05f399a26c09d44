"""The experiment file: what is valid, and the one line that each mistake gives."""

from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from whetstone.data_section import FilesSource, FindingCode, GrammarSource, ParallelSource
from whetstone.errors import UserError
from whetstone.evaluate.sample import ARMS as ARMS_OF_ALL
from whetstone.experiment import load_experiment
from whetstone.judge_section import ExtraArm, Judge
from whetstone.recipes import recipe_names, recipe_path, recipe_summary

GOOD = """\
model:
  base: builtin:demo-base
data:
  source: {grammar: corrections, train: 50, test: 20}
  prompt: "Correct this: {source}"
tune:
  learning_rate: 3e-3
  rank: 8
judge:
  must_improve:
    - {metric: exact_match, over: base}
  generation:
    max_new_tokens: 24
serve:
  port: 8000
"""

ARMS = "  arms:\n    - {{name: {}, model: tuned@int8}}\n    - {{name: other, model: base}}\nserve:"

SOURCE = "{grammar: corrections, train: 50, test: 20}"

BROKEN = {
    "unknown section": (GOOD.replace("tune:", "tuen:"), 6, "tuen", "did you mean 'tune'"),
    "unknown key": (
        GOOD.replace("learning_rate", "learning_rat"),
        7,
        "tune.learning_rat",
        "did you mean 'learning_rate'",
    ),
    "unknown key far from any": (GOOD.replace("rank: 8", "zzz: 8"), 8, "tune.zzz", "valid here: method"),
    "unknown key in a union": (GOOD.replace("train: 50", "trian: 50"), 4, "data.source.trian", "did you mean 'train'"),
    "unknown key in a list": (
        GOOD.replace("metric: exact_match", "metrc: exact_match"),
        11,
        "judge.must_improve.0.metrc",
        "did you mean 'metric'",
    ),
    "text for a number": (GOOD.replace("3e-3", "fast"), 7, "tune.learning_rate", "must be a number, found 'fast'"),
    "quoted number": (GOOD.replace("rank: 8", "rank: '8'"), 8, "tune.rank", "must be a whole number, found '8'"),
    "fraction for a count": (GOOD.replace("rank: 8", "rank: 8.5"), 8, "tune.rank", "must be a whole number, found 8.5"),
    "true for a count": (GOOD.replace("rank: 8", "rank: true"), 8, "tune.rank", "must be a whole number"),
    "zero count": (GOOD.replace("rank: 8", "rank: 0"), 8, "tune.rank", "greater than 0"),
    "infinite": (GOOD.replace("3e-3", ".inf"), 7, "tune.learning_rate", "finite"),
    "number for text": (GOOD.replace("builtin:demo-base", "3"), 2, "model.base", "must be text, found 3"),
    "wrong choice": (GOOD.replace("rank: 8", "method: lroa"), 8, "tune.method", "did you mean 'lora'"),
    "unknown metric": (GOOD.replace("exact_match", "exact_mach"), 11, "judge.must_improve.0.metric", "'exact_match'"),
    "section is a value": (GOOD.replace("serve:\n  port: 8000", "serve: 8000"), 14, "serve", "section"),
    "section is empty": (GOOD.replace("serve:\n  port: 8000", "serve:"), 14, "serve", "section"),
    "port too large": (GOOD.replace("8000", "80000"), 15, "serve.port", "65535"),
    "missing section": (GOOD.replace("model:\n  base: builtin:demo-base\n", ""), 1, "model", "required"),
    "missing key": (
        GOOD.replace("{grammar: corrections, train: 50, test: 20}", "{src: x.txt}"),
        4,
        "data.source.refs",
        "add",
    ),
    "two origins": (GOOD.replace("data:\n", "  scratch: {dim: 64}\ndata:\n", 1), 2, "model.base", "exactly one"),
    "scratch without its method": (
        GOOD.replace("base: builtin:demo-base", "scratch: {dim: 64}"),
        6,
        "tune.method",
        "go together",
    ),
    "heads do not divide": (
        GOOD.replace("base: builtin:demo-base", "scratch: {dim: 30, heads: 4}").replace("rank: 8", "method: scratch"),
        2,
        "model.scratch.heads",
        "multiple",
    ),
    "prompt without its place": (GOOD.replace("Correct this: {source}", "Correct this"), 5, "data.prompt", "{source}"),
    "no gates": (
        GOOD.replace("\n    - {metric: exact_match, over: base}", " []"),
        10,
        "judge.must_improve",
        "at least 1",
    ),
    "an arm that there always is": (GOOD.replace("serve:", ARMS.format("Tuned")), 15, "judge.arms.0.name", "taken"),
    "an arm with a dot": (GOOD.replace("serve:", ARMS.format("int.8")), 15, "judge.arms.0.name", "pattern"),
    "two arms of one name": (GOOD.replace("serve:", ARMS.format("OTHER")), 14, "judge.arms", "more than one"),
    "repeated key": (GOOD + "model:\n  base: x\n", 16, "model", "already given on line 1"),
    "bad name": (GOOD + "name: ../up\n", 16, "name", "pattern"),
    "a date": (GOOD + "name: 2026-01-01\n", 16, "name", "quote it"),
    "missing file": (
        GOOD.replace("{grammar: corrections, train: 50, test: 20}", "rows.jsonl"),
        4,
        "data.source",
        "no such",
    ),
    "missing template": (
        GOOD.replace("data:\n", "  template: t.jinja\ndata:\n", 1),
        3,
        "model.template",
        "no such file",
    ),
    "nobody's home": (GOOD.replace(SOURCE, "~nosuch/x.jsonl"), 4, "data.source", "cannot be a path"),
    "long path": (GOOD.replace(SOURCE, "x" * 400 + ".jsonl"), 4, "data.source", "cannot be a path"),
    "zero in a path": (GOOD.replace(SOURCE, r'"a\0b.jsonl"'), 4, "data.source", "cannot be a path"),
    "long path of a base": (GOOD.replace("builtin:demo-base", "./" + "x" * 400), 2, "model.base", "cannot be a path"),
    "a folder with a dot is no owner on the hub": (GOOD.replace(SOURCE, "v1.2/rows"), 4, "data.source", "no such file"),
    "missing part": (
        GOOD.replace(SOURCE, "{train: here.jsonl, test: gone.jsonl}"),
        4,
        "data.source.test",
        "no such file",
    ),
    "part left out": (GOOD.replace(SOURCE, "{train: here.jsonl}"), 4, "data.source.test", "required"),
    "unknown key beside parts": (
        GOOD.replace(SOURCE, "{train: here.jsonl, test: here.jsonl, valid: here.jsonl}"),
        4,
        "data.source.valid",
        "did you mean 'validation'",
    ),
    "missing catalogue": (
        GOOD.replace(SOURCE, "{dataset_info: no.json, name: x}"),
        4,
        "data.source.dataset_info",
        "no such",
    ),
    "unknown format": (GOOD.replace("tune:", "  format: sharegtp\ntune:"), 6, "data.format", "did you mean 'sharegpt'"),
    "unknown finding": (
        GOOD.replace("tune:", "  lint: {allow: [role-oder]}\ntune:"),
        6,
        "data.lint.allow.0",
        "did you mean 'role-order'",
    ),
    "all replay": (
        GOOD.replace("tune:", "  replay: {source: here.jsonl, fraction: 1}\ntune:"),
        6,
        "data.replay.fraction",
        "less than 1",
    ),
    "missing replay": (
        GOOD.replace("tune:", "  replay: {source: gone.jsonl, fraction: 0.2}\ntune:"),
        6,
        "data.replay.source",
        "no such file",
    ),
    "not YAML": (GOOD.replace("{grammar: corrections", "{grammar: [corrections"), 4, "", "not YAML"),
    "tab": (GOOD.replace("  base", "\tbase"), 2, "", "not YAML"),
    "unquoted braces": (GOOD.replace('"Correct this: {source}"', "{{source}}"), 5, "", "quote it"),
    "a list for a key": (GOOD + "? [a]\n: 1\n", 16, "", "key must be text"),
    "an anchor that holds itself": ("a: &x [*x]\n", 1, "", ""),
    "a zero byte": (GOOD + "\0", 1, "", "not YAML"),
    "too deep": ("a: " + "[" * 3000, 1, "", "nested too deeply"),
    "negative seed": (GOOD.replace("rank: 8", "seed: -1"), 8, "tune.seed", "greater than or equal to 0"),
    "a list": ("- 1\n- 2\n", 1, "", "key: value"),
    "empty": ("", 1, "", "key: value"),
}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("fault", BROKEN)
def test_a_mistake_is_one_line_with_file_line_key_and_mend(tmp_path: Path, fault: str) -> None:
    text, line, key, hint = BROKEN[fault]
    (tmp_path / "here.jsonl").touch()
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_experiment(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}:{line}: {key}"), message
    assert hint in message, message


def test_good_file_is_read_with_defaults(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, GOOD))
    assert experiment.name == "mine"
    assert experiment.tune.learning_rate == 0.003
    assert isinstance(experiment.data.source, GrammarSource)
    assert experiment.judge.confidence == 0.95


def test_missing_file_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="whet init"):
        load_experiment(tmp_path / "absent.yaml")


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(UserError, match="UTF-8"):
        load_experiment(path)


def test_paths_are_taken_from_the_files_folder(tmp_path: Path) -> None:
    for name in ("a.src", "a.ref"):
        (tmp_path / name).write_text("x\n")
    text = GOOD.replace("{grammar: corrections, train: 50, test: 20}", "{src: a.src, refs: [a.ref]}")
    source = load_experiment(write(tmp_path, text)).data.source
    assert isinstance(source, ParallelSource)
    assert source.src == str(tmp_path / "a.src")
    assert source.refs == (str(tmp_path / "a.ref"),)


def test_fingerprints_tell_training_from_judging(tmp_path: Path) -> None:
    first = load_experiment(write(tmp_path, GOOD))
    judged = load_experiment(write(tmp_path, GOOD.replace("max_new_tokens: 24", "max_new_tokens: 25")))
    trained = load_experiment(write(tmp_path, GOOD.replace("rank: 8", "rank: 9")))
    assert first.training_fingerprint() == judged.training_fingerprint() != trained.training_fingerprint()
    assert first.judge.fingerprint() != judged.judge.fingerprint()
    assert len({first.fingerprint(), judged.fingerprint(), trained.fingerprint()}) == 3


def test_a_rule_without_extra_arms_keeps_the_hash_that_was_frozen_in_runs() -> None:
    assert Judge().fingerprint() == "79959db361c3c8af"
    arm = ExtraArm(name="tuned-int8", model="tuned@int8")
    assert Judge(arms=(arm,)).fingerprint() != Judge().fingerprint()
    assert Judge.model_validate_json(Judge(arms=(arm,)).model_dump_json()) == Judge(arms=(arm,))
    assert "arms" not in Judge().model_dump()


def test_every_arm_that_there_always_is_has_its_name_to_itself() -> None:
    for name in (*ARMS_OF_ALL, "examples"):
        with pytest.raises(ValidationError, match="taken"):
            ExtraArm(name=name, model="base")


def test_files_that_arms_name_are_taken_from_the_files_folder(tmp_path: Path) -> None:
    for name in ("base", "mine", "q4.gguf", "an@int8"):
        (tmp_path / name).mkdir()
    given = {
        "base": "base",
        "merged@bfloat16": "merged@bfloat16",
        "./base@int8": f"{tmp_path}/base@int8",
        "builtin:demo-base+mine@nf4": f"builtin:demo-base+{tmp_path}/mine@nf4",
        "an@int8": f"{tmp_path}/an@int8",
        "gguf:q4.gguf": f"gguf:{tmp_path}/q4.gguf",
        "mlx:base+mine": f"mlx:{tmp_path}/base+{tmp_path}/mine",
        "run:mine": "run:mine",
        "http://127.0.0.1:8080/v1#mine": "http://127.0.0.1:8080/v1#mine",
        "owner/name": "owner/name",
    }
    arms = "".join(f"    - {{name: a{index}, model: '{model}'}}\n" for index, model in enumerate(given))
    loaded = load_experiment(write(tmp_path, GOOD.replace("serve:", f"  arms:\n{arms}serve:"))).judge.arms
    assert [arm.model for arm in loaded] == list(given.values())
    assert [arm.baseline for arm in loaded][:3] == ["base", "tuned", "tuned"]


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_are_valid_and_say_what_they_are_for(name: str) -> None:
    assert load_experiment(recipe_path(name)).name == name
    assert len(recipe_summary(name)) > 20


def test_a_file_name_that_cannot_be_a_runs_name(tmp_path: Path) -> None:
    path = tmp_path / "my experiment.yaml"
    path.write_text(GOOD)
    with pytest.raises(UserError, match="add 'name:'"):
        load_experiment(path)


def test_a_hub_id_is_left_as_it_is_unless_such_a_folder_exists(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace(SOURCE, "owner/name"))
    assert load_experiment(path).data.source == "owner/name"
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert load_experiment(path).data.source == str(tmp_path / "owner" / "name")


def test_a_name_too_long_for_a_file_may_be_one_on_the_hub(tmp_path: Path) -> None:
    name = f"owner/{'x' * 300}"
    experiment = load_experiment(write(tmp_path, GOOD.replace(SOURCE, name).replace("builtin:demo-base", name)))
    assert (experiment.data.source, experiment.model.base) == (name, name)


def test_paths_of_parts_and_replay_are_taken_from_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    text = GOOD.replace(SOURCE, "{train: rows.jsonl, test: {src: rows.jsonl, refs: [rows.jsonl]}}")
    data = load_experiment(
        write(tmp_path, text.replace("tune:", "  replay: {source: rows.jsonl, fraction: 0.2}\ntune:"))
    ).data
    rows = str(tmp_path / "rows.jsonl")
    assert data.source == FilesSource(train=rows, test=ParallelSource(src=rows, refs=(rows,)))
    assert data.replay is not None
    assert data.replay.source == rows


def test_how_data_is_checked_does_not_change_what_is_trained(tmp_path: Path) -> None:
    plain = load_experiment(write(tmp_path, GOOD))
    lenient = load_experiment(write(tmp_path, GOOD.replace("tune:", "  lint: {allow: [role-order]}\ntune:")))
    assert plain.training_fingerprint() == lenient.training_fingerprint()
    assert plain.fingerprint() != lenient.fingerprint()


def test_every_finding_is_explained() -> None:
    page = (Path(__file__).parent.parent / "docs" / "checks.md").read_text()
    assert [code for code in get_args(FindingCode) if f"`{code}`" not in page] == []
