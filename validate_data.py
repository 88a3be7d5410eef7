"""Compares the synthetic table with the real rows of the last run."""

from aevorium.cli.app import launch

launch("validate")
