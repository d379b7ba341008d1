"""Data sets in the YOLO format: a file with class names, and a text file for each image."""

import logging
import os
from collections.abc import Iterator, Mapping
from functools import partial
from os.path import isfile  # unlike pathlib's, false for names that cannot be
from pathlib import Path
from typing import Any, ClassVar

from fldet.data.coco import CocoDataset, numbered
from fldet.data.folders import files_below, folder_named, images_by_stem, text_lines
from fldet.data.image_files import image_size
from fldet.data.image_lists import listed_content
from fldet.data.yolo_settings import Settings, image_files, read_settings
from fldet.errors import DataError, collect, shorten
from fldet.files import MIB
from fldet.registry import DATASETS

log = logging.getLogger("fldet")

ROW = "a line is 'class cx cy w h' or 'class x1 y1 x2 y2 x3 y3 ...', shares of the image's size"

_SLACK = 0.01  # shares of the image's size that rounding may add
_MOST_OF_LABELS = 4 * MIB  # 400,000 numbers or so
_lines = partial(text_lines, what="label file", expected=ROW, most=_MOST_OF_LABELS)


@DATASETS.register_module()
class YOLODataset(CocoDataset):
    """Images and boxes as YOLO has them.

    The labels of ``.../images/a.jpg`` are in ``.../labels/a.txt``, or beside the image where that
    is not there. An image without such a file has no objects. Polygons become the boxes around
    them, and of poses the box is taken. Sizes of images are read from their heads.

    Args:
        split: ``train``, ``val`` or ``test`` of the file.
        **kwargs: as ``fldet.CocoDataset``; ``ann_file`` is the ``data.yaml``, or a file with the
            names of the classes: ``classes.txt``, ``obj.names``, ``obj.data``,
            ``_darknet.labels``. ``data_prefix`` has no effect.

    Raises:
        DataError: a file is missing or malformed; the message names it and the line.
    """

    reads_coco_file: ClassVar[bool] = False

    def __init__(self, *, split: str = "train", **kwargs: Any) -> None:
        self.split = split
        super().__init__(**{**kwargs, "data_prefix": {}})

    @classmethod
    def image_folder(cls, options: Mapping[str, Any]) -> Path:
        """Returns the folder that file names of images are relative to: of ``data.yaml``.

        Where images lie outside of it, a folder above.
        """
        return read_settings(cls.annotation_file(options)).folder

    @classmethod
    def class_names(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the ``names`` of ``data.yaml``."""
        return read_settings(cls.annotation_file(options)).names

    @classmethod
    def read(
        cls, options: Mapping[str, Any], faults: list[DataError] | None = None
    ) -> dict[str, Any]:
        """Returns the content of the label files as a COCO file holds it; ids count from 1."""
        data = read_settings(cls.annotation_file(options))
        images, labels = image_files(data, options.get("split", "train")), _Labels()
        entries = [*collect(lambda path: _read_labels(path, labels, data), images, faults)]
        labels.tell(data.path)
        return listed_content(numbered(entries, data.names), options)

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "split": self.split}

    def load_data_list(self) -> list[dict[str, Any]]:
        """Returns one entry for each image: path, id, size in pixels and instances."""
        self.data_prefix = {"img": str(self.image_folder(self._options()))}
        return super().load_data_list()


class _Labels:
    """Where the labels of images are, and how many of images and labels lack the other."""

    def __init__(self) -> None:
        self.images = self.without = 0
        self._folders: dict[Path, list[Path]] = {}  # of labels, by that of the images
        self._used: set[Path] = set()

    def of(self, image: Path) -> Path | None:
        """Returns the label file of an image, None if it has none."""
        if image.parent not in self._folders:
            self._folders[image.parent] = label_folders(image.parent)
        files = (folder / f"{image.stem}.txt" for folder in self._folders[image.parent])
        found = next(filter(isfile, files), None)
        self.images += 1
        self.without += found is None
        if found is not None:
            self._used.add(found)
        return found

    def tell(self, name: Path) -> None:
        """Logs how many images have no labels, and how many label files no image."""
        if self.without:
            log.info(
                "%s: %d of %d images have no label file: no objects are in them",
                *(name, self.without, self.images),
            )
        if lonely := sorted(self._lonely()):
            log.warning(
                "%s: %d label files belong to no image, such as %s", name, len(lonely), lonely[0]
            )

    def _lonely(self) -> Iterator[Path]:
        """Yields label files without an image in any folder of images that has its labels there."""
        for folder in {file.parent for file in self._used}:
            sources = [images for images, found in self._folders.items() if folder in found]
            stems = {stem for images in sources for stem in images_by_stem(images)}
            for file in files_below(folder, [".txt"], deepest=0):
                if file not in self._used and file.stem not in stems and _has_a_row(file):
                    yield file


def label_folders(images: Path) -> list[Path]:
    """Returns the folders that may have the labels of the images in a folder, likely ones first.

    ``labels`` in place of the last folder that is called ``images``, of the one before; its own.
    """
    parts = images.parts
    folders = []
    for index in reversed([i for i, part in enumerate(parts) if part.lower() == "images"]):
        labels = folder_named(Path(*parts[:index]), ["labels"])
        if labels is not None:
            folders.append(labels.joinpath(*parts[index + 1 :]))
    return [*folders, images]


def _has_a_row(file: Path) -> bool:
    """Returns whether a text begins as labels do: beside images there may be other texts."""
    try:
        first, *_ = (line.split() for line in _lines(file) if line)
        return len([_number(text) for text in first]) > 4
    except (DataError, ValueError):
        return False


def _read_labels(image: Path, labels: _Labels, data: Settings) -> dict[str, Any]:
    """Returns ``file_name``, ``width``, ``height``, and ``objects`` without ids."""
    size, file = image_size(image), labels.of(image)
    rows = enumerate(map(str.split, _lines(file)), start=1) if file else ()
    objects = [_read_object(row, size, data, f"{file}:{n}") for n, row in rows if row]
    name = Path(os.path.relpath(image, data.folder)).as_posix()
    return {"file_name": name, "width": size[0], "height": size[1], "objects": objects}


def _read_object(
    row: list[str], size: tuple[int, int], data: Settings, where: str
) -> dict[str, Any]:
    try:
        label, *values = map(_number, row)
    except ValueError:
        raise DataError(f"{where}: not numbers: {shorten(' '.join(row))}", expected=ROW) from None
    if not 0 <= label < len(data.names) or label % 1:
        raise DataError(
            f"{where}: class {row[0][:20]}, and {data.path} has {len(data.names)} names",
            expected=f"0 to {len(data.names) - 1}",
        )
    if data.key_points and len(values) == 4 + data.key_points:
        values = values[:4]
    elif len(values) != 4 and (data.key_points or len(values) < 6 or len(values) % 2):
        raise DataError(
            f"{where}: {len(row)} numbers",
            expected=f"5, or {5 + data.key_points} by kpt_shape of {data.path}"
            if data.key_points
            else f"{ROW}; no score behind, and with key points kpt_shape in data.yaml",
        )
    if not all(-_SLACK <= value <= 1 + _SLACK for value in values):  # NaN is not either
        raise DataError(
            f"{where}: not all shares are from 0 to 1",
            expected=ROW,
            hint="pixels are to be divided by width and height of the image",
        )
    name, box = data.names[int(label)], _box(values, size)
    return {"name": name, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}


def _number(text: str) -> float:
    if "_" in text:  # Python takes 1_0 for 10
        raise ValueError(text)
    return float(text)


def _box(values: list[float], size: tuple[int, int]) -> list[float]:
    """Returns x, y, width, height in pixels, of a box (four shares) or a polygon (more)."""
    if len(values) == 4:
        cx, cy, w, h = values
        x, y = cx - w / 2, cy - h / 2
    else:
        x, y = min(values[::2]), min(values[1::2])
        w, h = max(values[::2]) - x, max(values[1::2]) - y
    # Shares are written with six digits or so: thousandths of a pixel mean nothing.
    return [round(v * side, 3) for v, side in zip((x, y, w, h), size * 2, strict=True)]


def has_labels(data: Settings) -> bool:
    """Returns whether one of the images of the first split has labels; looks at a thousand."""
    labels = _Labels()
    return any(labels.of(image) for image in image_files(data, next(iter(data.splits)))[:1000])
