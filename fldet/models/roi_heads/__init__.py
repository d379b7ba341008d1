"""Heads that predict on one region after another."""
