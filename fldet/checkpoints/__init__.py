"""Checkpoints: files, the configs in them, pretrained weights, the models they make."""

from fldet import _compat

_compat.install()
