"""How images are given to a detector, and given back with what it has found."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fldet.errors import UsageError
from fldet.evaluation.thresholds import Thresholds, read_thresholds
from fldet.inference.detections import Detections, Predictions
from fldet.inference.images import given_images, is_one

T = TypeVar("T")
ThresholdSource = str | Path | Mapping[str, Any] | Thresholds | None
Image = str | Path | npt.NDArray[np.uint8]

# Images of one shape go through the network together; they are looked for in so many batches.
WINDOW = 4
SCORE_THR, SURE = 0.05, 0.3  # lowest scores unless told otherwise, for figures and for the eye


def wanted_scores(
    score_thr: float | None, thresholds: Thresholds | None
) -> tuple[float, Thresholds | None]:
    """Returns the lowest score of all classes, and the thresholds that apply besides, if any.

    Raises:
        UsageError: ``score_thr`` is not in [0, 1].
    """
    if score_thr is None:
        return (SCORE_THR if thresholds is None else thresholds.lowest), thresholds
    if not 0 <= score_thr <= 1:
        raise UsageError(f"score_thr {score_thr} is no score", expected="a number in [0, 1]")
    return score_thr, None


class ImageDetector:
    """What can be called with images: it prepares each of them, and detects in several at once."""

    classes: tuple[str, ...]  # names by label
    thresholds: Thresholds | None = None  # of the classes in their order

    def __call__(
        self, images: Any, score_thr: float | None = None, batch_size: int = 8
    ) -> Detections | Predictions:
        """Returns what ``predict`` does, of one image without a list around it.

        A folder, a pattern, a video or a list gives ``Predictions``, even with one image in it.
        ``score_thr`` None is the thresholds of the detector; 0.3 where it has none.
        """
        if score_thr is None and self.thresholds is None:
            score_thr = SURE
        found = self.predict(images, score_thr, batch_size)
        return found[0] if is_one(images) else found

    def predict(
        self, images: Any, score_thr: float | None = None, batch_size: int = 8
    ) -> Predictions:
        """Returns the objects in each image, best scores first.

        What an image gives does not depend on those beside it: only images that the network sees
        in one shape share a batch.

        Args:
            images: one or many: paths of images, folders, videos or glob patterns; PIL images;
                (H, W, 3) uint8 arrays in BGR order as OpenCV reads them; (3, H, W) tensors in RGB
                order, uint8 or floats in [0, 1].
            score_thr: lowest score of all classes, in [0, 1]. None is the thresholds of the
                detector; 0.05 where it has none.
            batch_size: most images at once.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        predictions = Predictions()
        for chunk in chunks(given_images(images), self.images_at_once(batch_size)):
            prepared = [self.prepare(given.content) for given in chunk]
            results = self.detect(prepared, score_thr, batch_size)
            for given, image, found in zip(chunk, prepared, results, strict=True):
                size = (image.width, image.height)
                of_image = replace(found, image=given.kept, size=size, classes=self.classes)
                predictions.append(of_image)
        return predictions

    def use_thresholds(self, source: ThresholdSource) -> None:
        """Has detections count from a score of their class on; None changes nothing.

        Raises:
            DataError: the file is missing or malformed.
            UsageError: a class has no threshold, or there is one of another class.
        """
        if source is not None:
            self.thresholds = read_thresholds(source).for_classes(self.classes)

    def images_at_once(self, batch_size: int) -> int:
        """Returns how many images are prepared before the network sees the first of them."""
        return WINDOW * batch_size

    def prepare(self, image: Image) -> Any:
        """Returns one image as the network takes it."""
        raise NotImplementedError

    def detect(
        self, prepared: Sequence[Any], score_thr: float | None = None, batch_size: int = 8
    ) -> list[Detections]:
        """Returns the objects in images that are prepared; see ``predict``."""
        raise NotImplementedError


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of ``size`` items, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
