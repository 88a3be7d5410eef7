"""Generators for privacy noise and batch selection, filled from the operating system's entropy.

`torch.Generator.manual_seed` keeps only 32 bits of a seed on the CPU: whoever can try 2³² seeds could find the noise of
a run. Here the generator's whole state, 624 words of 32 bits, is drawn instead. It is nowhere stored. The generator
(MT19937) is no cryptographic one and floats are not real numbers; the privacy statement says both.
"""

from __future__ import annotations

import secrets
import sys

import numpy as np
import torch

__all__ = ["os_generator"]

_WORDS = 624
_FIRST_WORD = 24
"""Byte at which the words begin in PyTorch's CPU state; each takes eight bytes, the lower four of them used."""

_STATE_BYTES = 5056


def os_generator() -> torch.Generator:
    """A CPU generator that nobody can repeat."""
    generator = torch.Generator()
    generator.seed()
    state = generator.get_state().numpy()
    if len(state) != _STATE_BYTES or sys.byteorder != "little":
        raise RuntimeError("this PyTorch stores its generator's state in a way that is not known here")
    words = np.frombuffer(secrets.token_bytes(4 * _WORDS), dtype=np.uint32).astype(np.uint64)
    state[_FIRST_WORD : _FIRST_WORD + 8 * _WORDS] = words.view(np.uint8)
    generator.set_state(torch.from_numpy(state))
    return generator
