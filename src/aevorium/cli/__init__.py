"""The command line: what a person types, turned into a use case, and its result into text or JSON."""
