"""Training: rows of tokens, batches, the loss, and the Trainer that runs them."""
