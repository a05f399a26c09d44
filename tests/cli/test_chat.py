"""A chat: what is remembered, what is cancelled, what is saved, and what a script gets."""

import io
import itertools
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from whetstone.cli.chat import chat
from whetstone.cli.chat_session import Chat, append_row
from whetstone.cli.chat_views import Columns, JsonLines, Plain, Side
from whetstone.cli.provenance import RANDOM_WEIGHTS
from whetstone.data.formats import LAYOUTS, Parser
from whetstone.data_section import Data
from whetstone.engine.api import Sampling
from whetstone.engine.conversation import Answering, Conversation
from whetstone.engine.open import Opened, open_engine
from whetstone.errors import UserError

GREEDY = Answering(Sampling(), 50, 0)


class Talk:
    """A chat over speakers, with what it said."""

    def __init__(self, folder: Path, *speakers: Any, answering: Answering = GREEDY, columns: int = 0) -> None:
        self.conversations = [Conversation(one, answering) for one in speakers]
        sides = [Side(talk, one.provenance) for talk, one in zip(self.conversations, speakers, strict=True)]
        self.screen = io.StringIO()
        console = Console(file=self.screen, width=columns or 60, height=20, force_terminal=bool(columns))
        self.notices: list[str] = []
        self.examples = folder / "kept" / "examples.jsonl"
        view = Columns(console) if columns else Plain(console)
        self.chat = Chat(sides, view, self.notices.append, self.examples)

    def say(self, *lines: str) -> list[str]:
        self.notices.clear()
        for line in lines:
            self.chat.line(line)
        return self.notices

    def questions(self, side: int = 0) -> list[str]:
        return [turn.question for turn in self.conversations[side].turns]


@pytest.fixture
def talk(tmp_path: Path, speaker: Any) -> Talk:
    return Talk(tmp_path, speaker())


def told(one: Any) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in one.asked[-1].messages]


def test_the_history_is_told_again_behind_the_system_turn(tmp_path: Path, speaker: Any) -> None:
    one = speaker()
    talk = Talk(tmp_path, one)
    talk.say("/system Be brief.", "hello there", "and now")
    assert told(one) == [
        ("system", "Be brief."),
        ("user", "hello there"),
        ("assistant", "speaker hello there "),
        ("user", "and now"),
    ]
    assert "speaker hello there" in talk.screen.getvalue()
    talk.say("/system", "/reset", "again")
    assert told(one) == [("user", "again")]


def test_undo_takes_the_last_turn_away_and_retry_draws_another_answer(tmp_path: Path, speaker: Any) -> None:
    one = speaker()
    talk = Talk(tmp_path, one, answering=Answering(Sampling(0.7), 50, 3))
    talk.say("first", "second")
    answer = talk.conversations[0].turns[-1].completion.text
    talk.say("/retry")
    assert talk.questions() == ["first", "second"]
    assert talk.conversations[0].turns[-1].completion.text != answer
    assert len(told(one)) == 3
    assert talk.say("/undo") == ["forgotten: second"]
    assert talk.questions() == ["first"]
    assert talk.say("/undo", "/undo")[1] == "nothing to forget"
    assert talk.say("/retry") == ["error: nothing was asked yet; ask something first"]


def test_the_same_chat_draws_the_same_answers(tmp_path: Path, speaker: Any) -> None:
    drawn = []
    for seed in (3, 3, 4):
        talk = Talk(tmp_path, speaker(), answering=Answering(Sampling(0.7), 50, seed))
        talk.say("one", "two")
        drawn.append([turn.completion.text for turn in talk.conversations[0].turns])
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_full_context_is_one_line_and_loses_nothing(tmp_path: Path, speaker: Any) -> None:
    one = speaker(context_tokens=14)
    talk = Talk(tmp_path, one)
    talk.say("a b c", "d e")
    assert talk.conversations[0].turns[-1].fills_context
    assert "the context is full; /reset" in talk.screen.getvalue()
    before, asked = talk.conversations[0].turns, len(one.asked)
    (line,) = talk.say("f g")
    assert line.count("\n") == 0
    assert "fills the model's context of 14" in line
    assert "/reset" in line
    assert talk.conversations[0].turns == before
    talk.say("/retry")
    assert talk.conversations[0].turns[0] == before[0]
    assert talk.chat.refused == 1
    assert len(one.asked) == asked + 1  # the retry
    talk.say("/reset", "f g")
    assert talk.questions() == ["f g"]


