"""Cross-validation: a training for each fold, tested on the images that it has not seen."""

from fldet import _compat

_compat.install()

from fldet.folds.result import CrossValidation, FoldFigure  # noqa: E402
from fldet.folds.run import Settings, WrittenCrossValidation, cross_validate  # noqa: E402

__all__ = ["CrossValidation", "FoldFigure", "Settings", "WrittenCrossValidation", "cross_validate"]
