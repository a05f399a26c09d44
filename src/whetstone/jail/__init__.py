"""The other side of :mod:`whetstone.sandbox`: shuts itself in, then runs untrusted code.

It needs the standard library only, and is imported as ``jail``, without the package around it: every import before the
code runs is paid for in each run. Processes: the one that is started leaves all namespaces; its child is the first
process of the new ones, whose end takes everything in them with it; that one's children run the code, without
privileges, in a file system that holds the standard library and an empty ``/tmp``. Where the checks allow it
(:mod:`whetstone.apart`) there are two of these: the answer, and the checks that ask it.
"""

__all__ = ["ENDED", "FAILED", "MEMORY", "OBJECT", "REFUSED", "TIMEOUT", "UNPLAIN"]

FAILED, MEMORY, OBJECT, UNPLAIN, ENDED, TIMEOUT, REFUSED = 1, 77, 78, 79, 80, 124, 125
"""Exit codes; that the code ran to its end is not among them, since anybody can exit with 0.

``OBJECT``: the answer gave something that is no plain value. ``UNPLAIN``: the checks wanted to give it such a thing.
``ENDED``: the answer's process was gone before the checks were done.
"""
