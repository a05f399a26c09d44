"""``whet keys``: a key is printed once, and taken until it is revoked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from whetstone.cli.main import app
from whetstone.errors import UserError
from whetstone.serve.errors import ServeError
from whetstone.serve.gate.keys import KeyLimits, KeyRing, Principal

Whet = Callable[..., Result]


@pytest.fixture
def whet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whet:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, ["keys", *map(str, arguments)])


def out(result: Result) -> str:
    assert result.exception is None, result.output
    return result.stdout


def test_a_key_from_its_making_to_its_end(whet: Whet) -> None:
    key = out(whet("new", "alice")).strip()
    other = json.loads(out(whet("new", "bob", "--admin", "--requests-per-minute", 60, "--concurrent", 4, "--json")))
    ring = KeyRing.read(Path("keys.jsonl"), {})
    assert ring.identify(f"Bearer {key}") == Principal("alice")
    assert ring.identify(f"Bearer {other['key']}") == Principal("bob", KeyLimits(60, 4), admin=True)
    assert key not in Path("keys.jsonl").read_text()
    assert Path("keys.jsonl").stat().st_mode & 0o777 == 0o600
    assert json.loads(out(whet("revoke", "alice", "--json"))) == {"revoked": "alice", "left": ["bob"]}
    with pytest.raises(ServeError):
        KeyRing.read(Path("keys.jsonl"), {}).identify(f"Bearer {key}")


def test_keys_are_listed_without_their_hashes(whet: Whet) -> None:
    whet("new", "alice", "--file", "sub/own.jsonl", "--expires", "2020-01-01", "--weight", 2.5)
    whet("new", "bob", "--file", "sub/own.jsonl", "--requests-per-minute", 7)
    limits = {"admin": False, "concurrent": None}
    assert json.loads(out(whet("list", "--file", "sub/own.jsonl", "--json"))) == {
        "keys": [
            {
                "name": "alice",
                "requests_per_minute": None,
                "weight": 2.5,
                "expires": "2020-01-01T00:00:00Z",
                "expired": True,
                **limits,
            },
            {"name": "bob", "requests_per_minute": 7, "weight": 1.0, "expires": None, "expired": False, **limits},
        ]
    }
    shown = out(whet("list", "--file", "sub/own.jsonl")).splitlines()
    assert shown[1].split() == ["alice", "2.5", "2020-01-01T00:00:00Z", "(expired)"]
    assert shown[2].split() == ["bob", "7", "1"]


def test_keys_of_a_file_share_a_salt(whet: Whet) -> None:
    for name in ("a", "b"):
        whet("new", name)
    assert len({json.loads(line)["salt"] for line in Path("keys.jsonl").read_text().splitlines()}) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["new", "al ice"], "cannot be a key's name"),
        (["new", "x" * 65], "cannot be a key's name"),
        (["new", "alice"], "has a key 'alice' already"),
        (["revoke", "bob"], "has no key 'bob' (there: alice)"),
        (["list", "--file", "none.jsonl"], "no such file"),
        (["revoke", "bob", "--file", "none.jsonl"], "no such file"),
    ],
)
def test_what_is_refused(whet: Whet, arguments: list[str], said: str) -> None:
    whet("new", "alice")
    result = whet(*arguments)
    assert isinstance(result.exception, UserError) and said in str(result.exception)
    assert not Path("none.jsonl").exists()


def test_an_empty_file_is_listed(whet: Whet) -> None:
    whet("new", "alice")
    whet("revoke", "alice")
    assert "no keys in keys.jsonl" in out(whet("list"))
