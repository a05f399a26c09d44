"""The report of a server under load, from the requests that were measured."""
