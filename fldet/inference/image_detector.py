"""How images are given to a detector, and given back with what it has found."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fldet.inference.detections import Detections, Predictions
from fldet.inference.images import given_images, is_one

T = TypeVar("T")
Image = str | Path | npt.NDArray[np.uint8]

# Images of one shape go through the network together; they are looked for in so many batches.
WINDOW = 4


class ImageDetector:
    """What can be called with images: it prepares each of them, and detects in several at once."""

    classes: tuple[str, ...]  # names by label

    def __call__(
        self, images: Any, score_thr: float = 0.3, batch_size: int = 8
    ) -> Detections | Predictions:
        """Returns what ``predict`` does, of one image without a list around it.

        A folder, a pattern, a video or a list gives ``Predictions``, even with one image in it.
        """
        found = self.predict(images, score_thr, batch_size)
        return found[0] if is_one(images) else found

    def predict(self, images: Any, score_thr: float = 0.05, batch_size: int = 8) -> Predictions:
        """Returns the objects in each image, best scores first.

        What an image gives does not depend on those beside it: only images that the network sees
        in one shape share a batch.

        Args:
            images: one or many: paths of images, folders, videos or glob patterns; PIL images;
                (H, W, 3) uint8 arrays in BGR order as OpenCV reads them; (3, H, W) tensors in RGB
                order, uint8 or floats in [0, 1].
            score_thr: lowest score, in [0, 1].
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

    def images_at_once(self, batch_size: int) -> int:
        """Returns how many images are prepared before the network sees the first of them."""
        return WINDOW * batch_size

    def prepare(self, image: Image) -> Any:
        """Returns one image as the network takes it."""
        raise NotImplementedError

    def detect(
        self, prepared: Sequence[Any], score_thr: float = 0.05, batch_size: int = 8
    ) -> list[Detections]:
        """Returns the objects in images that are prepared; see ``predict``."""
        raise NotImplementedError


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of ``size`` items, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
