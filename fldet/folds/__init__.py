"""Cross-validation: a training for each fold, tested on the images that it has not seen."""

from fldet.folds.result import CrossValidation, FoldFigure
from fldet.folds.run import Settings, WrittenCrossValidation, cross_validate

__all__ = ["CrossValidation", "FoldFigure", "Settings", "WrittenCrossValidation", "cross_validate"]
