"""Label Studio's exports 'JSON' and 'JSON-MIN'."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fldet.data.image_files import IMAGE_ENDINGS
from fldet.data.imported.labelled import (
    Corners,
    LabelledImage,
    LeftOut,
    Shape,
    around,
    ellipse,
    label_of,
    numbers,
    stated_size,
    turned,
)
from fldet.errors import DataError, collect, shorten
from fldet.files import read_json

log = logging.getLogger("fldet")

LAYOUT = "a list of tasks, each with 'data' and 'annotations', as Label Studio exports 'JSON'"
LABELS = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels")


def read(path: Path, faults: list[DataError] | None, left_out: LeftOut) -> Iterator[LabelledImage]:
    """Yields the images of an export; of several annotations of one image the first counts.

    That marked as ground truth goes before the others, skipped ones do not count; tasks without
    annotations are left out. Places are percents of the image in the file.
    """
    tasks = read_json(path, "annotation file", expected=LAYOUT)
    if not isinstance(tasks, list):
        raise DataError(f"{path} is no list", expected=LAYOUT)
    if any(map(_predictions, _mappings(tasks))) and not any(map(_made, _mappings(tasks))):
        log.warning("%s holds what a model has found, and nobody has looked it over", path)
        tasks = [
            {**one, "annotations": _predictions(one)} if isinstance(one, Mapping) else one
            for one in tasks
        ]
    found = [*collect(partial(_image, path=path, left_out=left_out), enumerate(tasks), faults)]
    if without := found.count(None):
        log.info("%s: %d of %d tasks have no annotation: left out", path, without, len(tasks))
    yield from filter(None, found)


def _image(item: tuple[int, Any], path: Path, left_out: LeftOut) -> LabelledImage | None:
    number, task = item
    where = f"{path}: task {number + 1}"
    if not isinstance(task, Mapping):
        raise DataError(f"{where} is {shorten(task)}", expected=LAYOUT)
    data = _inner(task, "data")
    name = _image_name(data)
    if name is None:
        raise DataError(f"{where} names no image", expected="its path or address in 'data'")
    results = _results(task, left_out)
    if results is None:
        return None
    shapes = [one for result in results if (one := _shape(result, where, left_out)) is not None]
    sizes = ((one.get("original_width"), one.get("original_height")) for one in results)
    size = next(filter(None, (stated_size(*pair) for pair in sizes)), None)
    return LabelledImage(name, shapes, size, where)


def _image_name(data: Mapping[str, Any]) -> str | None:
    """Returns the path of the image of a task; uploads have eight digits of a hash in front."""
    texts = [data.get("image"), data.get("img"), *data.values()]
    for text in texts:
        if isinstance(text, str):
            parts = urlsplit(text)
            name = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
            if name.lower().endswith(IMAGE_ENDINGS):
                return re.sub(r"(^|/)upload/\d+/[0-9a-f]{8}-", r"\1", name)
    return None


def _results(task: Mapping[str, Any], left_out: LeftOut) -> list[Mapping[str, Any]] | None:
    """Returns the parts of the annotation that counts, or of a task of JSON-MIN; None for none."""
    made = _made(task)
    if made is None:
        lists = [value for value in task.values() if isinstance(value, list)]
        return [one for value in lists for one in _mappings(value) if {*LABELS} & one.keys()]
    if not made:
        return None
    if len(made) > 1:
        left_out.add("annotations of an image that has another", len(made) - 1)
    chosen = next((one for one in made if one.get("ground_truth")), made[0])
    return _mappings(chosen["result"])


def _made(task: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """Returns the annotations of a task that are done; None where a task has no list of them."""
    annotations = task.get("annotations", task.get("completions"))
    if annotations is None:
        return None
    return [
        one
        for one in _mappings(annotations if isinstance(annotations, list) else ())
        if not one.get("was_cancelled") and isinstance(one.get("result"), list)
    ]


def _predictions(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = task.get("predictions")
    return _mappings(found)[:1] if isinstance(found, list) else []


def _inner(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Returns the mapping under a key, or the mapping itself if there is none."""
    inner = mapping.get(key)
    return inner if isinstance(inner, Mapping) else mapping


def _mappings(values: Iterable[Any]) -> list[Mapping[str, Any]]:
    return [one for one in values if isinstance(one, Mapping)]


def _shape(result: Mapping[str, Any], where: str, left_out: LeftOut) -> Shape | None:
    """Returns a labelled shape; None for what is no shape, or has no place or label."""
    value = _inner(result, "value")
    labels: Sequence[Any] = next((value[key] for key in LABELS if key in value), ())
    if not isinstance(labels, list) or not labels:
        kind = shorten(result.get("type"))
        left_out.add(f"parts without label, of the kind {kind}")
        return None
    size = stated_size(result.get("original_width"), result.get("original_height"))
    if size is None:
        raise DataError(
            f"{where} does not say the size of its image",
            expected="original_width and original_height of each shape",
        )
    corners = _corners(value, size, where)
    if corners is None:
        left_out.add(f"parts that are no box, of the kind {shorten(result.get('type'))}")
        return None
    if len(labels) > 1:
        left_out.add("further labels of a shape", len(labels) - 1)
    return Shape(label_of(labels[0], where), corners)


def _corners(value: Mapping[str, Any], size: tuple[int, int], where: str) -> Corners | None:
    """Returns corners in pixels; None if the value is neither box nor ellipse nor polygon."""
    w, h = size[0] / 100, size[1] / 100  # pixels of a percent
    if isinstance(value.get("points"), list):
        pairs = value["points"]
        points = [part for pair in pairs for part in (pair if isinstance(pair, list) else [None])]
        found = numbers(points, 0, where, "points of a polygon")
        return around([part * (h if index % 2 else w) for index, part in enumerate(found)])
    (angle,) = numbers([value.get("rotation") or 0], 1, where, "rotation")
    if "radiusX" in value:
        keys = ("x", "y", "radiusX", "radiusY")
        cx, cy, rx, ry = numbers(map(value.get, keys), 4, where, "an ellipse")
        return ellipse(cx * w, cy * h, rx * w, ry * h, angle)
    if not {"x", "y", "width", "height"} <= value.keys():
        return None
    x, y, dx, dy = numbers(map(value.get, ("x", "y", "width", "height")), 4, where, "a box")
    corners = (x * w, y * h, (x + dx) * w, (y + dy) * h)
    return turned(corners, angle, corners[:2]) if angle else corners
