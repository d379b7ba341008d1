"""Predictions as the annotations of a COCO data set."""

import json
from collections.abc import Sequence
from pathlib import Path

from fldet.files import atomic_file
from fldet.inference.writers.pictures import pictures


def write_coco_dataset(lines: Sequence[Path], out: Path, classes: Sequence[str]) -> tuple[Path]:
    """Writes ``dataset.json``; ids count from 1, and annotations have a ``score`` besides.

    Names of files are relative to the deepest folder that has all of them.
    """
    path = out / "dataset.json"
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(classes)]
    with atomic_file(path, "w") as file:
        file.write('{"images": [')
        between = ""
        for number, one in enumerate(pictures(lines), start=1):
            entry = {"file_name": one.name, "width": one.width, "height": one.height}
            file.write(between + json.dumps({"id": number, **entry}))
            between = ",\n"
        file.write('],\n"annotations": [')
        between, count = "", 0
        for number, one in enumerate(pictures(lines), start=1):
            for box in one.boxes:
                count += 1
                (x, y, _, _), (w, h) = box.corners, box.sides
                ids = {"id": count, "image_id": number, "category_id": box.label + 1}
                entry = {**ids, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
                file.write(between + json.dumps({**entry, "score": box.score}))
                between = ",\n"
        file.write(f'],\n"categories": {json.dumps(categories)}}}\n')
    return (path,)
