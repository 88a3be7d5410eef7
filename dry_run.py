"""Verifies the installation, with one tiny round in this process."""

from aevorium.cli.app import launch

launch("doctor --with-round")
