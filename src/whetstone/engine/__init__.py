"""Engines: whatever turns prompts into answers."""
