"""Losses: thin registered modules on the formulas of ``fldet.functional``."""