def test_a_retry_that_cannot_be_asked_keeps_the_turn(tmp_path: Path, speaker: Any) -> None:
    one = speaker()
    talk = Talk(tmp_path, one)
    talk.say("hello")
    one.context_tokens = 1
    (line,) = talk.say("/retry")
    assert "not asked, nothing is lost" in line
    assert talk.questions() == ["hello"]


def interrupting_at(token: int) -> Callable[[], None]:
    numbers = itertools.count(1)

    def on_token() -> None:
        if next(numbers) == token:
            signal.raise_signal(signal.SIGINT)

    return on_token


def typed(lines: Iterator[str | BaseException]) -> str:
    line = next(lines)
    if isinstance(line, BaseException):
        raise line
    return line


def test_ctrl_c_cancels_the_answer_only_and_a_second_one_ends(tmp_path: Path, speaker: Any) -> None:
    one = speaker(context_tokens=None)
    one.on_token = interrupting_at(6)
    talk = Talk(tmp_path, one, answering=Answering(Sampling(), 1000, 0))
    lines: Iterator[str | BaseException] = iter(["hello", "long", KeyboardInterrupt(), "unread"])
    talk.chat.run(lambda: typed(lines))
    assert next(lines) == "unread"
    assert len(one.cancelled) == 1
    last = talk.conversations[0].turns[-1].completion
    assert (last.finish_reason, last.text) == ("cancelled", "word " * 4)
    assert last.usage.new_tokens == 4
    assert "(cancelled)" in talk.screen.getvalue()
    assert "not whole" in talk.say("/save")[0]
    talk.say("go on")
    assert ("assistant", "word " * 4) in told(one)


def test_ctrl_c_at_the_prompt_warns_once(tmp_path: Path, speaker: Any) -> None:
    talk = Talk(tmp_path, speaker())
    ends = [KeyboardInterrupt(), KeyboardInterrupt()]
    lines: Iterator[str | BaseException] = iter([KeyboardInterrupt(), "hello", *ends, "unread"])
    talk.chat.run(lambda: typed(lines))
    assert next(lines) == "unread"
    assert talk.questions() == ["hello"]
    assert sum("ends the chat" in notice for notice in talk.notices) == 2


def test_an_answer_without_words_is_not_told_again(tmp_path: Path, speaker: Any) -> None:
    one = speaker(context_tokens=None)
    talk = Talk(tmp_path, one)

    def at_once(request: Any) -> list[str]:
        return [""] * 10 if request.messages[-1].content == "mute" else ["said "]

    one._words = at_once
    talk.say("mute", "hello")
    assert talk.questions() == ["mute", "hello"]
    assert told(one) == [("user", "hello")]


def test_saved_examples_are_what_tune_reads(talk: Talk) -> None:
    assert talk.say("/save") == ["error: nothing was answered yet; ask something first"]
    talk.say("/system Be brief.", "one", "two")
    assert talk.say("/save") == [f"saved to {talk.examples}"]
    talk.say("/reset", "three", "/save")
    assert talk.say("/save 2") == ["error: /save 2: there is no such model here; give one of 1"]
    rows = [json.loads(line) for line in talk.examples.read_text().splitlines()]
    read = [Parser(Data(source="x.jsonl"), LAYOUTS["messages"])(row) for row in rows]
    assert [[message.role for message in draft.answers[-1].messages] for draft in read] == [
        ["system", "user", "assistant", "user"],
        ["system", "user"],
    ]
    assert [draft.answers[-1].references for draft in read] == [("speaker two",), ("speaker three",)]


