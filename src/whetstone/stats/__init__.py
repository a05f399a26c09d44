"""Paired statistics: the differences, intervals, p-values and power that a verdict is built from."""
