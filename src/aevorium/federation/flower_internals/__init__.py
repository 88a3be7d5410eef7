"""The one folder that touches Flower's private parts. `tests/contract` fails when a new Flower version moves them."""
