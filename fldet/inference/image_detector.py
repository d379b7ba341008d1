"""How images are given to a detector, and given back with what it has found."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fldet.errors import DataError, UsageError
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


class PreparedImage(Protocol):
    """An image as a detector takes it; what else it has is the detector's own."""

    @property
    def height(self) -> int:
        """Of the file, upright, in pixels."""

    @property
    def width(self) -> int:
        """Of the file, upright, in pixels."""

    @property
    def source(self) -> npt.NDArray[np.uint8] | None:
        """The array that was given, None for a file."""


class ImageDetector:
    """What can be called with images: it prepares each of them, and detects in several at once."""

    classes: tuple[str, ...]  # names by label
    thresholds: Thresholds | None = None  # of the classes in their order
    device: Any = "cpu"  # where the network runs

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

    @property
    def settings(self) -> dict[str, Any]:
        """What all predictions of a folder must have in common, besides the weights."""
        return {}

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
        score_thr, by_class = wanted_scores(score_thr, self.thresholds)
        found: dict[int, Detections] = {}
        for rows in _of_one_shape([one.padded for one in prepared], batch_size):
            results = self._detect_batch([prepared[row] for row in rows], score_thr)
            if by_class is not None:
                results = [one[by_class.kept(one.scores, one.labels)] for one in results]
            found.update(zip(rows, results, strict=True))
        return [found[row] for row in range(len(prepared))]

    def _detect_batch(self, batch: Sequence[Any], score_thr: float) -> list[Detections]:
        """Returns the objects from a score upwards in images of one shape."""
        raise NotImplementedError

    def named(self, boxes: Any, scores: Any, labels: Any) -> Detections:
        """Returns arrays as detections, with the names of the labels."""
        return Detections(
            boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
            scores=np.asarray(scores, np.float32),
            labels=np.asarray(labels, np.int64),
            names=tuple(self.classes[label] for label in labels),
        )


def _of_one_shape(shapes: Sequence[tuple[int, int]], size: int) -> Iterator[list[int]]:
    """Yields the positions of equal shapes, at most ``size`` at a time."""
    rows: dict[tuple[int, int], list[int]] = {}
    for row, shape in enumerate(shapes):
        rows.setdefault(shape, []).append(row)
    for same in rows.values():
        yield from chunks(same, size)


def require_pixels(image: npt.NDArray[Any]) -> None:
    """Does nothing if an array is an image, as OpenCV reads it; else raises DataError."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise DataError(
            f"an array of shape {image.shape} and type {image.dtype} is no image",
            expected="(H, W, 3) uint8 in BGR order, as cv2.imread returns it",
        )


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of ``size`` items, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
