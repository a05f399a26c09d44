"""Reports beside that of the decision: of a training, and of a server under load."""
