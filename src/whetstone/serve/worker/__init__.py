"""The process that computes, and how the server's process talks with it."""
