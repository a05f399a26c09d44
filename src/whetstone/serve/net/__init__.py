"""The border of the server: sockets, HTTP, what may come in at all, and the life of the process."""
