"""Metrics: functions of (example, sample) to a score. One concept a file; ``catalogue`` lists them all."""
