"""Where a model computes: on the CPU, or on a CUDA device."""

from __future__ import annotations

from typing import Literal

import torch

from aevorium.errors import ConfigError

__all__ = ["CPU", "DeviceName", "find_device"]

DeviceName = Literal["auto", "cpu", "cuda"]

CPU = torch.device("cpu")


def find_device(name: DeviceName) -> torch.device:
    """The device of that name; "auto" takes a CUDA device if there is one.

    Raises:
        ConfigError: DEVICE_NOT_FOUND.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ConfigError(
            "DEVICE_NOT_FOUND",
            "device = 'cuda' is not possible. PyTorch finds no CUDA device on this machine, or was installed without "
            "support for one.",
        )
    return torch.device("cuda") if has_cuda and name != "cpu" else CPU
