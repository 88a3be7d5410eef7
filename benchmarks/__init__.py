"""Measurements of Aevorium; not part of the product."""
