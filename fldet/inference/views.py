"""A detector that looks at each picture several times: slices, the whole, mirrored, in sizes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fldet.data.slicing.views import View, Views, cut, seen_in
from fldet.inference.detections import Detections
from fldet.inference.detector import Detector, Prepared
from fldet.inference.image_detector import Image, ImageDetector, wanted_scores
from fldet.ops.merge import merge_views

# Views are searched for scores from here on, so that the parts of an object meet whatever score is
# asked for in the end.
LOWEST_SCORE = 0.05
# On a CPU a larger batch is slower: its maps ask for more memory than is kept for the next one.
BATCH_ON_CPU = 2
# Pictures in work, each with all its views; their batches are full.
AT_ONCE = 2


@dataclass(frozen=True)
class PreparedViews:
    """A picture as the network takes it, view by view."""

    views: tuple[tuple[View, Prepared], ...]
    height: int  # of the file, upright, in pixels
    width: int
    source: npt.NDArray[np.uint8] | None = None  # the array that was given, None for a file


AnyPrepared = Prepared | PreparedViews


class DetectorOfViews(ImageDetector):
    """Finds objects as a ``Detector`` does, in several views of each picture.

    The views of one or more pictures go through the network together, those of one shape in a
    batch, and ``merge_views`` makes one detection of each object. The network is an optimized copy,
    if there can be one, whose scores are within 1e-5 of the model's.

    Args:
        detector: looks at a view.
        views: of each picture.
    """

    def __init__(self, detector: Detector, views: Views) -> None:
        self.views = views
        self.detector = detector = detector.faster().rescaled(1.0)
        self.classes, self.device = detector.classes, detector.device
        self.thresholds = detector.thresholds
        others = {scale: detector.rescaled(scale) for scale in views.all_scales if scale != 1}
        self._by_scale = {1.0: detector, **others}

    @property
    def settings(self) -> dict[str, Any]:
        """What all predictions of a folder must have in common, besides the weights."""
        return {"views": asdict(self.views) | {"scales": list(self.views.scales)}}

    def images_at_once(self, batch_size: int) -> int:
        """Returns how many pictures are prepared before the network sees the first of them."""
        del batch_size
        return AT_ONCE

    def prepare(self, image: Image) -> PreparedViews:
        """Returns the views of an image as the network takes them.

        Raises:
            DataError: it cannot be read, or not be resized.
        """
        loaded = self.detector.read(image)
        height, width = loaded["ori_shape"][:2]
        views = self.views.of(int(width), int(height))
        prepared = [
            self._by_scale[view.scale].prepare_loaded(cut(loaded, view), image) for view in views
        ]
        source = image if isinstance(image, np.ndarray) else None
        return PreparedViews(
            tuple(zip(views, prepared, strict=True)), int(height), int(width), source
        )

    def detect(
        self, prepared: Sequence[PreparedViews], score_thr: float | None = None, batch_size: int = 8
    ) -> list[Detections]:
        """Returns the objects in pictures that are prepared; see ``Detector.predict``."""
        score_thr, by_class = wanted_scores(score_thr, self.thresholds)
        lowest = min(score_thr, LOWEST_SCORE)
        if score_thr >= self.detector.lowest_score:  # else the detector says what is wrong
            lowest = max(lowest, self.detector.lowest_score)
        if self.device.type == "cpu":
            batch_size = min(batch_size, BATCH_ON_CPU)
        flat = [one for picture in prepared for _, one in picture.views]
        found = iter(self.detector.detect(flat, lowest, batch_size))
        merged = [
            self._merged(picture, [next(found) for _ in picture.views], score_thr)
            for picture in prepared
        ]
        if by_class is None:
            return merged
        return [one[by_class.kept(one.scores, one.labels)] for one in merged]

    def _merged(
        self, picture: PreparedViews, found: Sequence[Detections], score_thr: float
    ) -> Detections:
        seen = [
            seen_in(view, one.boxes, one.scores, one.labels)
            for (view, _), one in zip(picture.views, found, strict=True)
        ]
        size = picture.width, picture.height
        boxes, scores, labels = merge_views(
            seen, size, self.views.tolerance, agnostic=self.detector.is_agnostic
        )
        kept = scores >= score_thr
        return self.detector.named(boxes[kept], scores[kept], labels[kept])
