"""Attacks on the sandbox. Each is looked at from outside: what it reached, used up, left behind, and how long it took.

An attack that gets through says ``REACHED`` and ends; most are also watched by what they aim at: files, sockets,
processes, memory. They aim at what was put there for them, so that a broken sandbox costs its developer nothing.
"""

import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from whetstone.sandbox import Limits, Outcome, run_python

pytestmark = pytest.mark.usefixtures("isolated", "adopt_orphans")

REPOSITORY = Path(__file__).parent.parent
LIMITS = Limits(time_s=5, memory_bytes=128 << 20)
QUICK = Limits(time_s=1, memory_bytes=128 << 20)
GRACE_S = 1.5
"""What the end of a run may take longer than its time, on a busy machine."""
JAIL_BYTES = 100 << 20
"""What the processes of the jail hold themselves, shared pages counted in each."""

PRELUDE = """
import ctypes, os, platform, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
number = dict(zip(('x86_64', 'aarch64'), range(2)))[platform.machine()]
def reached(what):
    print('REACHED', what, flush=True)
    os._exit(99)
def attempt(work):
    try:
        return work()
    except (OSError, ValueError, AttributeError, ImportError, EOFError, RuntimeError, MemoryError):
        pass
call = libc.syscall
"""


@dataclass
class Seen:
    """The most that was seen from outside while an attack ran."""

    memory_bytes: int = 0
    threads: int = 0
    processes: int = 0
    file_bytes: int = 0


@pytest.fixture(scope="module")
def adopt_orphans() -> Iterator[None]:
    """Makes whatever outlives its parent a child of this process, so that it can be seen (PR_SET_CHILD_SUBREAPER)."""
    libc = ctypes.CDLL(None)
    if sys.platform == "linux":
        libc.prctl(36, 1, 0, 0, 0)
    yield
    if sys.platform == "linux":
        libc.prctl(36, 0, 0, 0, 0)


@contextlib.contextmanager
def watched() -> Iterator[Seen]:
    """Looks every few milliseconds at all descendants of this process, and at its own open files."""
    seen, over = Seen(), threading.Event()
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    own_command = me.cmdline()  # of a child, too, until it runs the jail; all memory of this process then counts as its

    def look() -> None:
        while not over.wait(0.01):
            memory = threads = processes = 0
            for child in me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if child.pid not in before and child.cmdline() != own_command:
                        memory += child.memory_info().rss
                        threads += child.num_threads()
                        processes += 1
            seen.memory_bytes = max(seen.memory_bytes, memory)
            seen.threads, seen.processes = max(seen.threads, threads), max(seen.processes, processes)
            for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (entries that are gone when looked at)
                with contextlib.suppress(OSError):
                    seen.file_bytes = max(seen.file_bytes, os.stat(f"/proc/self/fd/{name}").st_size)  # noqa: PTH116

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def attack(code: str, limits: Limits = LIMITS, checks: str = "") -> Outcome:
    """Runs an attack, and makes sure that it ended in time and that no process of it is left."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    began = time.monotonic()
    outcome = run_python(PRELUDE + code, checks, limits=limits)
    assert time.monotonic() - began < limits.time_s + GRACE_S
    until = time.monotonic() + GRACE_S
    while left := {child.pid for child in psutil.Process().children(recursive=True)} - before:
        for process in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, os.WNOHANG)
        assert time.monotonic() < until, f"left behind: {left}"
        time.sleep(0.01)
    assert "REACHED" not in outcome.output, outcome.output
    return outcome


FORKS = {
    "fork bomb": """
while True:
    attempt(os.fork) == 0 and reached('a child')
    count = globals().get('count', 0) + 1
    if count > 1000: break
""",
    "fork": "attempt(lambda: os.fork() == 0 and reached('a child'))",
    "vfork": "call((58, 220)[number]) == 0 and (reached('a child'), os._exit(0))",
    "clone": "call((56, 220)[number], 17, 0, 0, 0, 0) == 0 and (reached('a child'), os._exit(0))",
    "clone of memory": "call((56, 220)[number], 0x100 | 17, 0, 0, 0, 0) == 0 and (reached('x'), os._exit(0))",
    "clone3": """
arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17)
call(435, arguments, 88) == 0 and (reached('a child'), os._exit(0))
""",
    "double fork, new session": """
import time
attempt(lambda: os.fork() or (os.setsid(), os.fork() or time.sleep(60)))
""",
    "posix_spawn": """
for path in (sys.executable, '/usr/lib/git-core/git', '/lib64/ld-linux-x86-64.so.2'):
    attempt(lambda: reached(os.posix_spawn(path, [path], {})))
""",
    "multiprocessing": """
import multiprocessing
attempt(multiprocessing.get_context('fork').Process(target=reached, args=('a child',)).start)
""",
}


@pytest.mark.parametrize("code", FORKS.values(), ids=FORKS)
def test_no_process_is_started_and_none_outlives(code: str) -> None:
    with watched() as seen:
        outcome = attack(code)
    assert seen.processes <= 4  # outside, first, mapper, and the one that runs the code
    assert outcome.status == "passed", outcome.output


def test_no_other_program_is_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    attack(f"""
import glob
for path in ('/bin/sh', '/usr/bin/touch', sys.executable, *glob.glob('/lib*/ld-*'), *glob.glob('/usr/lib/*/ld-*'),
             *glob.glob('/usr/lib/git-core/git')):
    attempt(lambda: os.execve(path, [path, {str(touched)!r}], {{}}))
    attempt(lambda: os.system(path))
with open('own', 'wb') as file:
    file.write(b'#!/usr/bin/touch {touched}')
os.chmod('own', 0o777)
attempt(lambda: os.execv('own', ['own']))
call((322, 281)[number], os.open('own', os.O_RDONLY), b'', None, None, 0x1000)
""")
    assert not touched.exists()


READS = {
    "paths": "paths = {paths!r}",
    "parents": "paths = ['../' * n + path for path in {paths!r} for n in range(1, 9)]",
    "links": """
paths = []
for n, path in enumerate({paths!r}):
    os.symlink(path, f'link{{n}}'); paths.append(f'link{{n}}')
""",
    "the root of others": """
processes = [f'/proc/{{one}}/{{way}}' for one in (1, 2, 'self', os.getppid()) for way in ('root', 'cwd')]
paths = [process + path for process in processes for path in {paths!r}]
""",
    "proc mounted": """
os.mkdir('proc')
print(libc.mount(b'proc', b'proc', b'proc', 0, None))
paths = [f'proc/1/root{{path}}' for path in {paths!r}]
""",
    "chroot and up": """
os.mkdir('jail')
directory = os.open('/', os.O_RDONLY)
print(libc.chroot(b'jail'))
os.fchdir(directory)
paths = ['../' * 9 + path for path in {paths!r}]
""",
}


@pytest.mark.parametrize("code", READS.values(), ids=READS)
def test_no_file_of_the_user_or_the_system_is_read(code: str, tmp_path: Path) -> None:
    secret = secrets.token_hex(8)
    mine = tmp_path / "mine"
    mine.write_text(secret)
    at_home = [one for one in Path.home().iterdir() if one not in Path(os.__file__).parents]
    paths = ["/etc/passwd", "/etc/hostname", str(mine), str(REPOSITORY / "pyproject.toml"), *map(str, at_home[:9])]
    outcome = attack(
        code.format(paths=paths)
        + """
for path in paths:
    attempt(lambda: reached(open(path).read()))
    attempt(lambda: reached(os.listdir(path)))
for directory in ('/dev', '/etc'):
    print(directory, sorted(os.listdir(directory)))
