"""Hostile code in the sandbox: what it must not reach, use up, or fake."""

import os
import socket
import sys
from pathlib import Path

import pytest

from whetstone import sandbox
from whetstone.errors import UserError
from whetstone.sandbox import Limits, run_python

QUICK = Limits(time_s=1.0)


isolated = pytest.mark.usefixtures("isolated")


@isolated
def test_code_that_runs_to_its_end_passes_and_says_what_it_printed() -> None:
    outcome = run_python("def double(x):\n    return 2 * x\nprint('hello')", "import math\nassert double(math.pi) > 6")
    assert (outcome.status, outcome.output) == ("passed", "hello\n")
    outcome = run_python("def double(x):\n    return x", "assert double(2) == 4")
    assert outcome.status == "failed"
    assert outcome.output.endswith("AssertionError\n")


@isolated
@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "import os\ndef f():\n    os._exit(77 - 77)\nf()",
        "raise SystemExit",
        "print('passed', 'token', flush=True); import os; os._exit(0)",
        "import atexit, os; atexit.register(os._exit, 0); import sys; sys.exit()",
        "import os; os.kill(os.getpid(), 9)",
        "import signal, os; signal.raise_signal(signal.SIGTERM)",
        "import builtins\nbuiltins.compile = builtins.exec = lambda *_: None\nx = '''",
        "import sys\ndef f():\n    global __name__\n    sys.exit()\nsys.settrace(lambda *_: f())\nf()",
        "def broken(:",
        "import os\nif os.fork():\n    os._exit(0)",
    ],
)
def test_an_early_end_does_not_pass(code: str) -> None:
    assert run_python(code, "assert False").status == "failed"


@isolated
def test_an_answer_cannot_swallow_its_tests() -> None:
    assert run_python("x = '''", "y = '''1'''\nassert False").status == "failed"
    assert run_python("if False:\n    pass\nif False: \\", "assert False").status == "failed"


@isolated
def test_the_files_of_the_user_are_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "the secret")
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    secret.chmod(0o644)
    code = f"""
import os, sys
for path in ({str(secret)!r}, {str(tmp_path)!r}, {__file__!r}, "/proc/self/environ", "/proc/1", "/etc/passwd", "/home"):
    assert not os.path.exists(path), path
assert not any("secret" in value for value in os.environ.values()), os.environ
assert set(os.listdir("/")) <= {{"dev", "etc", "lib", "lib64", "tmp", "usr", {tmp_path.parts[1]!r},
    *(path.split("/")[1] for path in sys.path)}}
for descriptor in range(3, 64):
    try:
        assert b"secret" not in os.pread(descriptor, 4096, 0)
    except OSError:
        pass
"""
    outcome = run_python(code)
    assert outcome.status == "passed", outcome.output


@isolated
def test_nothing_is_written_outside(tmp_path: Path) -> None:
    places = (str(tmp_path / "x"), "/x", "/usr/lib/x", "/etc/x", str(Path(os.__file__).parent / "x"), "/dev/x")
    code = f"""
for path in {places!r}:
    try:
        open(path, "w")
    except OSError:
        continue
    raise SystemExit(path)
open("/tmp/x", "w").write("mine")
assert open("x").read() == "mine"
"""
    outcome = run_python(code)
    assert outcome.status == "passed", outcome.output
    assert list(tmp_path.iterdir()) == []
    assert run_python("import os; assert os.listdir('/tmp') == []").status == "passed"


@isolated
def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)"
        outcome = run_python(code)
    assert outcome.status == "failed"
    assert "PermissionError" in outcome.output


@isolated
@pytest.mark.parametrize(
    "call",
    [
        "libc.unshare(0x10000000)",
        "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
        "libc.ptrace(16, 1, None, None)",
        "libc.setuid(0)",
        "libc.umount2(b'/tmp', 2)",
        "libc.chroot(b'/tmp')",
        "libc.syscall(425, 1, None)",
        "libc.syscall(56 if machine == 'x86_64' else 220, 0x10000011, 0, 0, 0, 0)",
    ],
)
def test_privileges_are_gone(call: str) -> None:
    code = f"import ctypes, platform\nmachine = platform.machine()\nlibc = ctypes.CDLL(None)\nassert {call} == -1"
    outcome = run_python(code)
    assert outcome.status == "passed", outcome.output


@isolated
def test_no_other_process_can_be_seen_or_killed() -> None:
    code = """
import os
for process in (os.getppid(), -1, 1):
    try:
        os.kill(process, 9)
    except (PermissionError, ProcessLookupError):
        pass
assert os.getppid() in (0, 1)
"""
    outcome = run_python(code)
    assert outcome.status == "passed", outcome.output


@isolated
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("while True: pass", "timeout"),
        ("import time; time.sleep(60)", "timeout"),
        ("import signal, time\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", "timeout"),
        ("x = 'a' * (1 << 40)", "memory"),
        ("x = []\nwhile True: x.append('a' * 10_000_000 + str(len(x)))", "memory"),
        ("while True: print('x' * 10_000)", "failed"),
        ("with open('/tmp/x', 'wb') as file:\n    while True: file.write(b'x' * 100_000)", "failed"),
        ("for i in range(99):\n    open(f'/tmp/{i}', 'wb').write(b'x' * 1_000_000)", "failed"),
        ("import os\nwhile True: os.fork()", "failed"),
        ("f = [open('/dev/null') for _ in range(999)]", "failed"),
    ],
)
def test_what_code_may_use_is_limited(code: str, status: str) -> None:
    limits = QUICK if status == "timeout" else Limits(time_s=20, memory_bytes=128 << 20)
    assert run_python(code, limits=limits).status == status


@isolated
def test_only_the_end_of_long_output_is_kept() -> None:
    outcome = run_python("print('x' * 100_000)\nprint('last')")
    assert outcome.status == "passed"
    assert outcome.output.endswith("x\nlast\n")
    assert len(outcome.output) == 2000


def test_what_cannot_be_isolated_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match="cannot be run safely here \\(darwin"):
        run_python("print('ran')")


def test_code_is_limited_where_it_cannot_be_isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_NAMESPACES_ON", "nowhere")
    assert run_python("print('ran')", allow_unisolated=True).output == "ran\n"
    assert run_python("while True: pass", limits=QUICK, allow_unisolated=True).status == "timeout"
    assert run_python("import sys; sys.exit(0)", allow_unisolated=True).status == "failed"
