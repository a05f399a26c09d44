"""Data: examples, where they come from, how they are split, and the template that turns them into tokens."""