"""
    )
    assert secret not in outcome.output
    assert outcome.output.endswith("/dev ['null', 'random', 'urandom', 'zero']\n/etc ['ld.so.cache']\n")


def test_no_descriptor_and_no_environment_is_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = secrets.token_hex(8)
    monkeypatch.setenv("API_TOKEN", secret)
    with (tmp_path / "open").open("w+") as file:
        file.write(secret)
        file.flush()
        os.set_inheritable(file.fileno(), True)
        os.dup2(file.fileno(), 200, inheritable=True)
        try:
            outcome = attack(
                """
print(dict(os.environ))
environment = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, 'environ')
count = 0
while environment[count]:
    print(environment[count]); count += 1
for descriptor in range(1024):
    try:
        status = os.fstat(descriptor)
    except OSError:
        continue
    print('open:', descriptor)
    for read in (lambda: os.pread(descriptor, 4096, 0), lambda: os.listdir(descriptor)):
        attempt(lambda: print(read()))
for process in ('self', '1', '2'):
    attempt(lambda: print(open(f'/proc/{process}/environ').read()))
    attempt(lambda: print(os.listdir(f'/proc/{process}/fd')))
def f():
    return [descriptor for descriptor in range(1024) if attempt(lambda: os.fstat(descriptor))]
""",
                checks="opened = f()\nprint('apart:', opened)\nassert len(opened) == 5",
            )
        finally:
            os.close(200)
    assert outcome.status == "passed", outcome.output
    assert secret not in outcome.output
    opened = [int(line.split()[1]) for line in outcome.output.splitlines() if line.startswith("open:")]
    assert opened[:3] == [0, 1, 2] and len(opened) == 5 and 200 not in opened  # and a pipe to the checks, each way


def test_nothing_is_written_outside_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    target = tmp_path / "target"
    target.write_text("as it was")
    target.chmod(0o666)
    tmp_path.chmod(0o777)
    name = f"whet-attack-{secrets.token_hex(4)}"
    folders = [
        str(tmp_path),
        str(REPOSITORY),
        str(Path.home()),
        "/",
        "/etc",
        "/usr/lib",
        "/dev",
        "/dev/shm",
        "/var/tmp",
    ]
    folders.append(str(Path(os.__file__).parent))
    attack(f"""
for folder in {folders!r}:
    for path in (folder + '/{name}', '../' * 6 + folder + '/{name}'):
        attempt(lambda: (open(path, 'w').write('x'), reached(path)))
        attempt(lambda: (os.mkdir(path), reached(path)))
        attempt(lambda: (os.symlink('/tmp', path), reached(path)))
        attempt(lambda: (os.mknod(path), reached(path)))
for n, path in enumerate(({str(target)!r}, '/etc/ld.so.cache', os.__file__, '/dev/null')):
    os.symlink(path, f'link{{n}}')
    if n < 3:
        attempt(lambda: (open(f'link{{n}}', 'a'), reached(path)))
    attempt(lambda: (os.link(path, f'hard{{n}}'), reached(path)))
    attempt(lambda: (os.utime(path), n < 3 and reached(path)))
    attempt(lambda: (os.remove({str(target)!r}), reached('its end')))
os.mknod('own'); os.chmod('own', 0o6777)
attempt(lambda: (os.mknod('device', 0o60666, os.makedev(8, 0)), reached('device')))
os.mkdir('deep')
for n in range(300):
    os.symlink('..', f'deep/{{n}}')
""")
    assert target.read_text() == "as it was"
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not any((Path(folder) / name).exists() for folder in folders)


def test_no_socket_reaches_a_listener(tmp_path: Path) -> None:
    address = str(tmp_path / "socket")
    with contextlib.ExitStack() as stack:
        listeners: list[tuple[int, int, Any]] = [
            (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            (socket.AF_UNIX, socket.SOCK_STREAM, address),
            (socket.AF_UNIX, socket.SOCK_STREAM, f"\0{address}"),
            (socket.AF_UNIX, socket.SOCK_DGRAM, f"\0{address}.datagram"),
        ]
        if Path("/proc/net/if_inet6").exists():
            listeners.append((socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)))
        opened = []
        for family, kind, where in listeners:
            one = stack.enter_context(socket.socket(family, kind))
            one.bind(where)
            one.setblocking(False)
            if kind == socket.SOCK_STREAM:
                one.listen()
            name = one.getsockname()
            opened.append((one, int(family), int(kind), name.decode() if isinstance(name, bytes) else name))
        targets = [(family, kind, name) for _, family, kind, name in opened]
        outcome = attack(f"""
