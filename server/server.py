"""Starts the federation server: waits for nodes, trains, writes the results, ends."""

from aevorium.cli.app import launch  # not found? Type: python start.py install

launch("server")
