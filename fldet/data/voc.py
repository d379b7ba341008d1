"""Data sets in the Pascal VOC format: one XML file for each image."""

import logging
import re
from collections.abc import Iterable, Mapping
from os.path import isfile  # unlike pathlib's, false for names that cannot be
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

from fldet.data.coco import CocoDataset, numbered
from fldet.data.folders import files_below, folder_named, images_by_stem, text_lines
from fldet.data.image_files import IMAGE_ENDINGS, image_size
from fldet.data.image_lists import listed_content
from fldet.data.markup import read_xml, xml_text
from fldet.errors import DataError, collect, nearest, shorten
from fldet.registry import DATASETS

log = logging.getLogger("fldet")

LAYOUT = "<object> holds <name> and <bndbox> with xmin, ymin, xmax, ymax in pixels"
LIST, LIST_LAYOUT = "list of images", "names of images, one a line"
CORNERS, SIDES = ("xmin", "ymin", "xmax", "ymax"), ("width", "height")
MOST_PIXELS = 10**9
DIFFICULT = ("true", "yes", "y", "difficult")
NOT_DIFFICULT = ("", "false", "no", "n", "none", "null", "unspecified", "unknown", "easy")
XML_FOLDERS = ("Annotations/xmls", "Annotations", "Annotation", "xmls", "xml", "labels")
IMAGE_FOLDERS = ("JPEGImages", "images", "image", "img", "imgs")

_MARK = re.compile(r"\s+-?[01]$")  # behind the name in the list of a class
_ENDING = re.compile(rf"(?i)({'|'.join(map(re.escape, (*IMAGE_ENDINGS, '.xml')))})$")
# Up to the last folder that is known to hold images or XML files.
_FOLDERS = re.compile(rf"(?i)^(.*/)?({'|'.join((*IMAGE_FOLDERS, *XML_FOLDERS))})/")


@DATASETS.register_module()
class VOCDataset(CocoDataset):
    """Images and boxes of XML files as Pascal VOC has them.

    ``ann_file`` is a list of image names (``ImageSets/Main/train.txt``), or a folder of XML files,
    all of which are taken, those in its folders too. Pixels count from 1 in the files and from 0
    here: 1 is taken off all four numbers, as MMDetection does. Difficult objects become ignored
    boxes. Without ``classes`` all names of the folder of XML files are used, sorted.

    Args:
        **kwargs: as ``fldet.CocoDataset``; ``data_prefix=dict(img=..., xml=...)`` are the folders
            of images and of XML files. Left out, ``xml`` is the folder that ``ann_file`` names, or
            the nearest ``Annotations`` or the like beside or above it.

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
        folder, images = xml_folder(options), _Images(cls.image_folder(options))
        files = _xml_files(cls.annotation_file(options), folder)
        entries = [*collect(lambda file: _read_xml(file, folder, images), files, faults)]
        given = (options.get("metainfo") or {}).get("classes")
        classes = tuple(given or _class_names(folder, None if faults is None else []))
        if not faults:
            _check_classes(classes, entries, folder)
        return listed_content(numbered(entries, classes), options)


class _Images:
    """The images of a folder and of those in it, each listed once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[Path, dict[str, str]] = {}

    def named(self, stem: Path) -> Path | None:
        """Returns the image of a name without ending, both relative to the folder."""
        if stem.parent not in self._listed:
            self._listed[stem.parent] = images_by_stem(self.folder / stem.parent)
        name = self._listed[stem.parent].get(stem.name)
        return stem.parent / name if name else None


def xml_folder(options: Mapping[str, Any]) -> Path:
    """Returns the folder of the XML files; ``options`` as in ``VOCDataset.read``."""
    prefix = (options.get("data_prefix") or {}).get("xml")
    if prefix:
        return Path(options.get("data_root") or "", prefix)
    path = VOCDataset.annotation_file(options)
    if path.is_dir():
        return path
    for folder in path.absolute().parents[:4]:
        if found := folder_named(folder, XML_FOLDERS):
            return found
        if files_below(folder, [".xml"], deepest=0):
            return folder
    return path.parent


def _class_names(folder: Path, faults: list[DataError] | None = None) -> tuple[str, ...]:
    files = files_below(folder, [".xml"])
    found = collect(lambda file: _names(_parse(file), file), files, faults)
    return tuple(sorted({name for names in found for name in names}))


def _xml_files(path: Path, folder: Path) -> list[Path]:
    """Returns the XML files that a list of names or a folder means, each once, at least one."""
    if path.is_dir():
        files = files_below(path, [".xml"])
    else:
        files = []
        for number, line in enumerate(text_lines(path, LIST, expected=LIST_LAYOUT), start=1):
            file = _named_xml(line, folder)
            if file is not None:
                files.append(file)
            elif line:
                raise DataError(
                    f"{path}:{number}: {shorten(line)}, and no XML file of {folder} has that name",
                    expected=f"an XML file in {folder} for each name in the list",
                )
    if not files:
        raise DataError(f"{path} has no image", expected="names of images, or XML files")
    if twice := len(files) - len(set(files)):
        log.warning("%s: %d lines name an image once more; each is taken once", path, twice)
    return list(dict.fromkeys(files))


