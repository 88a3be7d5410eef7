"""The server: it plans, asks, merges and trains on released numbers. It can touch no record."""
