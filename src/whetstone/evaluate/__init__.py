"""Evaluation: arms answer held-out examples, every answer is a row on disk, and metrics score the rows."""
