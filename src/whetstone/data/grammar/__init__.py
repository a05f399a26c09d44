"""The embedded grammar corpus: short English sentences, planted learner errors, and their right corrections."""
