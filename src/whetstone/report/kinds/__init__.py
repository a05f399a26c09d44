"""Reports beside that of the decision: of a training, of a server under load, and of several runs."""
