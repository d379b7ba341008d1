"""Training and testing on MMEngine's Runner. Plain functions that return results."""

from fldet import _compat

_compat.install()
