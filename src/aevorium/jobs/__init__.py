"""Work that is ordered and done later: what may be ordered, where its results lie, and the worker that does it."""
