"""Configs: read, checked, compared, completed."""
