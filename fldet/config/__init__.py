"""Configs: read, checked, compared, completed."""

from fldet import _compat

_compat.install()
