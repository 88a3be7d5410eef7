"""Verifies the installation, with one tiny round in this process."""

from aevorium.cli.app import launch  # not found? Type: python start.py install

launch("doctor --with-round")
