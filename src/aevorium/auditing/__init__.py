"""Attacks Aevorium's own nodes, on records that nobody has, to see whether they keep what a plan promises."""
