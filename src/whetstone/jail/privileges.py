"""What untrusted code has left of its rights: none, and a filter in front of the kernel.

Notable: it can start threads but no process. So the limit of one process's memory is the limit of all of it; the calls
that hold memory outside of every process (System V and POSIX shared memory and queues, ``memfd``) are denied, too.
"""

import ctypes
import os
import struct

from .kernel import call, libc
from .walls import NAMESPACES, NOBODY

__all__ = ["ARCHITECTURES", "CALLS", "drop_privileges"]

_PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 22, 24, 38
_CLONE_THREAD, _AF_UNIX = 0x00010000, 1
_NEWER = 450
"""No call from this number on exists in Linux 5.16; the C library does without them."""

_NONE = -1
"""The number of a call that an architecture does not have."""

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""The column of :data:`CALLS`, and the kernel's own name."""

CALLS: dict[str, tuple[int, int]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, _NONE),
    "vfork": (58, _NONE),
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "reboot": (169, 142),
    "modify_ldt": (154, _NONE),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "clone3": (435, 435),
}
"""The calls that are denied, and last those that are looked at, with their numbers on x86_64 and aarch64.

Source: the headers of Linux, asm/unistd_64.h and asm-generic/unistd.h.
"""
_LOOKED_AT = ("socketpair", "clone", "clone3")


def drop_privileges(user: int, machine: str) -> None:
    """Becomes nobody (where root started this), without capabilities and without the calls that could get some."""
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # the last ones do not exist
    if user == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    call("capset", struct.pack("=Ii", 0x20080522, 0), bytes(24))
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _filter_calls(machine)


def _filter_calls(machine: str) -> None:
    """Installs a seccomp filter (classic BPF; Documentation/userspace-api/seccomp_filter.rst in Linux)."""
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, no_permission, no_such_call = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
    column, architecture = ARCHITECTURES[machine]
    number = {name: numbers[column] for name, numbers in CALLS.items()}
    first_argument = (load, 0, 0, 16)
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, 0x40000000), (give, 0, 0, no_permission)]  # the calls of x32
    program += [(at_least, 0, 1, _NEWER), (give, 0, 0, no_such_call)]
    for name, denied in number.items():
        if denied != _NONE and name not in _LOOKED_AT:
            program += [(equal, 0, 1, denied), (give, 0, 0, no_permission)]
    # The C library falls back to clone, whose flags can be looked at: a thread may be made, and nothing else.
    program += [(equal, 0, 1, number["clone3"]), (give, 0, 0, no_such_call)]
    program += [(equal, 0, 5, number["clone"]), first_argument, (any_bit, 2, 0, NAMESPACES)]
    program += [(any_bit, 0, 1, _CLONE_THREAD), (give, 0, 0, allow), (give, 0, 0, no_permission)]
    program += [(equal, 0, 3, number["socketpair"]), first_argument]
    program += [(equal, 1, 0, _AF_UNIX), (give, 0, 0, no_permission), (give, 0, 0, allow)]
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    held = ctypes.create_string_buffer(code)
    header = struct.pack("@HP", len(program), ctypes.addressof(held))
    call("prctl", _PR_SET_SECCOMP, 2, header, 0, 0)
