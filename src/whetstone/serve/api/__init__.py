"""The HTTP API: from a request to the answers, whole or in pieces."""
