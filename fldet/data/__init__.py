"""Data sets: annotation files and drawn shapes in, samples out."""

from fldet import _compat

_compat.install()
