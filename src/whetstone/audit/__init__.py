"""Reads a report that somebody else wrote, and says which of its claims its own numbers do not bear out."""
