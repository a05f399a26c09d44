"""How many cores a process that computes keeps busy, beside the server's process and whoever else is there.

Threads that compute one product together wait for each other many times a token, and they wait spinning. Where another
program wants a core for a moment, one of them stands still and the others spin for the rest of its time slice. Measured
on 2 cores, 16 answers at once by a model of 15 M parameters, 1,024 tokens:

| threads | spinning | while little else ran | beside programs that kept both cores busy |
|---|---|---|---|
| 2 | as libgomp does it | 1.3 to 1.9 s | 5 to 28 s |
| 2 | limited | 1.4 to 1.6 s | 5 to 7 s |
| 1 | | 1.8 to 2.0 s | 2 to 4 s |

So one core is left to the server's process, and the waiting is cut short. A model of 125 M parameters was no different
beside busy programs: 3 s with one thread, 7 to 17 s with two that wait shortly, 16 to 27 s with two.
"""

import os

__all__ = ["leave_a_core", "spin_shortly"]

_SPINS = "30000"


def spin_shortly() -> None:
    """Has threads of libgomp, which torch computes with on Linux, wait asleep after a moment; before torch is imported.

    What the user says of it wins (``OMP_WAIT_POLICY`` and ``GOMP_SPINCOUNT``, https://gcc.gnu.org/onlinedocs/libgomp).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def leave_a_core() -> None:
    """Has torch use one thread less than it would, if it has more than one; ``OMP_NUM_THREADS`` wins.

    To be called when models are open: their judged answers are asked for with as many threads as they were judged with.
    """
    import torch  # slow to import, and this module is there before it is

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > 1:
        torch.set_num_threads(torch.get_num_threads() - 1)
