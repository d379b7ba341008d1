"""Shapes: a synthetic detection data set, drawn on the spot, on which a small RetinaNet learns.

**An object** is a closed outline of one of six classes, filled without a hole (except the ring's),
in one colour: disc (any ellipse up to 1.5:1), box (any rectangle up to 1.8:1), triangle, star (five
points), ring (wall between 0.35 and 0.5 of the radius), cross (four equal arms). It is upright but
for a tilt of up to 20 degrees and of any size. Each class has a range of hues that overlaps with
the next ones, as real objects are known by colour and by shape. Up to 60 % of an object may be
hidden by others or by the border; its box is that of the whole shape, clipped to the image, and its
area that of its pixels inside the image.

**A distractor** looks like one and is not: thin outlines, rings with a gap, crosses that lack an
arm, half discs and smooth blobs, in any colour, so also in those of the classes. It is never hidden
by more than 15 %, so that one can see what is wrong.

**A crowd** (``iscrowd=1``) is a cluster of objects too tiny to be counted, in one region.

Everything is a function of (seed, split, index of the image): image i stays the same whatever the
number of images.
"""

import itertools
import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fldet.data.shapes.scene import CLASSES, SPLITS, draw_image
from fldet.errors import DataError
from fldet.files import make_folder

__all__ = ["GENERATOR_VERSION", "generate_shapes"]

GENERATOR_VERSION = 1  # raise it with every change of a pixel or a box


@dataclass(frozen=True)
class _Params:
    """What a data set is drawn from; recorded in ``info`` of its annotation files."""

    num_train: int
    num_val: int
    image_size: int
    seed: int
    version: int = GENERATOR_VERSION

    def __post_init__(self) -> None:
        lowest = {"num_train": 1, "num_val": 1, "image_size": 64, "seed": 0}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise DataError(
                    f"Shapes cannot be drawn with {name}={getattr(self, name)}",
                    expected=f"{name} >= {low}",
                )


def generate_shapes(
    root: Path | str,
    *,
    num_train: int = 1600,
    num_val: int = 200,
    image_size: int = 160,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Path:
    """Returns ``root`` after drawing Shapes there in the layout of COCO 2017.

    The files are written beside ``root`` and renamed whole, so several processes may call this at
    once and an interruption leaves no half data set. A data set drawn with the same parameters is
    reused as it is. ``image_size`` is the longer side in pixels; the shorter one is three quarters
    of it, or equal. ``on_progress`` is called with (images done, images in total) after each image.

    Raises:
        DataError: a parameter is out of range, or ``root`` holds something else.
    """
    root = Path(root)
    params = _Params(num_train, num_val, image_size, seed)
    if _is_taken(root):
        _check_recorded(root, params)
        return root
    partial = root.parent / f".{root.name}.{uuid.uuid4().hex}.partial"
    try:
        _write_dataset(partial, params, on_progress)
        _rename_unless_taken(partial, root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _check_recorded(root, params)
    return root


def _is_taken(root: Path) -> bool:
    return root.exists() and (not root.is_dir() or any(root.iterdir()))


def _rename_unless_taken(partial: Path, root: Path) -> None:
    try:
        partial.rename(root)  # replaces an empty folder only
    except OSError:
        if not _is_taken(root):  # else another process was faster, and drew the same
            raise


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def _check_recorded(root: Path, params: _Params) -> None:
    try:
        info = json.loads(_annotation_file(root, "val").read_text(encoding="utf-8"))["info"]
        recorded = info["parameters"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{root} exists and is not a Shapes data set",
            expected="a new folder, or one that fldet drew",
            hint="choose another data_root",
        ) from None
    if recorded != asdict(params):
        raise DataError(
            f"{root} holds Shapes drawn with {recorded}",
            expected=f"{asdict(params)}",
            hint=f"choose another data_root, or remove it: rm -r {root}",
        )


def _write_dataset(root: Path, params: _Params, on_progress: Callable[[int, int], None]) -> None:
    counts = {"train": params.num_train, "val": params.num_val}
    done = itertools.count(1)
    make_folder(root / "annotations")
    for split in SPLITS:
        folder = root / f"{split}2017"
        folder.mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(1, counts[split] + 1):
            drawing = draw_image(params.seed, split, number - 1, params.image_size)
            name, (height, width) = f"{number:012d}.jpg", drawing.image.shape[:2]
            _write_jpeg(folder / name, drawing.image)
            images.append({"id": number, "file_name": name, "height": height, "width": width})
            annotations += (
                {"id": index, "image_id": number, **one}
                for index, one in enumerate(drawing.annotations, start=len(annotations) + 1)
            )
            on_progress(next(done), sum(counts.values()))
        content = {**_heading(params, split), "images": images, "annotations": annotations}
        _annotation_file(root, split).write_text(json.dumps(content), encoding="utf-8")


def _write_jpeg(path: Path, image: NDArray[np.uint8]) -> None:
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    path.write_bytes(encoded.tobytes())  # unlike cv2.imwrite, raises when the disk is full


def _heading(params: _Params, split: str) -> dict[str, Any]:
    return {
        "info": {
            "description": f"Shapes, {split} split, drawn by fldet.data.shapes.files",
            "version": str(GENERATOR_VERSION),
            "parameters": asdict(params),
        },
        "licenses": [],
        "categories": [
            {"id": c.category_id, "name": c.name, "supercategory": "shape"} for c in CLASSES
        ],
    }
