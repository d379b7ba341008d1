"""What the evaluation needs of a COCO annotation file, checked."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fldet.data.annotations import (
    LAYOUT,
    area_of,
    box_of,
    category_ids,
    checked_annotations,
    flag_of,
    id_of,
    images_by_id,
    read_annotations,
)
from fldet.errors import DataError, shorten
from fldet.numeric import are_numbers


@dataclass(frozen=True)
class GroundTruth:
    """What the evaluation needs of an annotation file."""

    images: tuple[Hashable, ...]  # ids, sorted: among equal scores COCO's order is theirs
    categories: dict[int, str]  # class name by category id
    annotations: tuple[dict[str, Any], ...]  # with area in pixels, bbox as xywh, iscrowd 0 or 1


def read_ground_truth(source: Path | Mapping[str, Any]) -> GroundTruth:
    """Reads and checks a COCO annotation file, or its content, which stays as it is."""
    if isinstance(source, Mapping):
        name = "the annotations"
        content = checked_annotations(source, name)
    else:
        name, content = str(source), read_annotations(source)
    images = tuple(images_by_id(content["images"], name))
    categories = {i: name for name, i in category_ids(content["categories"], name).items()}
    annotations = (
        _annotation(entry, categories, f"{name}: annotation {index}")
        for index, entry in enumerate(content["annotations"])
    )
    known = set(images)
    return GroundTruth(
        images, categories, tuple(one for one in annotations if one["image_id"] in known)
    )


def load_truth(metric: str, ann_file: str | None, dataset: Mapping[str, Any] | None) -> GroundTruth:
    """Returns the ground truth of a metric: of a COCO file, or of a data set of another format.

    Of that, ``dataset`` has ``type`` and keywords, for its ``read_truth``.

    Raises:
        DataError: neither is given; or a file is missing or malformed.
    """
    if ann_file is not None:
        return read_ground_truth(Path(ann_file))
    if dataset is None:
        raise DataError(
            f"{metric} has no annotation file",
            hint="--cfg-options val_evaluator.ann_file=FILE, or test_evaluator.ann_file",
        )
    from fldet.registry import dataset_class

    return read_ground_truth(dataset_class(dataset["type"]).read_truth(dataset))


def _annotation(
    entry: Mapping[str, Any], categories: Mapping[int, str], name: str
) -> dict[str, Any]:
    """Returns a copy of what matters, with ``area`` and ``iscrowd`` filled in."""
    for key in ("image_id", "category_id", "bbox"):
        if key not in entry:
            raise DataError(f"{name} has no {key!r}", expected=LAYOUT)
    image, category = id_of(entry["image_id"]), id_of(entry["category_id"])
    box, crowd = box_of(entry), flag_of(entry.get("iscrowd"))
    area = area_of(entry, box)
    if (
        image is None
        or box is None
        or crowd is None
        or area is None
        or not are_numbers((*box, area))
    ):
        raise DataError(
            f"{name} is malformed: {shorten(entry)}",
            expected="'bbox' holds four finite numbers: x, y, width, height; 'area' is none or "
            "square pixels, 'iscrowd' none, 0 or 1",
        )
    if category not in categories:
        raise DataError(
            f"{name} has the category_id {shorten(entry['category_id'])}, which no category has",
            expected=f"the ids of the categories are {shorten(list(categories))}",
        )
    return {
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": area,
        "iscrowd": int(crowd),
    }


def restrict(
    truth: GroundTruth, image_ids: Iterable[Hashable] | None, category_ids: Iterable[int] | None
) -> GroundTruth:
    """Returns the ground truth of the chosen images and classes."""
    images = _choose(truth.images, image_ids, "image")
    categories = _choose(truth.categories, category_ids, "category")
    return GroundTruth(
        tuple(one for one in truth.images if one in images),
        {key: name for key, name in truth.categories.items() if key in categories},
        tuple(
            one
            for one in truth.annotations
            if one["image_id"] in images and one["category_id"] in categories
        ),
    )


def _choose(known: Iterable[Hashable], wanted: Iterable[Hashable] | None, kind: str) -> set[Any]:
    chosen = set(known if wanted is None else wanted)
    unknown = chosen - set(known)
    if unknown:
        raise DataError(
            f"no {kind} has the id {shorten(min(unknown, key=repr))}",
            expected=f"an id of the annotation file, such as {shorten(list(known)[:5])}",
        )
    return chosen
