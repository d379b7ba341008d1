"""Anchors and the boxes they are to cover: how well they do, and better ones."""

from fldet import _compat

_compat.install()
