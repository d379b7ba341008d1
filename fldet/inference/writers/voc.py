"""Predictions as a data set in the Pascal VOC format."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

from fldet.inference.writers.pictures import Picture, new_folder, pictures, write_labelled

_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_voc(lines: Sequence[Path], out: Path, classes: Sequence[str]) -> tuple[Path]:
    """Writes ``voc/``: ``JPEGImages``, ``Annotations`` and a list of all images.

    Corners are whole pixels that count from 1, as in VOC's own files.
    """
    with new_folder(out / "voc") as folder:
        images, labels = folder / "JPEGImages", folder / "Annotations"
        names = folder / "ImageSets" / "Main" / "train.txt"
        for path in (images, labels, names.parent):
            path.mkdir(parents=True)
        with open(names, "w", encoding="utf-8", errors="surrogateescape") as file:
            for name in write_labelled(pictures(lines), images, labels, ".xml", _xml):
                file.write(f"{name}\n")
        # by which CVAT and Datumaro know classes that are not VOC's own
        text = "".join(f"{name}:::\n" for name in classes)
        (folder / "labelmap.txt").write_text(text, encoding="utf-8")
    return (out / "voc",)


def _xml(one: Picture) -> str:
    root = ElementTree.Element("annotation")
    _add(root, "filename", Path(one.name).name)
    size = SubElement(root, "size")
    for key, value in (("width", one.width), ("height", one.height), ("depth", 3)):
        _add(size, key, value)
    for box in one.boxes:
        node = SubElement(root, "object")
        _add(node, "name", box.name)
        _add(node, "difficult", 0)
        _add(node, "score", box.score)
        place = SubElement(node, "bndbox")
        x1, y1, x2, y2 = (round(value) + 1 for value in box.corners)
        corners = {"xmin": x1, "ymin": y1, "xmax": max(x2, x1 + 1), "ymax": max(y2, y1 + 1)}
        for key, value in corners.items():
            _add(place, key, value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(parent: ElementTree.Element, key: str, value: object) -> None:
    SubElement(parent, key).text = _NO_XML.sub("_", str(value))
