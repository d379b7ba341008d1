"""Predictions as tasks to look over in Label Studio."""

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from fldet.files import atomic_file, write_atomically
from fldet.inference.writers.pictures import Box, Picture, pictures


def write_label_studio(
    lines: Sequence[Path], out: Path, classes: Sequence[str]
) -> tuple[Path, Path]:
    """Writes ``label_studio.json``, tasks with predictions, and the labelling interface for them.

    Images have the addresses that Label Studio has for files on its own machine, relative to the
    deepest folder that has all of them.
    """
    tasks, interface = out / "label_studio.json", out / "label_studio.xml"
    with atomic_file(tasks, "w") as file:
        file.write("[")
        between = ""
        for one in pictures(lines):
            file.write(between + json.dumps(_task(one)))
            between = ",\n"
        file.write("]\n")
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in classes)
    text = (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <RectangleLabels name="label" toName="image">\n{labels}  </RectangleLabels>\n</View>\n'
    )
    write_atomically(interface, text)
    return tasks, interface


def _task(one: Picture) -> dict[str, object]:
    results = [_result(box, one) for box in one.boxes]
    score = sum(box.score for box in one.boxes) / max(1, len(one.boxes))
    prediction = {"model_version": "fldet", "score": score, "result": results}
    address = f"/data/local-files/?d={quote(one.name, errors='surrogateescape')}"
    return {"data": {"image": address}, "predictions": [prediction]}


def _result(box: Box, one: Picture) -> dict[str, object]:
    (x, y, _, _), (w, h) = box.corners, box.sides
    shares = {"x": x / one.width, "y": y / one.height, "width": w / one.width}
    percents = {key: 100 * share for key, share in {**shares, "height": h / one.height}.items()}
    return {
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": one.width,
        "original_height": one.height,
        "image_rotation": 0,
        "score": box.score,
        "value": {**percents, "rotation": 0, "rectanglelabels": [box.name]},
    }
