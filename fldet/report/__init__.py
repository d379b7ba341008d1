"""One page of a run."""

from fldet import _compat

_compat.install()
