"""Milliseconds and images per second: of models, of training steps, of the paper's tables."""

from fldet import _compat

_compat.install()
