"""Starts one node against the server. Start it again in another terminal for the next node."""

from aevorium.cli.app import launch  # not found? Type: python start.py install

launch("node")
