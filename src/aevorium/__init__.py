"""Aevorium: one diffusion model across many hospitals, with differential privacy end to end."""

__all__ = ["__version__"]

__version__ = "0.1.0"
