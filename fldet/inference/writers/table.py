"""Predictions as a table."""

import csv
from collections.abc import Sequence
from pathlib import Path

from fldet.files import atomic_file
from fldet.inference.folder import read_lines

COLUMNS = (
    *("image", "frame", "width", "height", "label", "score"),
    *("xmin", "ymin", "xmax", "ymax"),
)


def write_csv(lines: Sequence[Path], out: Path, classes: Sequence[str]) -> tuple[Path]:
    """Writes ``boxes.csv``: a line for each box, one without a box for an image without any.

    Corners are in pixels from 0; ``frame`` is the number of a video's frame.
    """
    del classes
    path = out / "boxes.csv"
    with atomic_file(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for line in (line for one in lines for line in read_lines(one)):
            file_name = line["file"].encode(errors="backslashreplace").decode()
            facts = (file_name, line.get("frame", ""), line["width"], line["height"])
            columns = (line["names"], line["scores"], line["boxes"])
            for name, score, box in zip(*columns, strict=True):
                writer.writerow((*facts, name, score, *box))
            if not line["boxes"]:
                writer.writerow((*facts, *[""] * 6))
    return (path,)
