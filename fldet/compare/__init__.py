"""Which detector for which pictures: a few of them trained alike, tested, timed, on one page."""

from fldet.compare.models import MODELS
from fldet.compare.plan import MINUTES, Settings
from fldet.compare.run import WrittenComparison, compare

__all__ = ["MINUTES", "MODELS", "Settings", "WrittenComparison", "compare"]
