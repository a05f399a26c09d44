"""What goes over the wire: OpenAI's requests and responses, as far as they are served."""
