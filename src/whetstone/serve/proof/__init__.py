"""What may be served, and the proof that it is what was judged."""
