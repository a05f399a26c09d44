"""Serving what was judged: an OpenAI-compatible server over the engines."""
