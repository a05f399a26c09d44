"""Whetstone: tune a small language model, judge it against its base, decide, serve."""

__version__ = "0.1.0"
