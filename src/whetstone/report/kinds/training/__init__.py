"""The report of a training: how it went, from the rows that it wrote, and what to do about it."""
