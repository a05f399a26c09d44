"""Servers of other programs behind ours: those that it starts, and those that are somewhere already."""
