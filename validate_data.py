"""Compares the synthetic table with the real rows of the last run."""

from aevorium.cli.app import launch  # not found? Type: python start.py install

launch("validate")
