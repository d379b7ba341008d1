"""One module for each figure or report: compute a result, plot a result."""

from fldet import _compat

_compat.install()
