"""Heads that predict on every location of the pyramid."""
