"""Measuring how fast models train and answer."""
