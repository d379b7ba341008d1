"""Lists of images that a data set is restricted to, or leaves out.

Two data sets that read the same files, one with only the images of a list and one without them, are
a split of that data: of COCO, VOC and YOLO files alike, and without a change to any of them.
"""

from collections.abc import Iterable, Mapping, Set
from json import dumps
from pathlib import Path
from typing import Any

from fldet.data.annotations import id_of
from fldet.errors import DataError, shorten
from fldet.files import read_json

ONLY, WITHOUT = "only_images", "without_images"  # keywords of a data set

_EXPECTED = 'a JSON list of file names, as the annotations have them: ["a.jpg", "b.jpg"]'


def list_text(names: Iterable[str]) -> str:
    """Returns a list of file names as it is written, one a line; JSON keeps every name exact."""
    return f"{dumps(list(names), indent=0)}\n"


def listed_content(content: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of a COCO file with the images that a data set's lists leave.

    Annotations of an image go with it, classes stay.

    Args:
        content: ``images``, ``annotations`` and ``categories``.
        options: keywords of a data set. ``only_images`` and ``without_images`` are paths of lists,
            relative to ``data_root``; without them the content is returned as it is.

    Raises:
        DataError: a list is missing or malformed, or one of ``only_images`` names no image.
    """
    for key, kept in ((ONLY, True), (WITHOUT, False)):
        if file := options.get(key):
            path = Path(options.get("data_root") or "", file)
            content = part_of(content, read_names(path), listed=kept)
            if kept and not content["images"]:
                raise DataError(
                    f"none of the images that {path} lists is in the data",
                    expected=_EXPECTED,
                    hint="fldet init sets images aside anew, for a new config",
                )
    return dict(content)


def part_of(content: Mapping[str, Any], names: Set[str], *, listed: bool) -> dict[str, Any]:
    """Returns the content of a COCO file with the images of some file names, or with the others."""
    images, gone = [], set()
    for image in content["images"]:
        name = image.get("file_name")
        if (isinstance(name, str) and name in names) == listed:
            images.append(image)
        else:
            gone.add(id_of(image["id"]))
    annotations = [one for one in content["annotations"] if id_of(one.get("image_id")) not in gone]
    return {**content, "images": images, "annotations": annotations}


def read_names(path: Path) -> frozenset[str]:
    """Returns the file names in a list; one that is missing or malformed is a DataError."""
    names = read_json(path, "list of images", expected=_EXPECTED)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path} is {shorten(names)}", expected=_EXPECTED)
    return frozenset(names)
