"""Who may ask, and when it is whose turn."""
