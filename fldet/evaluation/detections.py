"""Detections in the COCO results format: checks, files, and from the predictions of a model.

A detection is a dict with ``image_id``, ``category_id``, ``bbox`` = [x, y, width, height] in pixels
of the original image, and ``score``.
"""

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from fldet.errors import DataError, shorten
from fldet.files import read_json, write_atomically
from fldet.numeric import are_numbers

Detection = Mapping[str, Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_INTEGER = (int, Integral)  # Python's own stands first: checking against the abstract one is slow
_DETECTION_KEYS = ("image_id", "category_id", "bbox", "score")
_RESULTS = (
    "the COCO results format: a list of objects with image_id, category_id, "
    "bbox [x, y, width, height] and score"
)


_NO_LABELS = np.empty(0, np.int64)


@dataclass(frozen=True)
class ImageDetections:
    """What was found in one image."""

    labels: Ints  # (N,)
    boxes_xywh: Floats  # (N, 4) pixels of the original image
    scores: Floats  # (N,)


@dataclass(frozen=True, eq=False)
class DetectionTable(Sequence[Detection]):
    """Detections as columns, in their order; its items are the same in the COCO results format."""

    images: Sequence[Any]  # ids
    categories: Sequence[Any]  # ids
    image: Ints  # (N,) index in ``images``
    category: Ints  # (N,) index in ``categories``
    boxes_xywh: Floats  # (N, 4) pixels of the original image
    scores: Floats  # (N,)

    @classmethod
    def of_images(
        cls, found: Mapping[Hashable, ImageDetections], categories: Sequence[int | None]
    ) -> "DetectionTable":
        """Returns what was found by image id; ``categories`` are ids by label."""
        parts = (*found.values(), ImageDetections(_NO_LABELS, np.empty((0, 4)), np.empty(0)))
        return cls(
            images=tuple(found),
            categories=categories,
            image=np.repeat(np.arange(len(found)), [len(one.labels) for one in found.values()]),
            category=np.concatenate([one.labels for one in parts]),
            boxes_xywh=np.concatenate([one.boxes_xywh for one in parts]),
            scores=np.concatenate([one.scores for one in parts]),
        )

    @classmethod
    def of(cls, detections: Sequence[Detection]) -> "DetectionTable":
        """Returns detections that are well formed as a table."""
        if isinstance(detections, DetectionTable):
            return detections
        images, image = _numbered(one["image_id"] for one in detections)
        categories, category = _numbered(one["category_id"] for one in detections)
        numbers = np.fromiter(
            (value for one in detections for value in (*one["bbox"], one["score"])), float
        ).reshape(-1, 5)
        return cls(images, categories, image, category, numbers[:, :4], numbers[:, 4])

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, place: int) -> Detection: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Detection]: ...
    def __getitem__(self, place: int | slice) -> Detection | Sequence[Detection]:
        if isinstance(place, slice):
            return self.part(place)
        row = range(len(self))[place]
        return next(iter(self.part(slice(row, row + 1))))

    def part(self, rows: slice | npt.NDArray[Any]) -> "DetectionTable":
        """Returns some rows: a slice, indices, or a mask of all."""
        return DetectionTable(
            self.images,
            self.categories,
            self.image[rows],
            self.category[rows],
            self.boxes_xywh[rows],
            self.scores[rows],
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        columns: tuple[npt.NDArray[Any], ...]
        columns = (self.image, self.category, self.boxes_xywh, self.scores)
        for image, category, box, score in zip(*(one.tolist() for one in columns), strict=True):
            yield {
                "image_id": self.images[image],
                "category_id": self.categories[category],
                "bbox": box,
                "score": score,
            }

    def is_sound(self, images: Iterable[Hashable], categories: Iterable[int]) -> bool:
        """Returns whether all numbers are finite, no size is negative, and these ids are known."""
        return (
            bool(np.isfinite(self.boxes_xywh).all() and np.isfinite(self.scores).all())
            and not (self.boxes_xywh[:, 2:] < 0).any()
            and set(images).issuperset(_used(self.images, self.image))
            and set(categories).issuperset(_used(self.categories, self.category))
        )


def _used(ids: Sequence[Any], places: Ints) -> list[Any]:
    return [ids[place] for place in np.flatnonzero(np.bincount(places))]


def _numbered(values: Iterable[Any]) -> tuple[list[Any], Ints]:
    """Returns the different values, and the place of each value among them."""
    place: dict[Any, int] = {}
    places = np.fromiter((place.setdefault(value, len(place)) for value in values), np.int64)
    return list(place), places


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
    if isinstance(detections, DetectionTable) and detections.is_sound(
        detections.images if images is None else images,
        detections.categories if categories is None else categories,
    ):
        return
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
    return write_atomically(path, "[" + ",\n".join(map(_line, detections)) + "]\n")


def _line(one: Detection) -> str:
    """Returns a detection as JSON; spelled out, since an encoder takes twice as long."""
    image, box = one["image_id"], repr([*map(float, one["bbox"])]).replace(" ", "")
    return (
        f'{{"image_id":{json.dumps(image) if isinstance(image, str) else int(image)},'
        f'"category_id":{int(one["category_id"])},"bbox":{box},"score":{float(one["score"])!r}}}'
    )


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


def image_detections(
    instances: Mapping[str, Any], category_ids: Sequence[int | None]
) -> ImageDetections:
    """Returns the predictions of one image.

    ``instances`` are tensors: ``bboxes`` (N, 4) xyxy in pixels, ``scores`` (N,), ``labels`` (N,).
    ``category_ids`` are by label, None for a class that the annotations lack, whose detections are
    left out: no figure counts them.

    Raises:
        DataError: a label that is no index of ``category_ids``.
    """
    boxes, scores = (instances[key].detach().cpu().double().numpy() for key in ("bboxes", "scores"))
    labels = instances["labels"].cpu().numpy().astype(np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(category_ids):
        raise DataError(
            f"the model predicted the label {labels.max()}, the data set has "
            f"{len(category_ids)} classes",
            hint="num_classes of the model and the number of classes of the data must be equal",
        )
    boxes_xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    known = np.array([one is not None for one in category_ids], bool)[labels]
    return ImageDetections(labels[known], boxes_xywh[known], scores[known])
