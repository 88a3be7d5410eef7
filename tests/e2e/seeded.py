"""Nodes whose noise is seeded, so that two runs can be compared number by number. Such a run is not private.

python seeded.py NAME FOLDER PORT    one node, as a process of its own
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from aevorium.governance.policy import NodePolicy
from aevorium.joining import JoinOptions, join_federation
from aevorium.node.home import NodeHome
from aevorium.node.session import NodeConfig, NodeSession
from aevorium.progress import Report
from aevorium.schema.table import TableSchema


class SeededNoise:
    """Noise that repeats itself, of about the right shape."""

    is_secret = False

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def laplace(self, value: int, *, scale: float) -> int:
        return value + int(np.rint(self._rng.laplace(0, scale)))

    def gaussian(self, values: np.ndarray, *, sigma: float) -> np.ndarray:
        return values + np.rint(self._rng.normal(0, sigma, len(values))).astype(np.int64)


def open_seeded(config: NodeConfig, report: Report) -> NodeSession:
    """A session whose every draw follows from the node's name."""
    seed = sum(config.name.encode())
    seeds = np.random.default_rng(seed)
    return NodeSession(
        config,
        noise=SeededNoise(seed),
        report=report,
        generator=lambda: torch.Generator().manual_seed(int(seeds.integers(2**31))),
    )


def main() -> None:
    name, folder, port = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    home = NodeHome(folder / "home" / name)
    federation = folder / "workspace" / "federation"
    with home.claim():
        join_federation(
            name=name,
            data=folder / f"{name}.csv",
            schema=TableSchema.from_toml((folder / "schema.toml").read_text(), source="test"),
            policy=NodePolicy(),
            home=home,
            options=JoinOptions(f"127.0.0.1:{port}", authority=federation / "ca.crt", enrol_in=federation / "nodes"),
            open_session=open_seeded,
        )


if __name__ == "__main__":
    main()