import socket
for family, kind, address in {targets!r}:
    def talk():
        with socket.socket(family, kind) as one:
            one.connect(address)
            one.send(b'hello')
            reached(address)
    attempt(talk)
    call((41, 198)[number], family, kind, 0) >= 0 and reached(('by its number', family))
    attempt(lambda: [one.connect(address) or reached(address) for one in socket.socketpair(family, kind)])
for family, kind in ((16, 3), (17, 3), (2, 3), (40, 1), (30, 1), (38, 5), (31, 3)):  # netlink, packet, raw, vsock, ...
    attempt(lambda: (socket.socket(family, kind), reached((family, kind))))
    attempt(lambda: (socket.socketpair(family, kind), reached(('pair', family, kind))))
attempt(lambda: (socket.getaddrinfo('example.org', 80), reached('a name')))
print('all of it')
""")
        assert outcome.output.endswith("all of it\n")
        for one, _, how, _ in opened:
            with pytest.raises(BlockingIOError):
                one.accept() if how == socket.SOCK_STREAM else one.recv(1)


ENDLESS = {
    "loop": "while True: pass",
    "sleep": """
import time
time.sleep(60)
""",
    "signals swallowed": """
import signal
for one in signal.valid_signals() - {9, 19}:
    attempt(lambda: signal.signal(one, signal.SIG_IGN))
while True: pass
""",
    "stopped": """
import signal
os.kill(os.getpid(), signal.SIGSTOP)
""",
    "exceptions swallowed": """
while True:
    try:
        while True: pass
    except BaseException: pass
""",
    "deaf in C": """
import re
re.match('(a*)*b', 'a' * 40)
""",
    "at exit": """
import atexit, time
atexit.register(time.sleep, 60)
import threading
threading.Thread(target=time.sleep, args=(60,)).start()
threading._shutdown()
""",
    "waiting for itself": """
read, write = os.pipe()
os.read(read, 1)
""",
}


@pytest.mark.parametrize("code", ENDLESS.values(), ids=ENDLESS)
def test_what_does_not_end_is_ended(code: str) -> None:
    assert attack(code, QUICK).status == "timeout"


def test_time_runs_in_functions_that_tests_call_too() -> None:
    outcome = attack("def f(x):\n    while True: pass", QUICK, "assert f(1) == 2")
    assert (outcome.status, outcome.proof) == ("timeout", "apart")


MEMORY = {
    "one list": """
x = []
while True: x.append(bytearray(1 << 20))
""",
    "one text": "x = 'x' * (1 << 33)",
    "many threads": """
import threading
def eat():
    x = []
    while True: x.append(bytearray(1 << 18))
for _ in range(12): attempt(threading.Thread(target=eat).start)
eat()
""",
    "many processes": """
for _ in range(12):
    if attempt(os.fork) == 0: break
x = []
while True: x.append(bytearray(1 << 20))
""",
    "mapped": """
import mmap
x = []
while True:
    x.append(mmap.mmap(-1, 1 << 20)); x[-1].write(bytes(1 << 20))
""",
    "shared memory that is left": """
libc.shmat.restype = ctypes.c_void_p
for _ in range(400):
    segment = libc.shmget(0, 1 << 20, 0o1600)
    place = libc.shmat(segment, None, 0)
    if segment >= 0: ctypes.memset(place, 1, 1 << 20); libc.shmdt(ctypes.c_void_p(place)); reached('a segment')
""",
    "files without a name": """
for _ in range(400):
    attempt(lambda: reached(os.memfd_create('x')))
