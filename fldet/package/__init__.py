"""A model as a folder for others: weights, config as data, thresholds, and a card."""

from fldet import _compat

_compat.install()

from fldet.package.write import Packaged, write_package  # noqa: E402

__all__ = ["Packaged", "write_package"]
