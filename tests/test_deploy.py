"""What ships to run the server elsewhere: read as those read it who will, for Docker and launchd are not here."""

import configparser
import json
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import typer.main

from whetstone.cli.main import app
from whetstone.serve_section import Limits

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


def _instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, with continued lines joined."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line]


def _all(instruction: str) -> list[str]:
    return [said for name, said in _instructions() if name == instruction]


def _unit() -> configparser.ConfigParser:
    class Unit(dict[str, object]):
        """A key may stand several times; all of its values are kept."""

        def __setitem__(self, key: str, value: object) -> None:
            if isinstance(value, list) and key in self:
                self[key].extend(value)  # type: ignore[attr-defined]
            else:
                super().__setitem__(key, value)

    unit = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=False, dict_type=Unit)  # type: ignore[arg-type]
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((DEPLOY / "whetstone.service").read_text())
    return unit


def _check_options(command: list[str]) -> None:
    """That ``whet`` takes them."""
    pytest.importorskip("whetstone.cli.serve")
    program, verb, *arguments = command
    assert Path(program).name == "whet"
    typer.main.get_group(app).commands[verb].make_context(verb, arguments)


@contextmanager
def _health(status: int, port: int = 0) -> Iterator[int]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_request(self, code: object = "-", size: object = "-") -> None:
            pass

    with HTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()
    assert asked == ["/health/ready"]


def test_the_image_holds_what_runs_and_not_what_builds() -> None:
    stages = _all("FROM")
    assert len(stages) == 2 and all(re.fullmatch(r"python:3\.\d+-slim( AS build)?", stage) for stage in stages)
    last = [name for name, _ in _instructions()][::-1].index("FROM")
    final = _instructions()[-last:]
    assert [said for name, said in final if name == "COPY"] == ["--from=build /opt/whetstone /opt/whetstone"]
    assert not any("pip" in said or "apt" in said for name, said in final if name == "RUN")
    (install,) = [said for said in _all("RUN") if "pip install" in said]
    assert "--constraint constraints.txt" in install and "--extra-index-url" in install
    (index,) = _all("ARG")
    assert index.endswith("/whl/cpu") and "+cpu" in (ROOT / "constraints.txt").read_text()


def test_the_container_is_nobody() -> None:
    (user,) = _all("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    names = [name for name, _ in _instructions()]
    assert names.index("USER") > names.index("RUN") and "ADD" not in names


def test_what_the_image_is_made_of_is_sent_to_the_builder() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [shlex.split(said)[:-1] for said in _all("COPY") if not said.startswith("--from")]
    needed = {path for paths in copied for path in paths}
    assert needed == kept
    assert all((ROOT / path).exists() for path in needed)
    assert "\n*\n" in (ROOT / ".dockerignore").read_text()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check(status: int, code: int) -> None:
    (check,) = _all("HEALTHCHECK")
    command: list[str] = json.loads(check.partition("CMD ")[2])
    assert command[:2] == ["python", "-c"] and ":8000/health/ready" in command[2]
    with _health(status) as port:
        done = subprocess.run([sys.executable, "-c", command[2].replace(":8000", f":{port}")], capture_output=True)
    assert done.returncode == code


def test_the_container_is_called_as_whet_serve_is() -> None:
    (entry,), (usual,) = _all("ENTRYPOINT"), _all("CMD")
    command = json.loads(entry) + json.loads(usual)
    assert command[:2] == ["whet", "serve"] and "/keys/keys.jsonl" in command
    _check_options(command)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    # It looks whether the program is there, which it is not on this machine.
    unit = tmp_path / "whetstone.service"
    unit.write_text((DEPLOY / "whetstone.service").read_text().replace("/opt/whetstone/bin/whet", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_confined_and_lets_answers_finish() -> None:
    service = _unit()["Service"]
    for key, value in (
        ("DynamicUser", "yes"),
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("Restart", "on-failure"),
        ("KillSignal", "SIGTERM"),
        ("KillMode", "mixed"),
    ):
        assert service[key] == value
    assert float(service["TimeoutStopSec"]) > Limits().drain_s + 15
    assert int(service["LimitNOFILE"]) > 2 * Limits().connections


def test_the_unit_calls_whet_serve() -> None:
    command = shlex.split(_unit()["Service"]["ExecStart"].replace("$WHET_REFS", "run:demo"))
    assert command[:3] == ["/opt/whetstone/bin/whet", "serve", "run:demo"]
    assert command[command.index("--keys") + 1] == "%d/keys"
    _check_options(command)


def test_launchd_reads_the_list() -> None:
    told = plistlib.loads((DEPLOY / "com.whetstone.serve.plist").read_bytes())
    assert told["Label"] == "com.whetstone.serve" and told["RunAtLoad"] is True
    assert told["KeepAlive"] == {"SuccessfulExit": False}
    assert told["ExitTimeOut"] > Limits().drain_s + 15
    assert told["Umask"] == 0o077
    command = told["ProgramArguments"]
    assert Path(command[0]).is_absolute() and command[1:3] == ["serve", "run:demo"]
    assert command[command.index("--host") + 1] == "127.0.0.1"
    _check_options(command)