""",
    "queues": """
for name, numbers in {'msgget': (68, 186), 'semget': (64, 190), 'mq_open': (240, 180)}.items():
    call(numbers[number], b'/x', 0o102, 0o600, None) >= 0 and reached(name)
""",
    "pipes": """
held = []
while True:
    pair = attempt(os.pipe)
    if not pair: break
    held.append(pair)
    os.set_blocking(pair[1], False)
    attempt(lambda: __import__('fcntl').fcntl(pair[1], 1031, 1 << 20))
    attempt(lambda: [os.write(pair[1], bytes(65536)) for _ in range(99)])
""",
}


@pytest.mark.parametrize("code", MEMORY.values(), ids=MEMORY)
def test_the_memory_of_all_that_runs_is_bounded(code: str) -> None:
    with watched() as seen:
        outcome = attack(code)
    assert outcome.status in ("memory", "failed", "passed")
    assert seen.memory_bytes < LIMITS.memory_bytes + JAIL_BYTES


def test_the_memory_of_code_and_checks_together_is_bounded() -> None:
    with watched() as seen:
        outcome = attack("def f(x):\n    return [bytearray(1 << 20) for _ in range(x)]", LIMITS, "assert f(1000) == []")
    assert outcome.status == "memory"
    assert seen.memory_bytes < 2 * LIMITS.memory_bytes + JAIL_BYTES


def test_threads_are_counted() -> None:
    with watched() as seen:
        outcome = attack("""
import threading, time
for _ in range(500):
    attempt(threading.Thread(target=time.sleep, args=(0.3,), daemon=True).start)
time.sleep(0.2)
""")
    assert outcome.status == "passed"
    assert seen.threads <= LIMITS.threads + 8


OUTPUT = {
    "print": "while True: print('x' * 10_000)",
    "write": """
block = b'x' * (1 << 20)
while True: os.write(1, block)
""",
    "write to the errors": "while True: sys.stderr.write('x' * 10_000)",
    "a hole": """
os.lseek(1, 1 << 40, 0)
os.write(1, b'x')
""",
    "longer": "os.truncate(1, 1 << 40)",
    "allocated": "os.posix_fallocate(1, 0, 1 << 40)",
    "fill the folder": """
for n in range(64):
    open(str(n), 'wb').write(bytes(1 << 19))
""",
    "empty files": """
for n in range(4096):
    os.mknod(str(n))
""",
    "one file": """
with open('x', 'wb') as file:
    for _ in range(64): file.write(bytes(1 << 20))
