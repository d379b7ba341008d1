"""Detections in the COCO results format: checks, files, and from the predictions of a model.

A detection is a dict with ``image_id``, ``category_id``, ``bbox`` = [x, y, width, height] in pixels
of the original image, and ``score``.
"""

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from fldet.errors import DataError, shorten
from fldet.files import read_json, write_atomically
from fldet.numeric import are_numbers

Detection = Mapping[str, Any]

_INTEGER = (int, Integral)  # Python's own stands first: checking against the abstract one is slow
_DETECTION_KEYS = ("image_id", "category_id", "bbox", "score")
_RESULTS = (
    "the COCO results format: a list of objects with image_id, category_id, "
    "bbox [x, y, width, height] and score"
)


def check_detections(
    detections: Sequence[Detection],
    *,
    images: Iterable[Hashable] | None = None,
    categories: Iterable[int] | None = None,
) -> None:
    """Does nothing if every detection is well formed and names known ids.

    ``bbox`` holds finite numbers, no negative size. Without ``images`` or ``categories``, any id
    will do.

    Raises:
        DataError: naming the first detection that is not, its position counted from 0.
    """
    ids = {"image_id": images, "category_id": categories}
    known_ids = [(key, set(known)) for key, known in ids.items() if known is not None]
    for index, one in enumerate(detections):
        if fault := _fault(one):
            raise DataError(
                f"detection {index} is malformed, {fault}: {shorten(one)}", expected=_RESULTS
            )
        for key, known in known_ids:
            if one[key] not in known:
                raise DataError(
                    f"detection {index} has the {key} {shorten(one[key])}, "
                    "which the annotation file does not have",
                    expected="ids of the annotation file that is evaluated against, such as "
                    f"{shorten(list(known)[:5])}",
                )


def _fault(one: Any) -> str:
    """Returns what is wrong with a detection, empty if nothing is."""
    if not isinstance(one, (dict, Mapping)):
        return "not an object"
    for key in _DETECTION_KEYS:
        if key not in one:
            return f"no {key!r}"
    if not isinstance(one["category_id"], _INTEGER):
        return "'category_id' is not an integer"
    if not isinstance(one["image_id"], (*_INTEGER, str)):
        return "'image_id' is not an integer"
    box = one["bbox"]
    if not isinstance(box, (list, tuple, Sequence)) or len(box) != 4:
        return "'bbox' is not a list of four numbers"
    if not are_numbers((*box, one["score"])):
        return "'bbox' or 'score' is not finite"
    return "'bbox' has a negative size" if box[2] < 0 or box[3] < 0 else ""


def save_detections(path: Path, detections: Sequence[Detection]) -> Path:
    """Writes detections as the COCO server takes them, atomically, one a line.

    Nothing is rounded: read back, every number is the same to the last bit, and so are the
    figures. About 140 bytes each.
    """
    check_detections(detections)
    lines = (json.dumps(plain(one), separators=(",", ":")) for one in detections)
    return write_atomically(path, "[" + ",\n".join(lines) + "]\n")


def load_detections(path: Path) -> list[dict[str, Any]]:
    """Reads detections in the COCO results format, whoever wrote them, and checks them."""
    content = read_json(path, "results file", expected=_RESULTS)
    if not isinstance(content, list):
        raise DataError(f"{path} holds no list of detections", expected=_RESULTS)
    try:
        check_detections(content)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", expected=error.expected) from None
    return content


def plain(one: Detection) -> dict[str, Any]:
    """Returns the four entries of a detection in Python's own numbers."""
    image_id = one["image_id"]
    return {
        "image_id": image_id if isinstance(image_id, str) else int(image_id),
        "category_id": int(one["category_id"]),
        "bbox": [*map(float, one["bbox"])],
        "score": float(one["score"]),
    }


def as_detections(
    image_id: Hashable, instances: Mapping[str, Any], category_ids: Sequence[int | None]
) -> list[dict[str, Any]]:
    """Returns the predictions of one image in the COCO results format.

    ``instances`` are tensors: ``bboxes`` (N, 4) xyxy in pixels, ``scores`` (N,), ``labels`` (N,).
    ``category_ids`` are by label, None for a class that the annotations lack, whose detections are
    left out: no figure counts them.

    Raises:
        DataError: a label that is no index of ``category_ids``.
    """
    boxes = instances["bboxes"].detach().double().cpu().numpy()
    boxes_xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
    scores = instances["scores"].detach().double().cpu().tolist()
    labels = instances["labels"].tolist()
    if labels and not 0 <= min(labels) <= max(labels) < len(category_ids):
        raise DataError(
            f"the model predicted the label {max(labels)}, the data set has "
            f"{len(category_ids)} classes",
            hint="num_classes of the model and the number of classes of the data must be equal",
        )
    return [
        {"image_id": image_id, "category_id": number, "bbox": box, "score": score}
        for label, box, score in zip(labels, boxes_xywh, scores, strict=True)
        if (number := category_ids[label]) is not None
    ]
