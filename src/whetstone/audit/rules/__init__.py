"""One concept a file: a rule takes a report and says of each claim that it can judge what the arithmetic gives."""