def test_a_row_is_added_behind_a_line_that_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"torn": ')
    append_row(path, {"new": "é"})
    assert path.read_text(encoding="utf-8").splitlines() == ['{"torn": ', '{"new": "é"}']
    with pytest.raises(UserError, match=r"cannot be written .*; give another --save-to"):
        append_row(path / "below", {})


def test_stats_help_and_commands_that_are_none(talk: Talk) -> None:
    assert talk.say("/stats") == ["error: nothing was answered yet; ask something first"]
    talk.say("hello you")
    (line,) = talk.say("/stats")
    assert line.startswith("speaker: 3 prompt tokens (2 reused), 3 new tokens, first after ")
    assert line.endswith("tokens/s")
    assert all(command in talk.say("/help")[0] for command in ("/save", "/retry", "/undo", "/quit"))
    assert "no such command" in talk.say("/nothing")[0]
    talk.say("//etc is a folder")
    assert talk.questions()[-1] == "/etc is a folder"


def test_two_models_keep_their_own_histories(tmp_path: Path, speaker: Any) -> None:
    left, right = speaker("left"), speaker("right")
    talk = Talk(tmp_path, left, right)
    talk.say("hello", "again")
    assert told(left)[1] == ("assistant", "left hello ")
    assert told(right)[1] == ("assistant", "right hello ")
    said = talk.screen.getvalue()
    assert said.index("── left") < said.index("left hello") < said.index("── right") < said.index("right hello")
    talk.say("/save 2")
    assert "right again" in talk.examples.read_text()


@pytest.mark.parametrize("columns", [0, 100])
def test_what_one_of_two_cannot_answer_is_in_neither_history(tmp_path: Path, speaker: Any, columns: int) -> None:
    left, right = speaker("left"), speaker("right", context_tokens=3)
    talk = Talk(tmp_path, left, right, columns=columns)
    assert "not asked" in talk.say("a b c")[0]
    assert talk.questions(0) == talk.questions(1) == []

    def broken(request: Any) -> None:
        raise UserError("the engine is closed; open it again")

    right.context_tokens, right.stream = None, broken
    assert "open it again" in talk.say("a b c")[0]
    assert talk.questions(0) == talk.questions(1) == []


def test_two_answers_stand_beside_each_other(tmp_path: Path, speaker: Any) -> None:
    talk = Talk(tmp_path, speaker("left"), speaker("right", random_weights=True), columns=100)
    talk.say("hello there")
    beside = [line for line in talk.screen.getvalue().splitlines() if "left hello" in line and "right hello" in line]
    assert beside
    assert "RANDOM WEIGHTS" in talk.screen.getvalue()


def test_what_a_model_says_does_not_steer_the_terminal(tmp_path: Path, speaker: Any) -> None:
    for columns in (0, 100):
        both = [speaker("a"), speaker("b")]
        talk = Talk(tmp_path, *both, columns=columns)
        talk.say("\x1b]0;owned\x07 [bold]text[/bold]")
        assert "\x1b]0" not in talk.screen.getvalue()
        assert "[bold]text" in talk.screen.getvalue()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, speaker: Any) -> Callable[..., Result]:
    """Runs the verb over speakers; "random" has random weights, "small" a short context."""
    opened: list[Any] = []

    def open_engines(refs: list[str], *, runs: Path, device: str, test_mode: bool) -> list[Any]:
        for ref in refs:
            opened.append(speaker(ref, context_tokens=5 if ref == "small" else 100, random_weights=ref == "random"))
        return opened[-len(refs) :]

    monkeypatch.setattr("whetstone.engine.open.open_engines", open_engines)
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(chat)

    def run(*arguments: str, lines: str) -> Result:
        done = CliRunner().invoke(app, arguments, input=lines)
        assert all(one.closed for one in opened)
        return done

    return run


def test_a_script_gets_plain_answers(command: Callable[..., Result]) -> None:
    done = command("demo", "--temperature", "0", lines="hello\n\nyou there\n/save\n/quit\nunread\n")
    assert done.exit_code == 0
    assert done.stdout == "demo hello \ndemo you there \n"
    assert "demo: a test, abababababab, float32, torch" in done.stderr
    assert "saved to chat-examples.jsonl" in done.stderr
    assert Path("chat-examples.jsonl").exists()


