"""Who asks: keys of a file and of the environment, and what is refused."""

import hashlib
import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.errors import UserError
from whetstone.serve.errors import ServeError
from whetstone.serve.gate.key_file import StoredKey, changing, hashed, make_key, new_salt, read_key_file
from whetstone.serve.gate.keys import ENVIRONMENT_KEYS, LOCAL, KeyLimits, KeyRing, Principal

SECRET = "a key of enough characters"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def add(path: Path, name: str, key: str = SECRET, **settings: object) -> None:
    with changing(path) as keys:
        salt = keys[0].salt if keys else new_salt()
        keys.append(StoredKey(name=name, sha256=hashed(salt, key), salt=salt, **settings))  # type: ignore[arg-type]


def refusal(ring: KeyRing, authorization: str | None) -> str:
    with pytest.raises(ServeError) as refused:
        ring.identify(authorization)
    assert refused.value.status == 401
    assert refused.value.headers()["WWW-Authenticate"] == "Bearer"
    return refused.value.code


def test_a_server_without_keys_takes_everybody() -> None:
    ring = KeyRing.read(None, {})
    assert not ring.required
    assert ring.identify(None) == ring.identify("Bearer whatever") == LOCAL
    assert LOCAL.admin


def test_the_key_of_a_file_tells_who_asks(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "alice", admin=True)
    add(path, "bob", key := make_key(), requests_per_minute=60, concurrent=4, weight=2.5)
    ring = KeyRing.read(path, {})
    assert ring.identify(f"Bearer {SECRET}") == Principal("alice", admin=True)
    assert ring.identify(f"bearer  {key} ") == Principal("bob", KeyLimits(60, 4, 2.5))


@pytest.mark.parametrize("authorization", [None, "", "Bearer", SECRET, "Basic abc", "Bearer:x"])
def test_a_request_without_a_key_is_refused(tmp_path: Path, authorization: str | None) -> None:
    add(tmp_path / "keys.jsonl", "alice")
    assert refusal(KeyRing.read(tmp_path / "keys.jsonl", {}), authorization) == "missing_api_key"


@given(st.text())
def test_no_other_key_is_taken(text: str) -> None:
    ring = KeyRing.read(None, {ENVIRONMENT_KEYS: f"alice:{SECRET}"})
    if text.strip() != SECRET:
        assert refusal(ring, f"Bearer {text}") == "invalid_api_key"


def test_the_file_holds_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "alice", key := make_key())
    (row,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert key not in path.read_text()
    assert row["sha256"] == hashlib.sha256(bytes.fromhex(row["salt"]) + key.encode()).hexdigest()
    assert path.stat().st_mode & 0o777 == 0o600


def test_keys_are_random() -> None:
    made = {make_key() for _ in range(100)}
    assert len(made) == 100
    assert all(key.startswith("whet_") and len(key) == 48 for key in made)


def test_keys_with_several_salts_are_found(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "alice", "first-" * 5)
    add(tmp_path / "more.jsonl", "bob", "second-" * 5)
    path.write_text(path.read_text() + (tmp_path / "more.jsonl").read_text())
    ring = KeyRing.read(path, {})
    assert [ring.identify(f"Bearer {key * 5}").name for key in ("first-", "second-")] == ["alice", "bob"]


def test_an_expired_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "old", "the old key" * 3, expires=datetime.now(UTC) - timedelta(seconds=1))
    add(path, "new", "the new key" * 3, expires=datetime.now(UTC) + timedelta(hours=1))
    ring = KeyRing.read(path, {})
    assert refusal(ring, "Bearer " + "the old key" * 3) == "expired_api_key"
    assert ring.identify("Bearer " + "the new key" * 3).name == "new"


def test_keys_of_the_environment_are_taken_out_of_it() -> None:
    environment = {ENVIRONMENT_KEYS: f" alice:{SECRET} , bob:{SECRET}:2,", "HOME": "/"}
    ring = KeyRing.read(None, environment)
    assert environment == {"HOME": "/"}
    assert ring.identify(f"Bearer {SECRET}") == Principal("alice")
    assert ring.identify(f"Bearer {SECRET}:2") == Principal("bob")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (SECRET, "key 1 is not name:key"),
        (f"al ice:{SECRET}", "key 1 is not name:key"),
        (f"alice:{SECRET},bob:short", "key 2 ('bob') is shorter than 16"),
        (f"alice:{SECRET},alice:{SECRET}2", "key 2 has the name 'alice' of another one"),
    ],
)
def test_faults_of_the_environment_are_said_without_the_key(value: str, said: str) -> None:
    with pytest.raises(UserError, match=ENVIRONMENT_KEYS) as refused:
        KeyRing.read(None, {ENVIRONMENT_KEYS: value})
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_revoked_key_is_refused_within_a_second(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "alice", "the first key" * 2)
    add(path, "bob", "the second key" * 2)
    ring = KeyRing.read(path, {}, clock)
    with changing(path) as keys:
        keys[:] = [key for key in keys if key.name != "alice"]
    clock.now += 1
    assert refusal(ring, "Bearer " + "the first key" * 2) == "invalid_api_key"
    assert ring.identify("Bearer " + "the second key" * 2).name == "bob"


