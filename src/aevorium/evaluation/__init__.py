"""Scores of a synthetic table against real rows or released noisy tables, and the report made of them."""
