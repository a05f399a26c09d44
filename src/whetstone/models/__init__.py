"""Models: where weights come from, how they are changed, and how they are told apart."""
