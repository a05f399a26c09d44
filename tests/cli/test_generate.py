"""A file of prompts becomes a file of answers, whatever interrupts it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from whetstone.cli.generate import generate
from whetstone.cli.provenance import RANDOM_WEIGHTS
from whetstone.data.prompts import read_prompts
from whetstone.engine.answer_file import AnswerFile, writing
from whetstone.errors import UserError

TIMES = ("first_token_s", "duration_s", "reused_tokens")
QUESTIONS = [f"question number {number}" for number in range(20)]


@pytest.fixture
def opened() -> list[Any]:
    return []


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, speaker: Any, opened: list[Any]) -> Callable[..., Result]:
    """Runs the verb over a speaker; "random" has random weights."""

    def open_engine(ref: str, *, runs: Path, device: str, test_mode: bool) -> Any:
        if len(opened) == 0 or opened[-1].closed or opened[-1].ref != ref:
            opened.append(speaker(ref, random_weights=ref == "random"))
        return opened[-1]

    monkeypatch.setattr("whetstone.engine.open.open_engine", open_engine)
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(generate)

    def run(*arguments: str) -> Result:
        done = CliRunner().invoke(app, arguments)
        assert all(one.closed for one in opened)
        return done

    return run


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def questions(path: Path = Path("prompts.jsonl")) -> str:
    return str(write(path, [{"prompt": question, "id": f"q{n}"} for n, question in enumerate(QUESTIONS)]))


def answers(path: str = "prompts.answers.jsonl") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def test_every_prompt_is_answered_in_its_place(command: Callable[..., Result], opened: list[Any]) -> None:
    done = command("demo", questions(), "--batch", "7", "--json")
    assert done.exit_code == 0
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["answered"], summary["errors"], summary["made_now"]) == (20, 20, 0, 20)
    rows = answers()
    assert [row["text"] for row in rows] == [f"demo {question} " for question in QUESTIONS]
    assert [row["id"] for row in rows] == [f"q{number}" for number in range(20)]
    assert {row["finish_reason"] for row in rows} == {"stop"}
    assert summary["new_tokens"] == sum(row["new_tokens"] for row in rows) == 80
    meta = json.loads(Path("prompts.answers.jsonl.meta.json").read_text())
    assert meta["provenance"]["sha256"] == "ab" * 32
    assert meta["settings"]["temperature"] == 0
    assert "random_weights" not in rows[0]


def test_no_more_than_a_batch_is_under_way(
    command: Callable[..., Result], opened: list[Any], monkeypatch: pytest.MonkeyPatch, speaker: Any
) -> None:
    under_way, most = set(), 0
    stream = speaker.stream

    async def watched(self: Any, request: Any) -> Any:
        nonlocal most
        under_way.add(id(request))
        most = max(most, len(under_way))
        async for piece in stream(self, request):
            if piece.completion is not None:
                under_way.discard(id(request))
            yield piece

    monkeypatch.setattr(speaker, "stream", watched)
    assert command("demo", questions(), "--batch", "3").exit_code == 0
    assert most == 3


def test_seeds_follow_from_id_and_sample_not_from_order(command: Callable[..., Result]) -> None:
    questions()
    rows = [json.loads(line) for line in Path("prompts.jsonl").read_text().splitlines()]
    write(Path("turned.jsonl"), rows[::-1])
    for name in ("prompts", "turned"):
        assert command("demo", f"{name}.jsonl", "--temperature", "1", "--n", "2", "--batch", "3").exit_code == 0
    forward, back = answers("prompts.answers.jsonl"), answers("turned.answers.jsonl")
    assert [row["sample"] for row in forward[:4]] == [0, 1, 0, 1]
    assert sorted(forward, key=str) == sorted(back, key=str) != forward
    assert len({row["seed"] for row in forward}) == 40
    assert command("demo", "prompts.jsonl", "--temperature", "1", "--n", "2", "--seed", "1", "--fresh").exit_code == 0
    assert not {row["seed"] for row in forward} & {row["seed"] for row in answers()}


def test_an_interrupted_call_goes_on_and_ends_as_if_nothing_had_been(
    command: Callable[..., Result], opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["demo", questions(), "--temperature", "1", "--batch", "4"]
    assert command(*arguments, "--out", "whole.jsonl").exit_code == 0
    whole = answers("whole.jsonl")
    add = AnswerFile.add
    added: list[dict[str, Any]] = []

    def killed(self: AnswerFile, row: dict[str, Any]) -> None:
        if len(added) == 7:
            with self.path.open("ab") as file:
                file.write(b'{"id": "q9", "samp')
            raise KeyboardInterrupt
        added.append(row)
        add(self, row)

    monkeypatch.setattr(AnswerFile, "add", killed)
    assert command(*arguments).exit_code == 130
    assert Path("prompts.answers.jsonl").read_bytes().endswith(b'"samp')
    monkeypatch.setattr(AnswerFile, "add", add)
    done = command(*arguments, "--json")
    assert json.loads(done.stdout)["made_now"] == 13
    assert answers() == whole
    assert len(opened[-1].asked) == 13
    again = command(*arguments)
    assert "nothing was left to do" in again.stdout
    assert answers() == whole


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--seed", "1"], "settings.seed (0, now 1)"),
        (["--temperature", "0.5"], "settings.temperature (0.0, now 0.5)"),
        (["--stop", "x"], 'settings.stop ([], now ["x"])'),
        (["--system", "Be brief."], 'settings.system (null, now "Be brief.")'),
    ],
)
def test_other_settings_do_not_go_on_with_a_file(command: Callable[..., Result], change: list[str], said: str) -> None:
    path = questions()
    assert command("demo", path).exit_code == 0
    before = Path("prompts.answers.jsonl").read_bytes()
    refused = command("demo", path, *change)
    assert isinstance(refused.exception, UserError)
    assert said in str(refused.exception)
    assert Path("prompts.answers.jsonl").read_bytes() == before
    assert command("demo", path, *change, "--fresh").exit_code == 0


def test_another_model_or_another_prompt_does_not_go_on_with_a_file(command: Callable[..., Result]) -> None:
    path = questions()
    assert command("demo", path).exit_code == 0
    assert "provenance.ref" in str(command("other", path).exception)
    with Path(path).open("a") as file:
        file.write('{"prompt": "one more"}\n')
    assert "prompts.sha256" in str(command("demo", path).exception)


def test_a_file_that_is_something_else_is_left_alone(command: Callable[..., Result]) -> None:
    path = questions()
    Path("mine.jsonl").write_text("mine")
    assert "not a file of answers" in str(command("demo", path, "--out", "mine.jsonl").exception)
    assert "is the file of prompts" in str(command("demo", path, "--out", path, "--fresh").exception)
    assert Path("mine.jsonl").read_text() == "mine"
    Path("folder").mkdir()
    assert isinstance(command("demo", path, "--out", "folder").exception, UserError)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        writing(tmp_path / "a.jsonl", fresh=False),
        pytest.raises(UserError, match="another process is writing"),
        writing(tmp_path / "a.jsonl", fresh=False),
    ):
        pass


def test_rows_that_failed_are_rows_and_are_tried_again(command: Callable[..., Result], monkeypatch: Any) -> None:
    write(Path("prompts.jsonl"), [{"prompt": "one"}, {"prompt": "fail"}, {"prompt": "two"}])
    done = command("demo", "prompts.jsonl")
    assert done.exit_code == 1
    assert "1 failed" in done.stdout
    rows = answers()
    assert [row["finish_reason"] for row in rows] == ["stop", "error", "stop"]
    assert rows[1]["error"] == "it broke"
    again = command("demo", "prompts.jsonl", "--json")
    assert again.exit_code == 1
    assert json.loads(again.stdout)["made_now"] == 1
    assert answers() == rows


def test_random_weights_are_said_in_every_row(command: Callable[..., Result]) -> None:
    done = command("random", questions())
    assert all(row["random_weights"] is True for row in answers())
    assert RANDOM_WEIGHTS in done.stdout
    assert RANDOM_WEIGHTS in done.stderr


def test_a_prompt_that_does_not_fit_is_found_before_the_first_answer(
    command: Callable[..., Result], opened: list[Any]
) -> None:
    rows = [{"prompt": "short"}, {"prompt": "word " * 95}]
    path = str(write(Path("prompts.jsonl"), rows))
    refused = command("demo", path, "--max-new-tokens", "10")
    assert "prompts.jsonl:2: a prompt of 96 tokens and an answer of 10 exceed the model's context of 100" in str(
        refused.exception
    )
    assert opened[-1].asked == []
    assert not Path("prompts.answers.jsonl").exists()
    assert command("demo", path).exit_code == 0
    assert [row["finish_reason"] for row in answers()] == ["stop", "length"]
    write(Path("full.jsonl"), [{"prompt": "word " * 100}])
    assert "full.jsonl:1: the prompt of 101 tokens fills" in str(command("demo", "full.jsonl").exception)


def test_rows_may_bring_system_turn_length_and_history(command: Callable[..., Result], opened: list[Any]) -> None:
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "go on"},
    ]
    rows: list[dict[str, Any]] = [
        {"messages": turns, "max_new_tokens": 2},
        {"prompt": "a", "system": "own"},
        {"messages": [{"role": "developer", "content": "dev"}, turns[0]]},
    ]
    write(Path("prompts.jsonl"), [{**row, "note": 1} for row in rows])
    done = command("demo", "prompts.jsonl", "--system", "shared", "--stop", "x", "--logprobs", "2")
    assert done.exit_code == 0
    assert "fields that are not used: note" in done.stderr
    told = [[(message.role, message.content) for message in request.messages] for request in opened[-1].asked]
    assert told[0][0] == ("system", "shared")
    assert told[1] == [("system", "own"), ("user", "a")]
    assert told[2] == [("system", "dev"), ("user", "hi")]
    assert opened[-1].asked[0].max_new_tokens == 2
    assert {(request.stop, request.logprobs) for request in opened[-1].asked} == {(("x",), 2)}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "found nothing"),
        ({"promt": "x"}, "found promt"),
        ({"prompt": "x", "messages": []}, "found both"),
        ({"prompt": "  "}, "found a blank one"),
        ({"prompt": 3}, "expected text, found a number"),
        ({"messages": []}, "found none"),
        ({"messages": [{"role": "user"}]}, "messages[0]: expected the field 'content'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "found 'tool'"),
        ({"messages": ["x"]}, "messages[0]: expected an object"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "found the assistant's"),
        ({"prompt": "x", "max_new_tokens": 0}, "max_new_tokens: expected a whole number from 1"),
        ({"prompt": "x", "max_new_tokens": True}, "max_new_tokens: expected a whole number from 1"),
        ({"prompt": "x", "id": "first"}, "the id 'first' is that of "),
        ([1], "expected a JSON object"),
    ],
)
def test_bad_rows_are_refused_with_their_line(tmp_path: Path, row: Any, said: str) -> None:
    path = write(tmp_path / "prompts.jsonl", [{"prompt": "x", "id": "first"}, row])
    with pytest.raises(UserError) as refused:
        read_prompts(path, None)
    assert str(refused.value).startswith(f"{path}:2: ")
    assert said in str(refused.value)


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1), st.randoms())
def test_ids_do_not_depend_on_the_order(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], random: Any
) -> None:
    folder = tmp_path_factory.mktemp("prompts")
    turned = random.sample(texts, len(texts))
    first, second = (
        {(prompt.id, prompt.messages) for prompt in read_prompts(write(folder / "x.jsonl", rows), None).rows}
        for rows in ([{"prompt": text} for text in texts], [{"prompt": text} for text in turned])
    )
    assert first == second
    assert len(first) == len(texts)


def test_options_that_say_nothing_together_are_refused(command: Callable[..., Result]) -> None:
    path = questions()
    assert "give one of them" in str(command("demo", path, "--regex", "a", "--json-schema", "b.json").exception)
    assert "same answer 3 times" in str(command("demo", path, "--n", "3").exception)
    assert "no such file" in str(command("demo", path, "--json-schema", "b.json").exception)
    assert "no such file" in str(command("demo", "nothing.jsonl").exception)
    Path("empty.jsonl").write_text("\n")
    assert "found an empty file" in str(command("demo", "empty.jsonl").exception)


def test_constraints_reach_the_engine(command: Callable[..., Result], opened: list[Any]) -> None:
    path = questions()
    Path("schema.json").write_text('{"type": "object"}')
    assert command("demo", path, "--json-schema", "schema.json").exit_code == 0
    constraint = opened[-1].asked[0].constraint
    assert (constraint.kind, json.loads(constraint.pattern)) == ("json_schema", {"type": "object"})
    assert command("demo", path, "--regex", "a+", "--fresh").exit_code == 0
    assert opened[-1].asked[0].constraint.pattern == "a+"


REAL = "builtin:demo-base"
VERB = "import typer; from whetstone.cli.generate import generate; app = typer.Typer(); app.command()(generate); app()"
SAMPLED = ("--temperature", "1", "--max-new-tokens", "24", "--batch", "2")


def real(*arguments: str, ref: str = REAL) -> dict[str, Any]:
    app = typer.Typer()
    app.command()(generate)
    done = CliRunner().invoke(app, [ref, *arguments, "--device", "cpu", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def test_a_killed_process_loses_what_was_unfinished_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = questions()
    out = tmp_path / "killed.jsonl"
    command = [sys.executable, "-c", VERB, REAL, path, "--out", str(out), *SAMPLED, "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") < 4):
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    kept = out.read_bytes().count(b"\n")
    assert 4 <= kept < 20
    assert real(path, "--out", str(out), *SAMPLED)["made_now"] == 20 - kept
    real(path, "--out", "whole.jsonl", *SAMPLED)
    assert answers(str(out)) == answers("whole.jsonl")


def test_a_real_engine_obeys_pattern_and_stop_and_tells_logprobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(write(tmp_path / "prompts.jsonl", [{"prompt": "Correct the sentence: She go home ."}]))
    real(path, "--regex", "(yes|no)", "--logprobs", "2")
    (row,) = answers()
    assert row["text"] in ("yes", "no")
    assert len(row["logprobs"]) == row["new_tokens"]
    assert all(len(one["top"]) == 2 for one in row["logprobs"])
    real(path, "--stop", "e", "--fresh")
    assert "e" not in answers()[0]["text"]
    with pytest.raises(UserError):
        real(path, "--regex", "(", "--fresh")
    # Nothing was answered, so nothing binds the next call.
    real(path, "--regex", "(a)")


def test_random_weights_need_test_mode_and_say_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(write(tmp_path / "prompts.jsonl", [{"prompt": "Hello"}]))
    with pytest.raises(UserError, match="only with --test-mode"):
        real(path, ref=f"random:{REAL}")
    assert real(path, "--test-mode", "--max-new-tokens", "3", ref=f"random:{REAL}")["random_weights"] is True
    assert answers()[0]["random_weights"] is True
