"""What can be seen of a server: metrics, logs, spans, health, and whether its answers are still like the judged."""
