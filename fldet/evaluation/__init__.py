"""Detections in, figures out."""

from fldet import _compat

_compat.install()