def test_the_file_is_looked_at_once_a_second(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path := tmp_path / "keys.jsonl", "alice")
    ring = KeyRing.read(path, {}, clock)
    looked = []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **more: looked.append(self) or stat(self, **more))  # type: ignore[func-returns-value]
    for _ in range(30):
        clock.now += 0.1
        ring.identify(f"Bearer {SECRET}")
    assert 2 <= len(looked) <= 3


def test_a_server_whose_keys_are_all_revoked_takes_nobody(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "alice")
    ring = KeyRing.read(path, {}, clock)
    with changing(path) as keys:
        keys.clear()
    clock.now += 1
    assert ring.required
    assert refusal(ring, f"Bearer {SECRET}") == "invalid_api_key"


def test_a_file_that_is_gone_lets_nobody_in(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "alice")
    ring = KeyRing.read(path, {ENVIRONMENT_KEYS: f"bob:{SECRET}2"}, clock)
    path.unlink()
    clock.now += 1
    assert refusal(ring, f"Bearer {SECRET}") == "invalid_api_key"
    assert ring.identify(f"Bearer {SECRET}2").name == "bob"
    assert "is gone" in caplog.text
    add(path, "alice")
    clock.now += 1
    assert ring.identify(f"Bearer {SECRET}").name == "alice"


def test_a_broken_file_leaves_the_keys_that_were(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "alice")
    ring = KeyRing.read(path, {}, clock)
    path.write_text("half a li")
    clock.now += 1
    with caplog.at_level(logging.WARNING):
        assert ring.identify(f"Bearer {SECRET}").name == "alice"
    assert "keys.jsonl:1" in caplog.text


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "alice")
    path.chmod(mode)
    with pytest.raises(UserError, match="chmod 600"):
        KeyRing.read(path, {})


def test_a_file_that_others_may_read_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "alice")
    path.chmod(0o444)
    assert KeyRing.read(path, {}).identify(f"Bearer {SECRET}").name == "alice"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"name": "a b", "sha256": "00", "salt": "00"}', "keys.jsonl:1: name"),
        (f'\n{{"name": "a", "sha256": "{"0" * 64}", "salt": "00", "key": "{SECRET}"}}', "keys.jsonl:2: key"),
        ("[]", "keys.jsonl:1: "),
        (f'{{"name": "a", "sha256": "{"0" * 64}", "salt": "00"}}\n' * 2, "keys.jsonl:2: a second key of the name 'a'"),
        ("", "holds no keys"),
    ],
)
def test_faults_of_a_file_are_said_without_what_stands_there(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(UserError) as refused:
        KeyRing.read(path, {})
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; 'whet keys new NAME"):
        KeyRing.read(tmp_path / "keys.jsonl", {})


def test_a_name_stands_in_one_place(tmp_path: Path) -> None:
    add(path := tmp_path / "keys.jsonl", "alice")
    with pytest.raises(UserError, match="'alice' is in WHETSTONE_SERVE_KEYS as well"):
        KeyRing.read(path, {ENVIRONMENT_KEYS: f"alice:{SECRET}2"})


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    add(path := tmp_path / "keys.jsonl", "alice")
    with pytest.raises(RuntimeError), changing(path) as keys:
        keys.clear()
        raise RuntimeError
    assert [key.name for key in read_key_file(path)] == ["alice"]


def test_the_gate_imports_nothing_heavy() -> None:
    modules = ["gate.keys", "gate.key_file", "gate.admission", "cache", "validation", "feedback", "feedback_store"]
    imports = "; ".join(f"import whetstone.serve.{module}" for module in modules)
    heavy = "{'torch', 'scipy', 'transformers', 'numpy', 'pyarrow'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {imports}; print({heavy})"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
