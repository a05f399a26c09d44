"""Faults that can be seen in the examples alone, before a token is trained: no model, no tokeniser."""
