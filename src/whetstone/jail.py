"""The other side of :mod:`whetstone.sandbox`: shuts itself in, then runs untrusted code.

It needs the standard library only, and is started as a script with its job on stdin. Three processes: this one, which
leaves all namespaces; the first process of the new ones, whose end takes everything in them with it; and the one that
runs the code, without privileges, in a file system that holds the standard library and an empty ``/tmp``.
"""

import contextlib
import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

FAILED, MEMORY, TIMEOUT, REFUSED = 1, 77, 124, 125
"""Exit codes; that the code ran to its end is not among them, since anybody can exit with 0."""

_NOBODY = 65534
_NAMESPACES = 0x00020000 | 0x08000000 | 0x04000000 | 0x10000000 | 0x20000000 | 0x40000000
"""``CLONE_NEWNS``, ``NEWIPC``, ``NEWUTS``, ``NEWUSER``, ``NEWPID`` and ``NEWNET``."""
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
_AT_RECURSIVE, _MNT_DETACH, _MOUNT_SETATTR = 0x8000, 2, 442
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_DENIED = {
    "x86_64": (41, 101, 155, 165, 166, 175, 246, 248, 249, 250, 272, 298, 304, 308, 310, 311, 313, 320, 321, 323),
    "aarch64": (198, 117, 41, 40, 39, 105, 104, 217, 218, 219, 97, 241, 265, 268, 270, 271, 273, 294, 280, 282),
}
"""The numbers of socket, ptrace, pivot_root, mount, umount2, init_module, kexec_load, add_key, request_key, keyctl,
unshare, perf_event_open, open_by_handle_at, setns, process_vm_readv, process_vm_writev, finit_module, kexec_file_load,
bpf and userfaultfd. Source: the syscall tables of Linux, arch/x86/entry/syscalls/syscall_64.tbl and unistd.h."""
_DENIED_EVERYWHERE = (425, 426, 427, 428, 429, 430, 432, 442)
"""io_uring_*, open_tree, move_mount, fsopen, fsmount and mount_setattr."""

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Reads the job and does it; never returns."""
    job = json.loads(sys.stdin.buffer.read())
    job["user"] = os.getuid()
    if job["isolate"]:
        try:
            _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
            _leave_namespaces()
            _become_first_process()
            _enter_private_root(Path(job["root"]), job["disk_bytes"])
        except (OSError, AttributeError) as error:
            os.write(job["result"], str(error).encode())
            os._exit(REFUSED)
    else:
        os.chdir(job["root"])
    os._exit(_supervise(job))


def _call(name: str, *arguments: Any) -> None:
    if getattr(_libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _leave_namespaces() -> None:
    """Unshares everything; a child that stays behind maps the ids, as only it may map more than one."""
    if platform.machine() not in _AUDIT_ARCH:
        raise OSError(f"no filter of system calls for {platform.machine()}")
    process, user, group = os.getpid(), os.getuid(), os.getgid()
    unshared, ready = os.pipe()
    mapper = os.fork()
    if mapper == 0:
        os.close(ready)
        os.read(unshared, 1)
        proc = Path(f"/proc/{process}")
        more = f"\n{_NOBODY} {_NOBODY} 1" if user == 0 else ""
        try:
            if user != 0:
                (proc / "setgroups").write_text("deny")
            (proc / "uid_map").write_text(f"0 {user} 1{more}")
            (proc / "gid_map").write_text(f"0 {group} 1{more}")
        except OSError:
            os._exit(FAILED)
        os._exit(0)
    _call("unshare", _NAMESPACES)
    os.write(ready, b"x")
    if os.waitpid(mapper, 0)[1] != 0:
        raise OSError("the ids of a user namespace cannot be mapped")


def _become_first_process() -> None:
    """Goes on as the first process of the new namespace; the one outside waits for it and ends as it does."""
    first = os.fork()
    if first != 0:
        _, status = os.waitpid(first, 0)
        os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else FAILED)
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)


def _enter_private_root(root: Path, disk_bytes: int) -> None:
    """Makes a root of its own: what Python needs to import, read-only, and an empty ``/tmp`` of limited size."""
    _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    where = os.fsencode(root)
    _call("mount", b"tmpfs", where, b"tmpfs", _MS_NOSUID | _MS_NODEV, b"size=1m,mode=755")
    for path in dict.fromkeys((*sys.path, *_LIBRARIES, *_DEVICES)):
        source = Path(path)
        if not source.exists():
            continue
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        _call("mount", os.fsencode(source.resolve()), os.fsencode(target), None, _MS_BIND | _MS_REC, None)
        _read_only(target, _AT_RECURSIVE, 0 if path in _DEVICES else _MS_NODEV)
    (root / "tmp").mkdir()
    size = f"size={disk_bytes},nr_inodes=1024,mode=1777".encode()
    _call("mount", b"tmpfs", os.fsencode(root / "tmp"), b"tmpfs", _MS_NOSUID | _MS_NODEV, size)
    _read_only(root, 0, _MS_NODEV)
    os.chdir(root)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    os.chdir("/tmp")


def _read_only(path: Path, how: int, more: int) -> None:
    """``mount_setattr`` (Linux 5.12): unlike a remount it reaches the mounts inside, too."""
    attributes = struct.pack("=QQQQ", _MS_RDONLY | _MS_NOSUID | more, 0, 0, 0)
    _call("syscall", _MOUNT_SETATTR, -100, os.fsencode(path), how, attributes, ctypes.c_size_t(len(attributes)))


def _supervise(job: dict[str, Any]) -> int:
    """Runs the code in a child, which alone loses its privileges, and says how it ended."""
    child = os.fork()
    if child == 0:
        try:
            for name, value in job["limits"].items():
                with contextlib.suppress(ValueError):  # macOS takes no limit of the address space
                    resource.setrlimit(getattr(resource, name), (value, value))
            if job["isolate"]:
                _drop_privileges(job["user"])
        except OSError as error:
            os.write(job["result"], str(error).encode())
            os._exit(FAILED)
        _run(job)
    ended = status = 0
    while ended != child:  # orphans of the code end here, too
        ended, status = os.wait()
    if os.WIFSIGNALED(status):
        return TIMEOUT if os.WTERMSIG(status) == signal.SIGXCPU else FAILED
    return MEMORY if os.WEXITSTATUS(status) == MEMORY else FAILED


def _drop_privileges(user: int) -> None:
    """Becomes nobody (where root started this), without capabilities and without the calls that could get some."""
    for capability in range(64):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # the last ones do not exist
    if user == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _call("capset", struct.pack("=Ii", 0x20080522, 0), bytes(24))
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _forbid_calls(platform.machine())


def _forbid_calls(machine: str) -> None:
    """Installs a seccomp filter (classic BPF; Documentation/userspace-api/seccomp_filter.rst in Linux)."""
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, no_permission, no_such_call = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
    program = [(load, 0, 0, 4), (equal, 1, 0, _AUDIT_ARCH[machine]), (give, 0, 0, kill), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, 0x40000000), (give, 0, 0, no_permission)]
    for number in (*_DENIED[machine], *_DENIED_EVERYWHERE):
        program += [(equal, 0, 1, number), (give, 0, 0, no_permission)]
    # The C library falls back to clone, whose flags can be looked at.
    program += [(equal, 0, 1, _CLONE3), (give, 0, 0, no_such_call)]
    program += [(equal, 0, 3, _CLONE[machine]), (load, 0, 0, 16), (any_bit, 0, 1, _NAMESPACES)]
    program += [(give, 0, 0, no_permission), (give, 0, 0, allow)]
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    held = ctypes.create_string_buffer(code)
    header = struct.pack("@HP", len(program), ctypes.addressof(held))
    _call("prctl", _PR_SET_SECCOMP, 2, header, 0, 0)


def _run(job: dict[str, Any]) -> NoReturn:
    """Runs the parts in one namespace; the token is read, and passed on, after the last of them only.

    Whoever runs in this process can read the token and pass it on himself, but not by accident: neither output, nor an
    exit code, nor an early end looks like it.
    """
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(HOME=str(Path.cwd()), TMPDIR=str(Path.cwd()))
    end, read, write = os._exit, os.read, os.write
    token, result = job["token"], job["result"]
    status = FAILED
    try:
        names = {"__name__": "__main__"}
        for part in [compile(text, f"<{name}>", "exec") for name, text in job["parts"].items()]:
            exec(part, names)
        write(result, read(token, 64))
    except MemoryError:
        status = MEMORY
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc(limit=-3)
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    end(status)


if __name__ == "__main__":
    main()
