"""Findings as files that labelling tools import: COCO, and Label Studio's predictions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fldet.analysis.labels.result import Finding, LabelAnalysis
from fldet.data.annotations import id_of
from fldet.evaluation.detected import Detected
from fldet.files import write_atomically

VERSION = "fldet analyze labels"  # of the predictions, by which Label Studio keeps them apart
_FROM, _TO = "label", "image"  # names of the tags in Label Studio's labelling interface


def write_coco(analysis: LabelAnalysis, detected: Detected, path: Path) -> Path:
    """Writes a COCO file of the findings, an annotation each, with ``score`` and ``kind``.

    Its images and categories are those of the annotations. The box is the one detected where
    something is missing, else the one annotated.
    """
    category_of = {name: key for key, name in detected.truth.categories.items()}
    annotations = [
        {
            "id": place,
            "image_id": one.image_id,
            "category_id": category_of[one.label or one.other_label],
            "bbox": list(box := _box(one)),
            "area": box[2] * box[3],
            "iscrowd": 0,
            "kind": one.kind,
            "score": one.score,
            "of_annotations": list(one.annotation_ids),
            "suggested_bbox": one.other_xywh and list(one.other_xywh),
            "suggested_category_id": category_of.get(one.other_label),
        }
        for place, one in enumerate(analysis.findings, start=1)
    ]
    content = {
        "images": detected.content["images"],
        "categories": detected.content["categories"],
        "annotations": annotations,
    }
    return write_atomically(path, json.dumps(content) + "\n")


def write_label_studio(analysis: LabelAnalysis, detected: Detected, path: Path) -> Path:
    """Writes a task with predictions for each image with findings, the likeliest image first.

    Boxes are in percent of the image, as Label Studio has them; ``data.image`` is the path of the
    file, which its local storage serves.
    """
    entries: dict[Any, Any] = {id_of(one["id"]): one for one in detected.content["images"]}
    by_image: dict[Any, list[Finding]] = {}
    for one in analysis.findings:
        by_image.setdefault(one.image_id, []).append(one)
    tasks = []
    for image in analysis.images:
        entry = entries[image.image_id]
        if image.image_id not in by_image or not _has_size(entry):
            continue
        result = [_region(one, entry) for one in by_image[image.image_id]]
        prediction = {"model_version": VERSION, "score": image.score, "result": result}
        tasks.append({"data": {"image": image.file}, "predictions": [prediction]})
    return write_atomically(path, json.dumps(tasks) + "\n")


def _box(one: Finding) -> tuple[float, ...]:
    box = one.other_xywh if one.box_xywh is None else one.box_xywh
    assert box is not None
    return box


def _has_size(entry: Mapping[str, Any]) -> bool:
    sizes = (entry.get("width"), entry.get("height"))
    return all(isinstance(size, (int, float)) and size > 0 for size in sizes)


def _region(one: Finding, entry: Mapping[str, Any]) -> dict[str, Any]:
    x, y, width, height = _box(one)
    across, down = 100 / entry["width"], 100 / entry["height"]
    return {
        "from_name": _FROM,
        "to_name": _TO,
        "type": "rectanglelabels",
        "original_width": entry["width"],
        "original_height": entry["height"],
        "score": one.score,
        "meta": {"text": [f"{one.kind} {one.score:.2f}"]},
        "value": {
            "x": x * across,
            "y": y * down,
            "width": width * across,
            "height": height * down,
            "rotation": 0,
            "rectanglelabels": [one.label or one.other_label],
        },
    }
