"""The score of each class from which a detection counts: read, checked, applied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fldet.errors import DataError, UsageError, nearest, shorten
from fldet.numeric import is_real
from fldet.results import Share, read_stored, restored

_WHAT = "file of thresholds"
_HINT = "fldet analyze thresholds FOLDS_DIR writes one"


@dataclass(frozen=True)
class Thresholds:
    """The lowest score of each class; ``thresholds.json`` of ``fldet analyze thresholds`` has it.

    A file that holds no more than ``{"scores": {"cat": 0.4, "dog": 0.25}}`` will do.
    """

    scores: dict[str, Share]  # by class name
    chosen: str = ""  # how, in words
    source: str = ""  # from which detections, in words

    @property
    def lowest(self) -> float:
        """The lowest score of all classes, in [0, 1]."""
        return min(self.scores.values())

    def for_classes(self, classes: Sequence[str]) -> "Thresholds":
        """Returns the thresholds of a detector's classes, in their order.

        Raises:
            UsageError: a class has no threshold, or there is one of a class that it does not have.
        """
        for name in self.scores:
            if name not in classes:
                raise UsageError(
                    f"a threshold of the class {shorten(name)}, which the detector does not have",
                    expected=nearest(name, classes) or shorten(list(classes)),
                )
        if missing := [name for name in classes if name not in self.scores]:
            raise UsageError(
                f"no threshold of the class {shorten(missing[0])}",
                expected="a score for each class of the detector",
                hint=_HINT,
            )
        return Thresholds({name: self.scores[name] for name in classes}, self.chosen, self.source)

    def kept(self, scores: npt.ArrayLike, labels: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Returns (N,) True for detections that count, of scores (N,) and labels (N,).

        A label is the place of its class in ``scores``, as ``for_classes`` has put them.
        """
        lowest = np.array(list(self.scores.values()))
        return np.asarray(scores) >= lowest[np.asarray(labels, np.int64)]

    def __str__(self) -> str:
        return ", ".join(f"{name} {score:.3f}" for name, score in self.scores.items())


def read_thresholds(source: str | Path | Mapping[str, Any] | Thresholds) -> Thresholds:
    """Returns thresholds from their file, or of scores by class name.

    Raises:
        DataError: no such file, another one, no class, or a score that is not in [0, 1].
    """
    if isinstance(source, Thresholds):
        return source
    if isinstance(source, Mapping):
        scores = {name: float(one) if is_real(one) else one for name, one in source.items()}
        found = restored(Thresholds, {"scores": scores})
    else:
        found = read_stored(Path(source), Thresholds, what=_WHAT, hint=_HINT)
    if not found.scores:
        raise DataError(f"no class in the thresholds {shorten(str(source))}", hint=_HINT)
    return found
