"""Generates synthetic_data.csv from the newest checkpoint."""

from aevorium.cli.app import launch

launch("generate")
