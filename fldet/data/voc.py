"""Data sets in the Pascal VOC format: one XML file for each image."""

import logging
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

from fldet.data.coco import CocoDataset
from fldet.errors import DataError, collect, nearest
from fldet.image_files import IMAGE_ENDINGS, image_size
from fldet.registry import DATASETS

log = logging.getLogger("fldet")

LAYOUT = "<object> holds <name> and <bndbox> with xmin, ymin, xmax, ymax in pixels"
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@DATASETS.register_module()
class VOCDataset(CocoDataset):
    """Images and boxes of XML files as Pascal VOC has them.

    ``ann_file`` is a list of image names (``ImageSets/Main/train.txt``), or a folder of XML files,
    all of which are taken. Pixels count from 1 in the files and from 0 here: 1 is taken off all
    four numbers, as MMDetection does. Difficult objects become ignored boxes. Without ``classes``
    all names of the folder of XML files are used, sorted.

    Args:
        **kwargs: as ``fldet.CocoDataset``; ``data_prefix=dict(img=..., xml=...)`` are the folders
            of images and of XML files. Left out, ``xml`` is the folder that ``ann_file`` names, or
            the nearest ``Annotations`` beside or above it.

    Raises:
        DataError: a file is missing or malformed; the message names it and the line.
    """

    reads_coco_file: ClassVar[bool] = False

    @classmethod
    def class_names(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the names of the objects in all XML files of the folder, sorted."""
        return _class_names(xml_folder(options))

    @classmethod
    def read(
        cls, options: Mapping[str, Any], faults: list[DataError] | None = None
    ) -> dict[str, Any]:
        """Returns the content of the XML files as a COCO file holds it; ids count from 1.

        Difficult objects have ``iscrowd`` 1, the only kind of box that COCO figures ignore. Objects
        of other classes than ``metainfo['classes']``, where it is given, are left out.
        """
        folder, images = xml_folder(options), cls.image_folder(options)
        files = _xml_files(cls.annotation_file(options), folder)
        entries = [*collect(lambda file: _read_xml(file, images), files, faults)]
        given = (options.get("metainfo") or {}).get("classes")
        classes = tuple(given or _class_names(folder, None if faults is None else []))
        if not faults:
            _check_classes(classes, entries, folder)
        return _content(entries, classes)


def xml_folder(options: Mapping[str, Any]) -> Path:
    """Returns the folder of the XML files; ``options`` as in ``VOCDataset.read``."""
    prefix = (options.get("data_prefix") or {}).get("xml")
    if prefix:
        return Path(options.get("data_root") or "", prefix)
    path = VOCDataset.annotation_file(options)
    if path.suffix != ".txt":
        return path
    around = (folder / "Annotations" for folder in path.absolute().parents)
    return next((folder for folder in around if folder.is_dir()), path.parent)


def _class_names(folder: Path, faults: list[DataError] | None = None) -> tuple[str, ...]:
    files = sorted(folder.glob("*.xml"))
    found = collect(lambda file: _names(_parse(file), file), files, faults)
    return tuple(sorted({name for names in found for name in names}))


def _xml_files(path: Path, folder: Path) -> list[Path]:
    """Returns the XML files that a list of names or a folder means.

    Raises:
        DataError: there are none, or not all that the list names.
    """
    if path.is_dir():
        files = sorted(path.glob("*.xml"))
    else:
        files = [folder / f"{name}.xml" for name in _read_list(path)]
        for number, file in enumerate(files, start=1):
            if not file.is_file():
                raise DataError(
                    f"{path}: entry {number} is {file.stem!r}, and there is no {file}",
                    expected=f"an XML file in {folder} for each name in the list",
                )
    if not files:
        raise DataError(f"{path} has no image", expected="names of images, or XML files")
    return files


def _read_list(path: Path) -> list[str]:
    """Returns the names in a list; those of one class have 1, 0 or -1 behind each name."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {path}: {error}", expected="a list of image names, one a line"
        ) from None
    return [re.sub(r"\s+-?[01]$", "", line.strip()) for line in lines if line.strip()]


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        line, column = error.position
        raise DataError(
            f"{file}:{line}: not XML (column {column}): {error.msg.partition(':')[0]}",
            expected=LAYOUT,
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from None


def _names(root: ElementTree.Element, file: Path) -> list[str]:
    """Returns the class of each object."""
    names = [(node.findtext("name") or "").strip() for node in root.findall("object")]
    if "" in names:
        raise _malformed(file, names.index(""), "has no <name>")
    return names


def _read_xml(file: Path, images: Path) -> dict[str, Any]:
    """Returns ``file_name``, ``width``, ``height``, and ``objects`` without ids."""
    root = _parse(file)
    nodes = zip(_names(root, file), root.findall("object"), strict=True)
    objects = [_read_object(node, name, file, i) for i, (name, node) in enumerate(nodes)]
    image = _image_name(file, images, root)
    width, height = _stated_size(root) or image_size(images / image)
    return {"file_name": image, "width": width, "height": height, "objects": objects}


def _read_object(node: ElementTree.Element, name: str, file: Path, index: int) -> dict[str, Any]:
    try:
        texts = [node.findtext(f"bndbox/{corner}") for corner in CORNERS]
        x1, y1, x2, y2 = (_number(text) for text in texts)
        difficult = int(node.findtext("difficult") or 0)
    except (TypeError, ValueError):
        raise _malformed(file, index, "has no box of four numbers") from None
    box = [x1 - 1, y1 - 1, x2 - x1, y2 - y1]
    entry = {"name": name, "bbox": box, "area": box[2] * box[3], "iscrowd": int(difficult > 0)}
    return {**entry, "difficult": 1} if difficult else entry


def _number(text: str | None) -> float:
    value = float(text)  # type: ignore[arg-type]  # None is a TypeError, caught above
    if not math.isfinite(value):
        raise ValueError(text)
    return int(value) if value.is_integer() else value


def _malformed(file: Path, index: int, fault: str) -> DataError:
    """Returns the error for an object, with the line that it begins on."""
    text = file.read_text(encoding="utf-8", errors="replace")
    starts = [match.start() for match in re.finditer(r"<object[\s>]", text)]
    line = text.count("\n", 0, starts[index]) + 1 if index < len(starts) else 1
    return DataError(f"{file}:{line}: object {index + 1} {fault}", expected=LAYOUT)


def _stated_size(root: ElementTree.Element) -> tuple[int, int] | None:
    try:
        width, height = (int(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def _image_name(file: Path, images: Path, root: ElementTree.Element) -> str:
    """Returns the image of an XML file: of the same stem, else the one that it names.

    The stem goes first: images are often renamed together with their XML files, and what
    ``<filename>`` says stays.
    """
    for ending in IMAGE_ENDINGS:
        if (images / f"{file.stem}{ending}").is_file():
            return f"{file.stem}{ending}"
    return (root.findtext("filename") or "").strip() or f"{file.stem}.jpg"


def _check_classes(
    classes: Iterable[str], entries: Iterable[Mapping[str, Any]], folder: Path
) -> None:
    """Raises for a class that no XML file of the folder has, if it looks like a mistake.

    A split may lack a class, and so may the folder where each split has its own.
    """
    missing = set(classes) - {one["name"] for entry in entries for one in entry["objects"]}
    if not missing:
        return
    known = VOCDataset.class_names({"ann_file": str(folder)})
    others = set(known) - set(classes)
    for name in classes:
        if name in known:
            continue
        close = nearest(name, others)
        if close or len(others) == len(known):  # a slip of the pen, or no class of the files at all
            raise DataError(
                f"class {name!r} is in no XML file of {folder}",
                expected=close or f"one of: {', '.join(known)}",
                hint="leave 'classes' out of the config to use all classes of the files",
            )
        log.warning("class %r is in no XML file of %s", name, folder)


def _content(entries: list[dict[str, Any]], classes: tuple[str, ...]) -> dict[str, Any]:
    category_of = {name: number for number, name in enumerate(classes, start=1)}
    annotations = [
        {"image_id": number, "category_id": category_of[one["name"]], **one}
        for number, entry in enumerate(entries, start=1)
        for one in entry["objects"]
        if one["name"] in category_of
    ]
    return {
        "images": [
            {"id": number, **{key: entry[key] for key in ("file_name", "width", "height")}}
            for number, entry in enumerate(entries, start=1)
        ],
        "annotations": [
            {"id": number, **{key: value for key, value in one.items() if key != "name"}}
            for number, one in enumerate(annotations, start=1)
        ],
        "categories": [{"id": number, "name": name} for name, number in category_of.items()],
    }