def test_a_script_gets_one_object_a_turn(command: Callable[..., Result]) -> None:
    done = command("demo", "--against", "random", "--json", "--temperature", "0", lines="hello\n/stats\nyou\n")
    assert done.exit_code == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["turn"], row["question"]) for row in rows] == [(1, "hello"), (2, "you")]
    left, right = rows[1]["answers"]
    assert (left["ref"], left["text"], left["random_weights"]) == ("demo", "demo you ", False)
    assert (right["ref"], right["text"], right["random_weights"]) == ("random", "random you ", True)
    assert left["finish_reason"] == "stop"
    assert (left["prompt_tokens"], left["new_tokens"], left["reused_tokens"]) == (7, 2, 2)


def test_random_weights_are_said_with_every_answer(command: Callable[..., Result]) -> None:
    done = command("random", lines="hello\nyou\n")
    assert done.stdout.count(RANDOM_WEIGHTS) == 2
    assert done.stderr.count(RANDOM_WEIGHTS) == 1


def test_a_script_learns_that_a_question_was_refused(command: Callable[..., Result]) -> None:
    done = command("small", "--json", "--temperature", "0", lines="a b c d e f\nhello\n")
    assert done.exit_code == 2
    refused, answered = (json.loads(line) for line in done.stdout.splitlines())
    assert "fills the model's context" in refused["error"]
    assert answered["answers"][0]["text"] == "small hello "
    assert "not asked, nothing is lost" in done.stderr


def test_bytes_that_are_not_utf8_are_one_line(command: Callable[..., Result]) -> None:
    done = command("demo", lines=b"hello\n\xff\n")
    assert isinstance(done.exception, UserError)
    assert "standard input, line 2: expected UTF-8" in str(done.exception)


def test_json_lines_count_questions_that_were_refused(tmp_path: Path, speaker: Any, capsys: Any) -> None:
    one = speaker(context_tokens=3)
    view = JsonLines()
    side = Side(Conversation(one, GREEDY), one.provenance)
    with pytest.raises(UserError):
        view.ask([side], "a b c d")
    view.ask([side], "a")
    assert [json.loads(line)["turn"] for line in capsys.readouterr().out.splitlines()] == [1, 2]


@pytest.fixture(scope="module")
def real() -> Iterator[Opened]:
    """The model that ships with the package."""
    opened = open_engine("builtin:demo-base", runs=Path("runs"), device="cpu")
    yield opened
    opened.close()


def test_a_real_engine_is_free_at_once_after_ctrl_c(tmp_path: Path, real: Opened) -> None:
    talk = Talk(tmp_path, real, answering=Answering(Sampling(1.0), 100, 0))
    heard = interrupting_at(3)
    write = io.StringIO.write

    class Interrupting(io.StringIO):
        def write(self, text: str) -> int:
            heard()
            return write(self, text)

    talk.chat = Chat(
        [Side(talk.conversations[0], real.provenance)],
        Plain(Console(file=Interrupting(), width=60)),
        talk.notices.append,
        talk.examples,
    )
    assert talk.chat.line("Correct the sentence: She go to school every day , and he like it .")
    (turn,) = talk.conversations[0].turns
    assert turn.completion.finish_reason == "cancelled"
    assert 1 <= turn.completion.usage.new_tokens < 100
    assert not talk.chat.line("And now ?")
    last = talk.conversations[0].turns[-1].completion
    assert last.finish_reason in ("stop", "length")
    assert last.usage.reused_tokens > 0


def test_a_real_chat_in_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(chat)
    arguments = ["builtin:demo-base", "--temperature", "0", "--json", "--device", "cpu"]
    done = CliRunner().invoke(app, arguments, input="Hello .\n" * 30, catch_exceptions=False)
    # Thirty turns are more than the context of this model holds.
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 30
    assert rows[0]["answers"][0]["prompt_tokens"] < rows[1]["answers"][0]["prompt_tokens"]
    assert "fills the model's context of 128" in rows[-1]["error"]
    assert done.exit_code == 2
