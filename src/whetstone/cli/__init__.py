"""The command line: one file a verb, each of which parses, calls one function, and shows what came of it."""
