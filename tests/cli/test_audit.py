"""``whet audit`` on small files."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from whetstone.cli.main import app
from whetstone.errors import UserError

Whet = Callable[..., Result]


@pytest.fixture
def whet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whet:
    """Runs the verb in a folder with a few files, where lines are long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "220")
    (tmp_path / "false.md").write_text("# R\n\nExact match was 7/10.\n\nIt passed 71 % of 15 prompts, [b]so[/b].\n")
    (tmp_path / "sound.md").write_text("7/10 = 70 % (95 % interval 40-89 %). Memory use was 38 %.\n")
    (tmp_path / "empty.md").write_text("")
    return lambda *arguments: CliRunner().invoke(app, ["audit", *map(str, arguments)])


def test_flagged_claims_are_grouped_by_severity(whet: Whet) -> None:
    result = whet("false.md")
    assert result.exit_code == 1
    shown = result.stdout
    assert shown.index("impossible: no data can give it") < shown.index("weak: it may be true")
    assert "no whole number of 15 is 71 %: the nearest are 10/15 = 66.67 % and 11/15 = 73.33 %" in shown
    assert "It passed 71 % of 15 prompts, [b]so[/b]." in shown
    assert "7/10 = 70 %: 95 % interval 40-89 %" in shown
    assert "wide-interval" in shown
    assert "false.md: 2 claims, 2 flagged, 0 supported by numbers of the report, 0 that cannot be checked" in shown


def test_a_sound_report(whet: Whet) -> None:
    result = whet("sound.md")
    assert result.exit_code == 0
    assert "0 flagged, 1 supported by numbers of the report, 1 that cannot be checked" in result.stdout


def test_a_report_without_claims(whet: Whet) -> None:
    result = whet("empty.md")
    assert (result.exit_code, result.stdout) == (0, "empty.md: no claim was found\n")


def test_as_json(whet: Whet) -> None:
    result = whet("false.md", "--json")
    assert result.exit_code == 1
    row = json.loads(result.stdout)
    counts = {name: row[name] for name in ("report", "claims", "flagged", "supported", "unchecked")}
    assert counts == {"report": "false.md", "claims": 2, "flagged": 2, "supported": 0, "unchecked": 0}
    assert [(one["severity"], one["line"], one["said"]) for one in row["findings"]] == [
        ("impossible", 5, "71 %"),
        ("weak", 3, "7/10"),
    ]


def test_the_widest_interval(whet: Whet) -> None:
    assert "1 flagged" in whet("false.md", "--points", 60).stdout


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.md", None, "missing.md: cannot be read (No such file or directory); give a Markdown file"),
        ("binary.md", b"\x7fELF\0\0", "binary.md: is binary; give a Markdown file"),
        ("latin.md", "one\ntwo caf\xe9".encode("latin-1"), "latin.md: line 2 is not UTF-8; save it as UTF-8"),
        ("report.json", b"{}", "report.json: is not Markdown; give the report as .md"),
        (".", None, ".: cannot be read (Is a directory); give a Markdown file"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    whet: Whet, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = whet(name)
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == said


def test_a_byte_order_mark_is_no_text(whet: Whet, tmp_path: Path) -> None:
    (tmp_path / "bom.md").write_bytes(b"\xef\xbb\xbf7/10 = 72 %\n")
    assert whet("bom.md").exit_code == 1


def test_what_steers_a_terminal_is_not_printed(whet: Whet, tmp_path: Path) -> None:
    (tmp_path / "odd.md").write_text("It \x1b[31mpassed\x1b[0m 7/10 = 72 %\n")
    assert "\x1b" not in whet("odd.md").stdout


def test_help_shows_an_example_and_needs_no_torch() -> None:
    code = "import sys\nimport whetstone.audit.audit\nsys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    assert "Example: whet audit RESULTS.md" in CliRunner().invoke(app, ["audit", "--help"]).stdout
