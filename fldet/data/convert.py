"""Other formats as COCO files."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from fldet.data.coco import without_unusable
from fldet.data.formats.recognise import recognise
from fldet.errors import UsageError
from fldet.files import write_atomically

log = logging.getLogger("fldet")


@dataclass(frozen=True)
class Converted:
    """A COCO file that was written."""

    path: Path
    image_folder: Path  # that its file names are relative to
    images: int
    boxes: int  # in it, difficult ones included
    left_out: int  # boxes without area or outside their image


def convert(
    path: Path,
    out: Path,
    split: str | None = None,
    images: Path | None = None,
    columns: str | None = None,
) -> Converted:
    """Writes a split of data in another format as a new COCO file and returns what is in it.

    Difficult boxes of VOC become ``iscrowd`` 1 with ``difficult`` 1 beside it. The split may be
    left out where there is one only; ``images`` and ``columns`` are as for ``recognise``.
    """
    if out.exists():
        raise UsageError(f"{out} exists", expected="a new file", hint="choose another name")
    found = recognise(path, images, columns)
    if found.format.endswith("COCO"):
        raise UsageError(f"{path} is in COCO format already", expected="another format")
    if split is None and len(found.splits) > 1:
        raise UsageError(
            f"{path} has the splits {', '.join(found.splits)}",
            expected="one of them",
            hint=f"add --split {next(iter(found.splits))}",
        )
    split = split or next(iter(found.splits))
    for note in found.notes:
        log.warning("%s", note)
    content = found.read(split)
    usable = without_unusable(content)
    write_atomically(out, json.dumps(usable) + "\n")
    boxes = len(usable["annotations"])
    return Converted(
        path=out,
        image_folder=found.image_folder(split),
        images=len(usable["images"]),
        boxes=boxes,
        left_out=len(content["annotations"]) - boxes,
    )
