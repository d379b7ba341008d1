"""How far an exported model is from its checkpoint, on the same images."""

import logging
import time
from collections.abc import Sequence
from itertools import islice

import numpy as np

from fldet.errors import DataError
from fldet.inference.detections import Detections
from fldet.inference.detector import Detector
from fldet.inference.image_detector import Image
from fldet.inference.results import ParityResult
from fldet.inference.sources import find_items

log = logging.getLogger("fldet")

BOX_TOLERANCE_PX = 1e-3
SCORE_TOLERANCE = 1e-4
MAX_CHECKED = 20
_FAR_PX = 1.0  # two boxes this far apart are not one and the same


def compare(
    reference: Detector, exported: Detector, images: Sequence[Image], score_thr: float = 0.05
) -> ParityResult:
    """Returns how far two detectors differ on the same images, and their times.

    Boxes whose score is within the tolerance of the threshold, or of the last place among the
    most that an image may have, may be missing on either side.
    """
    thresholds = (score_thr, *(getattr(one, "lowest_score", 0.0) for one in (reference, exported)))
    score_thr = max(thresholds)
    ours, theirs = (one.predict(images, score_thr, 2) for one in (reference, exported))
    limit = getattr(reference.model.bbox_head, "test_cfg", {}).get("max_per_img", 100)
    pairs = [match(a, b, score_thr, limit) for a, b in zip(ours, theirs, strict=True)]
    return ParityResult(
        images=len(images),
        boxes=sum(map(len, ours)),
        box_px=max(box for box, _, _ in pairs),
        score=max(score for _, score, _ in pairs),
        unmatched=sum(left for _, _, left in pairs),
        torch_ms=_median_ms(reference, images, score_thr),
        exported_ms=_median_ms(exported, images, score_thr),
    )


def match(
    one: Detections, other: Detections, score_thr: float, limit: int = 100
) -> tuple[float, float, int]:
    """Returns the largest difference of boxes (px) and scores, and how many have no partner.

    Both are detections in one image, from a score on. The most that it may have are ``limit``, -1
    for any number.
    """
    free = set(range(len(other)))
    box_px = score = 0.0
    lonely: list[float] = []
    for row in range(len(one)):
        apart = {
            column: float(np.abs(one.boxes[row] - other.boxes[column]).max())
            for column in free
            if other.labels[column] == one.labels[row]
        }
        partner = min(apart, key=apart.__getitem__, default=None)
        if partner is None or apart[partner] > _FAR_PX:
            lonely.append(float(one.scores[row]))
            continue
        free.remove(partner)
        box_px = max(box_px, apart[partner])
        score = max(score, abs(float(one.scores[row] - other.scores[partner])))
    lonely += [float(other.scores[column]) for column in free]
    full = [found for found in (one, other) if 0 < limit <= len(found)]
    last = max((found.scores.min() for found in full), default=0.0)
    lowest = max(score_thr, float(last)) + SCORE_TOLERANCE
    return box_px, score, sum(value > lowest for value in lonely)


def is_within(parity: ParityResult) -> bool:
    """Returns whether an exported model finds what the checkpoint finds."""
    near = parity.box_px <= BOX_TOLERANCE_PX and parity.score <= SCORE_TOLERANCE
    return near and not parity.unmatched


def first_images(detector: Detector, source: str) -> list[Image]:
    """Returns the first images of a source; what cannot be read is named and left out."""
    images: list[Image] = []
    for item in islice(find_items(source), MAX_CHECKED):
        try:
            content = item.read()
            if isinstance(content, DataError):
                raise content
            detector.prepare(content)
            images.append(content)
        except DataError as error:
            log.warning("skipped: %s", error.message)
    if not images:
        raise DataError(f"no image to compare on in {source}")
    return images


def _median_ms(detector: Detector, images: Sequence[Image], score_thr: float) -> float:
    """Returns the median time of one image, the first one a warm-up."""
    times = []
    for image in (images[0], *images):
        prepared = detector.prepare(image)
        started = time.perf_counter()
        detector.detect([prepared], score_thr, 1)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times[1:]))
