"""Namespaces and a root of its own: what the code cannot see, it cannot touch."""

import ctypes
import os
import signal
import struct
import sys

from . import FAILED
from .kernel import call

__all__ = ["NAMESPACES", "NOBODY", "die_with_parent", "enter_private_root", "in_new_namespaces"]

NOBODY = 65534
NAMESPACES = 0x00020000 | 0x08000000 | 0x04000000 | 0x10000000 | 0x20000000 | 0x40000000
"""``CLONE_NEWNS``, ``NEWIPC``, ``NEWUTS``, ``NEWUSER``, ``NEWPID`` and ``NEWNET``."""
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
_AT_RECURSIVE, _MNT_DETACH, _MOUNT_SETATTR = 0x8000, 2, 442
_PR_SET_PDEATHSIG = 1
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent ends."""
    call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)


def in_new_namespaces() -> None:
    """Goes on as the first process of new namespaces; the one outside waits for it and ends as it does."""
    _leave_namespaces()
    first = os.fork()
    if first != 0:
        _, status = os.waitpid(first, 0)
        os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else FAILED)
    die_with_parent()
    os.setsid()  # only now: until here a signal to the group of the one outside ends this one, too


def _leave_namespaces() -> None:
    """Unshares everything; a child that stays behind maps the ids, as only it may map more than one."""
    process, user, group = os.getpid(), os.getuid(), os.getgid()
    unshared, ready = os.pipe()
    mapper = os.fork()
    if mapper == 0:
        os.close(ready)
        os.read(unshared, 1)
        # An ordinary user can map himself only: as nobody, so that root does not exist in there.
        name, more = (0, f"\n{NOBODY} {NOBODY} 1") if user == 0 else (NOBODY, "")
        try:
            if user != 0:
                _write(f"/proc/{process}/setgroups", "deny")
            _write(f"/proc/{process}/uid_map", f"{name} {user} 1{more}")
            _write(f"/proc/{process}/gid_map", f"{name} {group} 1{more}")
        except OSError:
            os._exit(FAILED)
        os._exit(0)
    call("unshare", NAMESPACES)
    os.write(ready, b"x")
    if os.waitpid(mapper, 0)[1] != 0:
        raise OSError("the ids of a user namespace cannot be mapped")
    os.close(unshared)
    os.close(ready)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def enter_private_root(root: str, disk_bytes: int) -> None:
    """Makes a root of its own: what Python needs to import, read-only, and an empty ``/tmp`` of limited size."""
    call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    call("mount", b"tmpfs", os.fsencode(root), b"tmpfs", _MS_NOSUID | _MS_NODEV, b"size=1m,mode=755")
    temporary = f"{root}/tmp"
    os.mkdir(temporary)
    size = f"size={disk_bytes},nr_inodes=1024,mode=1777".encode()
    call("mount", b"tmpfs", os.fsencode(temporary), b"tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, size)
    shown: list[str] = []
    for path in (*sys.path, *_LIBRARIES, *_DEVICES):
        if os.path.exists(path) and not any(path == one or path.startswith(f"{one}/") for one in shown):
            _show(path, root + path)
            shown.append(path)
    _read_only(root, 0, _MS_NODEV)
    os.chdir(root)
    call("pivot_root", b".", b".")
    call("umount2", b".", _MNT_DETACH)
    os.chdir("/tmp")


def _show(path: str, target: str) -> None:
    """Lets a file or folder be read at the same place in the new root."""
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT))
    call("mount", os.fsencode(os.path.realpath(path)), os.fsencode(target), None, _MS_BIND | _MS_REC, None)
    _read_only(target, _AT_RECURSIVE, 0 if path in _DEVICES else _MS_NODEV)


def _read_only(path: str, how: int, more: int) -> None:
    """``mount_setattr`` (Linux 5.12): unlike a remount it reaches the mounts inside, too."""
    attributes = struct.pack("=QQQQ", _MS_RDONLY | _MS_NOSUID | more, 0, 0, 0)
    call("syscall", _MOUNT_SETATTR, -100, os.fsencode(path), how, attributes, ctypes.c_size_t(len(attributes)))