def _named_xml(line: str, folder: Path) -> Path | None:
    """Returns the XML file that a line of a list means, None if there is no such file.

    A line is the name of an image, with or without its ending or folder (``cam2/0001``,
    ``JPEGImages/0001.jpg``); image and XML file, as PaddleDetection writes them; or, in the list of
    a class, a name and 1, 0 or -1. The whole line goes first: a name may end in a digit too.
    """
    pair = line.rpartition(" ")[2] if line.lower().endswith(".xml") else ""
    for text in (line, _MARK.sub("", line), pair):
        for name in dict.fromkeys((text, _FOLDERS.sub("", text.replace("\\", "/")))):
            for stem in dict.fromkeys((name, _ENDING.sub("", name))):
                file = folder / f"{stem}.xml"
                if stem and folder in file.parents and ".." not in file.parts and isfile(file):
                    return file
    return None


def _parse(file: Path) -> ElementTree.Element:
    root = read_xml(file, expected=LAYOUT)
    if root.tag != "annotation":
        raise DataError(
            f"{file}: not of Pascal VOC: the file is a {shorten(root.tag)}",
            expected=f"an <annotation>, in which each {LAYOUT}",
        )
    return root


def _names(root: ElementTree.Element, file: Path) -> list[str]:
    """Returns the class of each object."""
    names = [(node.findtext("name") or "").strip() for node in root.iter("object")]
    if "" in names:
        raise _malformed(file, names.index(""), "has no <name>")
    return names


def _read_xml(file: Path, folder: Path, images: _Images) -> dict[str, Any]:
    """Returns ``file_name``, ``width``, ``height``, and ``objects`` without ids."""
    root = _parse(file)
    nodes = zip(_names(root, file), root.iter("object"), strict=True)
    objects = [_read_object(node, name, file, i) for i, (name, node) in enumerate(nodes)]
    image = _image_name(file.relative_to(folder), images, root)
    width, height = _stated_size(root) or _size_of(images.folder / image, file)
    return {"file_name": image, "width": width, "height": height, "objects": objects}


def _read_object(node: ElementTree.Element, name: str, file: Path, index: int) -> dict[str, Any]:
    try:
        texts = [node.findtext(f"bndbox/{corner}") for corner in CORNERS]
        x1, y1, x2, y2 = (_number(text) for text in texts)
    except (TypeError, ValueError):
        raise _malformed(file, index, "has no box of four numbers") from None
    difficult = _is_difficult(node.findtext("difficult") or "", file, index)
    box = [x1 - 1, y1 - 1, x2 - x1, y2 - y1]
    entry = {"name": name, "bbox": box, "area": box[2] * box[3], "iscrowd": int(difficult)}
    return {**entry, "difficult": 1} if difficult else entry


def _number(text: str | None) -> float:
    value = float(text)  # type: ignore[arg-type]  # None is a TypeError, caught above
    if not abs(value) < MOST_PIXELS or "_" in str(text):  # NaN is not less either
        raise ValueError(text)
    return int(value) if value.is_integer() else value


def _is_difficult(text: str, file: Path, index: int) -> bool:
    """Returns what ``<difficult>`` says; tools write numbers and words, and leave it empty."""
    word = text.strip().lower()
    if word in DIFFICULT:
        return True
    if word in NOT_DIFFICULT:
        return False
    try:
        return _number(word) > 0
    except ValueError:
        fault = f"has <difficult>{shorten(text)}</difficult>"
        raise _malformed(file, index, fault, "0 or 1, or a word for them") from None


def _malformed(file: Path, index: int, fault: str, expected: str = LAYOUT) -> DataError:
    """Returns the error for an object, with the line that it begins on."""
    text = xml_text(file, expected=LAYOUT)
    starts = [match.start() for match in re.finditer(r"<(?:\w+:)?object[\s>]", text)]
    line = text.count("\n", 0, starts[index]) + 1 if index < len(starts) else 1
    return DataError(f"{file}:{line}: object {index + 1} {fault}", expected=expected)


def _stated_size(root: ElementTree.Element) -> tuple[int, int] | None:
    try:
        width, height = (int(_number(root.findtext(f"size/{side}"))) for side in SIDES)
    except (TypeError, ValueError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _size_of(image: Path, file: Path) -> tuple[int, int]:
    if not isfile(image):
        raise DataError(f"{file} says no size of its image, and there is no {image}")
    return image_size(image)


def _image_name(file: Path, images: _Images, root: ElementTree.Element) -> str:
    """Returns the image of an XML file: of the same stem, else the one that it names.

    The stem goes first: images are often renamed together with their XML files, and what
    ``<filename>`` says stays. Both are looked for in the folder that the XML file is in; ``file``
    is relative to that of all XML files.
    """
    said = (root.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    said = said if said.strip(".") else f"{file.stem}.jpg"
    of_the_stem = images.named(file.with_suffix("")) or images.named(file.parent / Path(said).stem)
    return (of_the_stem or file.parent / said).as_posix()


def _check_classes(
    classes: Iterable[str], entries: Iterable[Mapping[str, Any]], folder: Path
) -> None:
    """Refuses a class that no XML file of the folder has, if it looks like a mistake.

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