""",
}


@pytest.mark.parametrize("code", OUTPUT.values(), ids=OUTPUT)
def test_no_disk_is_filled(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with watched() as seen:
        outcome = attack(code)
    assert outcome.status == "failed"
    assert seen.file_bytes <= LIMITS.file_bytes
    assert list(tmp_path.iterdir()) == []


CALLS = {
    "unshare": "call((272, 97)[number], 0x10000000)",
    "setns": "call((308, 268)[number], 0, 0)",
    "mount": "os.mkdir('x') or call((165, 40)[number], b'none', b'x', b'tmpfs', 0, None)",
    "new mount calls": "max(call(one, 0, 0, 0, 0, 0) for one in (428, 429, 430, 431, 432, 433, 442))",
    "pivot_root": "call((155, 41)[number], b'.', b'.')",
    "io_uring": "max(call(one, 1, ctypes.create_string_buffer(512), 0, 0, 0) for one in (425, 426, 427))",
    "ptrace": "max(call((101, 117)[number], how, os.getppid(), 0, 0) for how in (0, 16, 0x4206))",
    "memory of others": "call((310, 270)[number], os.getppid() or 1, None, 0, None, 0, 0)",
    "descriptors of others": "call(438, call(434, 1, 0), 0, 0)",
    "keys": "call((250, 219)[number], 0, -3, 1)",
    "bpf": "call((321, 280)[number], 0, ctypes.create_string_buffer(128), 128)",
    "perf": "call((298, 241)[number], ctypes.create_string_buffer(128), 0, -1, -1, 0)",
    "userfaultfd": "call((323, 282)[number], 1)",
    "files by handle": "call((304, 265)[number], -100, ctypes.create_string_buffer(128), 0)",
    "root again": "max(libc.setuid(0), libc.setresuid(0, 0, 0), libc.setgid(0)) if os.getuid() != 0 else 0",
    "capabilities": "libc.capset(b'\\x22\\x05\\x08\\x20' + bytes(4), b'\\xff' * 24)",
    "a clone with namespaces": "call((56, 220)[number], 0x10010000 | 0x10f00, 0, 0, 0, 0)",
    "calls that are newer": "max(call(one, 0, 0, 0, 0, 0) for one in range(450, 600))",
    "calls of x32": "call(0x40000000 + 41, 2, 1, 0)",
    "limits raised": "libc.setrlimit(9, (ctypes.c_ulong * 2)(1 << 40, 1 << 40))",
    "the host's name": "libc.sethostname(os.uname().nodename.encode(), len(os.uname().nodename))",
    "the clock": "libc.settimeofday((ctypes.c_long * 2)(int(__import__('time').time())), None)",
    "a raw device": "libc.mknod(b'x', 0o60666, ctypes.c_long(0x800))",
}


@pytest.mark.parametrize("code", CALLS.values(), ids=CALLS)
def test_calls_that_could_lead_out_are_refused(code: str) -> None:
    outcome = attack(f"given = {code}\nassert given == -1, given")
    assert outcome.status == "passed", outcome.output


def test_nobody_else_can_be_killed() -> None:
    with subprocess.Popen(["sleep", "60"]) as victim:
        outcome = attack(f"""
import signal
for one in (0, signal.SIGTERM, signal.SIGKILL):
    for process in (os.getppid(), {os.getpid()}, {victim.pid}) if one == 0 else ({victim.pid}, -{victim.pid}):
        attempt(lambda: (os.kill(process, one), process > 3 and reached(process)))
for process in range(4, 9999):
    attempt(lambda: (os.kill(process, 0), process != os.getpid() and reached(process)))
if os.getpid() < 4:  # among nobody but ourselves
    for one in set(signal.valid_signals()) - {{signal.SIGKILL, signal.SIGSTOP}}:
        signal.signal(one, signal.SIG_IGN)
        for process in (1, os.getppid(), -1, 0):
            attempt(lambda: process == os.getpid() or os.kill(process, one))
    attempt(lambda: os.kill(1, signal.SIGKILL))
    attempt(lambda: os.kill(1, signal.SIGSTOP))
print('all of it')
""")
        assert outcome.output == "all of it\n"
        assert victim.poll() is None
        victim.kill()


def test_who_kills_the_checks_does_not_pass() -> None:
    for whom in (-1, 0, 3):
        kill = f"def f(x):\n    if os.getpid() < 4:\n        os.kill({whom}, 9)\n    return 2"
        assert attack(kill, checks="assert f(1) == 2\nassert f(1) == 2").status == "failed"


CRASHES = {
    "a null pointer": "ctypes.string_at(0)",
    "deep in C": """
sys.setrecursionlimit(1 << 30)
def f(): f()
f()
""",
    "deep in a literal": "eval('(' * 100_000 + ')' * 100_000)",
    "abort": "os.abort()",
    "its own memory": """
ctypes.memset(id(int), 0, 4096)
int()
""",
    "its own code": """
f = (lambda: 0)
f.__code__ = f.__code__.replace(co_code=bytes(64), co_stacksize=1)
f()
os.abort()
""",
}


@pytest.mark.parametrize("code", CRASHES.values(), ids=CRASHES)
def test_a_crash_is_a_failure(code: str) -> None:
    assert attack(code, QUICK).status in ("failed", "memory", "timeout")
    assert run_python("").status == "passed"
