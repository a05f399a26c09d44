"""The name of the base that ships with the package; here, so that a name can be read without torch."""

__all__ = ["BUILTIN_BASE"]

BUILTIN_BASE = "builtin:demo-base"
