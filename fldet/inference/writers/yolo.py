"""Predictions as a data set in the YOLO format."""

import json
from collections.abc import Sequence
from pathlib import Path

from fldet.inference.writers.pictures import Picture, new_folder, pictures, write_labelled


def write_yolo(lines: Sequence[Path], out: Path, classes: Sequence[str]) -> tuple[Path]:
    """Writes ``yolo/``: the images, their labels without scores, and ``data.yaml``."""
    with new_folder(out / "yolo") as folder:
        images, labels = folder / "images", folder / "labels"
        for _ in write_labelled(pictures(lines), images, labels, ".txt", _rows):
            pass
        names = "".join(f"  {label}: {json.dumps(name)}\n" for label, name in enumerate(classes))
        text = f"train: images\nnames:\n{names}"  # YAML has JSON's texts
        (folder / "data.yaml").write_text(text, encoding="utf-8")
    return (out / "yolo",)


def _rows(one: Picture) -> str:
    """Returns a line for each box: its class, and middle and sides as shares of the image."""
    rows = []
    for box in one.boxes:
        x1, y1, x2, y2 = box.corners
        shares = (x1 / one.width, y1 / one.height, x2 / one.width, y2 / one.height)
        left, top, right, bottom = (min(max(share, 0.0), 1.0) for share in shares)
        place = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        rows.append(f"{box.label} {' '.join(f'{share:.6f}' for share in place)}\n")
    return "".join(rows)
