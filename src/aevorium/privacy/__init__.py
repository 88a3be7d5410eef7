"""Differential privacy: events and what they cost, noise, private training, and the ledger that remembers."""
