"""Finds out which data set lies at a path."""

import os
from os.path import isdir  # unlike pathlib's, false for names that cannot be
from pathlib import Path

from fldet.data.folders import listing
from fldet.data.foreign import foreign_format
from fldet.data.formats.coco import find_coco, find_roboflow
from fldet.data.formats.found import FoundData
from fldet.data.formats.imported import find_imported
from fldet.data.formats.voc import find_voc
from fldet.data.formats.yolo import find_yolo, find_yolo_without_yaml
from fldet.data.imported.table import parse_columns
from fldet.errors import DataError, UsageError
from fldet.files import require_data

LOOKED_FOR = """one of
  COCO           a .json file with images, annotations and categories, in PATH or PATH/annotations
  Roboflow COCO  _annotations.coco.json in PATH/train, PATH/valid, PATH/test
  Pascal VOC     PATH/ImageSets/Main/*.txt and PATH/Annotations/*.xml, or .xml files in PATH,
                 PATH/Annotations or PATH/train, PATH/valid, PATH/test
  YOLO           a .yaml file with 'names', and 'train', 'val' or 'test', in PATH; or classes.txt,
                 obj.data, obj.names or _darknet.labels with images and labels
  CVAT           .xml of 'CVAT for images 1.1'
  Label Studio   .json, exported as JSON or JSON-MIN
  labelme        a .json file for each image
  KITTI          label_2/*.txt
  CSV            a line for each box; columns such as filename, label, xmin, ymin, xmax, ymax"""


def recognise(path: Path, images: Path | None = None, columns: str | None = None) -> FoundData:
    """Returns what lies at a path: a folder, or a file (.json, .yaml, or with names of classes).

    The folder of the images, of all but YOLO, is looked for where ``images`` is None. ``columns``
    of a CSV, where their names do not tell: ``image=file label=kind xmin=left ...``.

    Raises:
        DataError: nothing, more than one thing, or a malformed file.
        UsageError: ``images`` is no folder, or the format names its images itself.
    """
    require_data(path)
    path = Path(os.path.abspath(path.expanduser()))
    if images is not None:
        images = Path(os.path.abspath(images.expanduser()))
        if not isdir(images):
            raise UsageError(f"folder of images not found: {images}", expected="a folder")
    looks = [find(path, images) for find in (find_coco, find_roboflow, find_voc)]
    found = [one for one in (*looks, find_yolo(path)) if one]
    if not found and (listed := find_yolo_without_yaml(path)):
        found = [listed]
    if not found and (imported := find_imported(path, images, parse_columns(columns or ""))):
        found = [imported]
    if len(found) > 1:
        raise DataError(
            f"{path} looks like {' and like '.join(one.format for one in found)}",
            expected="one format",
            hint="name its file (.json, data.yaml) or a folder that holds one of them only",
        )
    if not found:
        raise _unknown(path)
    if columns and found[0].format != "CSV":
        raise UsageError(f"{path} is {found[0].format}", expected="--columns with a CSV only")
    if images is not None and found[0].format == "YOLO":
        raise UsageError(
            f"the YOLO data at {path} names its images itself", expected="no --images FOLDER"
        )
    return found[0]


def _unknown(path: Path) -> DataError:
    """Returns the error that says what lies there; a folder below may be what is meant."""
    hints = [one for one in listing(path) if one.is_dir() and _may_be_meant(one)]
    other = None if hints else foreign_format(path)
    if other is not None and not other.read_as:
        return DataError(
            f"{path} holds {other.name}, which fldet does not read",
            expected=LOOKED_FOR,
            hint=other.advice,
        )
    return DataError(
        f"{path} is no data set that fldet knows",
        expected=LOOKED_FOR,
        hint=f"{hints[0]} looks like one" if hints else "",
    )


def _may_be_meant(folder: Path) -> bool:
    try:
        finders = (find_roboflow, find_voc, find_yolo, find_yolo_without_yaml)
        found = [find(folder) for find in finders]  # an error counts, whatever another finds
        return any(found)
    except DataError:
        return False
