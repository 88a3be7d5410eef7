"""Generates synthetic_data.csv from the newest checkpoint."""

from aevorium.cli.app import launch  # not found? Type: python start.py install

launch("generate")
