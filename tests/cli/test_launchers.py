"""Files to double-click call what they say, wherever they lie; those of Linux and macOS are run with a stand-in."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from whetstone.cli.launchers import launchers
from whetstone.cli.main import app
from whetstone.errors import UserError
from whetstone.launchers import LAUNCHERS

EXPERIMENT = """\
name: tiny
model: {scratch: {vocabulary_size: 400, dim: 32, layers: 1, heads: 2, feed_forward_dim: 64, context_tokens: 128}}
data: {source: {grammar: corrections, train: 200, test: 48}, prompt: "Correct: {source}", max_tokens: 128}
tune: {method: scratch, steps: 12}
"""
FOLDERS = ["plain", "with space", "it's $HOME & `more`; (100%)", "a\\b", "ünïcode"]
NAMES = [launcher.name for launcher in LAUNCHERS]

STAND_IN = """\
#!/usr/bin/env bash
printf '%s\\n' "$PWD" "$@" >> "$CALLED"
printf 'end\\n' >> "$CALLED"
[ "$(grep -c '^end$' "$CALLED")" -lt 3 ] && [ "$1" = show ] && exit 0
exit 3
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with a ``whet`` that writes down how it was called, and fails in the end."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, text in (("whet", STAND_IN), ("sleep", "#!/bin/sh\n"), ("clear", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def _make(folder: Path, monkeypatch: pytest.MonkeyPatch, *, runs: str = "my runs") -> Path:
    folder.mkdir(parents=True)
    (folder / "my tiny.yaml").write_text(EXPERIMENT)
    monkeypatch.chdir(folder)
    launchers("my tiny.yaml", runs=Path(runs))
    return folder / "launchers"


def _expected(name: str, experiment: str = "my tiny.yaml") -> list[str]:
    run = ["--name", "tiny", "--runs", "my runs"]
    return {
        "Train": ["tune", experiment, *run, "--resume"],
        "Watch": ["show", "tiny", "--runs", "my runs"],
        "Test": ["chat", "run:tiny", "--against", "run:tiny#base", "--runs", "my runs"],
        "Chat": ["chat", "run:tiny", "--runs", "my runs"],
        "Evaluate": ["compare", experiment, *run],
    }[name]


def _call(script: Path, programs: Path, called: Path) -> tuple[int, list[list[str]]]:
    """Runs a script from elsewhere, and gives its exit code and the calls, each with its folder first."""
    called.unlink(missing_ok=True)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "CALLED": str(called)}
    done = subprocess.run([script], cwd="/", env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    calls = called.read_text().split("end\n")[:-1] if called.exists() else []
    return done.returncode, [call.splitlines() for call in calls]


@pytest.mark.parametrize("where", FOLDERS)
def test_scripts_call_what_they_say(
    where: str, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _make(tmp_path / where, monkeypatch)
    for name in NAMES:
        for script in (made / "linux" / f"{name.lower()}.sh", made / "macos" / f"{name}.command"):
            code, calls = _call(script, programs, tmp_path / "called")
            assert calls == [[str(tmp_path / where), *_expected(name)]] * (3 if name == "Watch" else 1)
            assert code == 3


@pytest.mark.parametrize("name", NAMES)
def test_the_command_is_one_of_whet(name: str) -> None:
    verb, *arguments = _expected(name)
    typer.main.get_group(app).commands[verb].make_context(verb, arguments)


def test_they_can_be_moved_with_their_folder(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(tmp_path / "before", monkeypatch)
    monkeypatch.chdir(tmp_path)
    shutil.move(tmp_path / "before", tmp_path / "after wards")
    script = tmp_path / "after wards" / "launchers" / "macos" / "Chat.command"
    _, ((folder, *arguments),) = _call(script, programs, tmp_path / "called")
    assert (folder, arguments) == (str(tmp_path / "after wards"), _expected("Chat"))


def test_they_may_lie_elsewhere(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    launchers("demo", out=tmp_path / "desk top")
    _, ((folder, *arguments),) = _call(tmp_path / "desk top" / "linux" / "train.sh", programs, tmp_path / "called")
    assert folder == str(tmp_path / "work") and arguments[:2] == ["tune", "demo"]


def test_whet_is_found_where_the_desktop_does_not_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _make(tmp_path / "here", monkeypatch)
    (line,) = [line for line in (made / "linux" / "chat.sh").read_text().splitlines() if line.startswith("PATH=")]
    folder = Path(shlex.split(line)[0].partition(":")[2])
    assert os.access(folder / "whet", os.X_OK)


@pytest.mark.parametrize("where", FOLDERS)
def test_entries_of_desktops(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _make(tmp_path / where, monkeypatch)
    for name in NAMES:
        path = made / "linux" / f"{name}.desktop"
        entry = configparser.ConfigParser(interpolation=None, delimiters=("=",))
        entry.optionxform = str  # type: ignore[assignment,method-assign]
        entry.read_string(path.read_text())
        assert entry.sections() == ["Desktop Entry"]
        values = entry["Desktop Entry"]
        assert (values["Type"], values["Name"], values["Terminal"]) == ("Application", name, "true")
        # A string is unescaped first, then what stands in quotes, then the codes of fields.
        quoted = re.sub(r"\\(.)", r"\1", values["Exec"])
        assert quoted[0] == quoted[-1] == '"'
        script = Path(re.sub(r"\\(.)", r"\1", quoted[1:-1]).replace("%%", "%"))
        assert script == made / "linux" / f"{name.lower()}.sh"
        assert os.access(path, os.X_OK) and os.access(script, os.X_OK)


@pytest.mark.parametrize("where", FOLDERS)
def test_scripts_of_windows(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _make(tmp_path / where, monkeypatch)
    for name in NAMES:
        raw = (made / "windows" / f"{name}.cmd").read_bytes()
        assert raw.count(b"\n") == raw.count(b"\r\n") and not raw.startswith(b"\xef\xbb\xbf")
        lines = raw.decode().splitlines()
        assert lines[0] == "@echo off" and lines[-1] == "exit /b %code%" and lines[-2] == "pause"
        (command,) = [line for line in lines if line.startswith("whet ")]
        assert re.findall(r'"([^"]*)"', command) == _expected(name)
        assert r'cd /d "..\.."' in "\n".join(lines)
        for label in re.findall(r"goto (\w+)", raw.decode()):
            assert f":{label}" in lines


def test_what_windows_means_by_a_percent_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _make(tmp_path / "here", monkeypatch, runs="100% runs")
    assert '"--runs" "100%% runs"' in (made / "windows" / "Chat.cmd").read_text()


@pytest.mark.parametrize("where", FOLDERS)
def test_bash_reads_them(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _make(tmp_path / where, monkeypatch)
    scripts = [*made.glob("linux/*.sh"), *made.glob("macos/*.command")]
    assert len(scripts) == 10
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
        assert os.access(script, os.X_OK)


def test_nothing_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _make(tmp_path / "here", monkeypatch)
    with pytest.raises(UserError, match="exists already"):
        launchers("my tiny.yaml")
    shutil.rmtree(made)
    made.write_text("a file")
    with pytest.raises(UserError, match="exists already"):
        launchers("my tiny.yaml")


@pytest.mark.parametrize("name", ["a\nb", 'a"b'])
def test_what_cannot_be_quoted_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="cannot stand in a file to click"):
        _make(tmp_path / name, monkeypatch)


def test_what_a_program_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    launchers("demo", name="other", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["run"] == "other" and len(told["written"]) == 20
    assert all(Path(path).is_file() for path in told["written"])
    assert "--name other" in (tmp_path / "launchers" / "linux" / "train.sh").read_text()
