"""Calls of the C library that fail with a name."""

import ctypes
import os
from typing import Any

__all__ = ["call", "libc"]

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> None:
    """Calls a function that gives -1 where it fails.

    Raises:
        OSError: It did.
        AttributeError: This C library has none of that name.
    """
    if getattr(libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
