"""Data sets in the YOLO format: ``data.yaml`` and one text file for each image."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from fldet.data.coco import CocoDataset
from fldet.errors import DataError, collect, shorten
from fldet.image_files import IMAGE_ENDINGS, image_size
from fldet.registry import DATASETS

LAYOUT = "data.yaml holds 'names' and folders or lists of images as 'train', 'val', 'test'"
ROW = "a line is 'class cx cy w h' or 'class x1 y1 x2 y2 x3 y3 ...', shares of the image's size"
ALIASES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}

_SLACK = 0.01  # shares of the image's size that rounding may add


@dataclass(frozen=True)
class DataYaml:
    """A data.yaml.

    Attributes:
        path: of the file.
        names: class name by number, from 0.
        splits: what the file gives for ``train``, ``val`` and ``test``, where it does.
        root: folder that those are relative to.
    """

    path: Path
    names: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    root: Path


@DATASETS.register_module()
class YOLODataset(CocoDataset):
    """Images and boxes as YOLO has them.

    The labels of ``.../images/a.jpg`` are in ``.../labels/a.txt``, or beside the image where no
    folder of its path is called ``images``. An image without such a file has no objects. Polygons
    become the boxes around them. Sizes of images are read from their heads.

    Args:
        split: ``train``, ``val`` or ``test`` of the file.
        **kwargs: as ``fldet.CocoDataset``; ``ann_file`` is the ``data.yaml``, ``data_prefix`` has
            no effect.

    Raises:
        DataError: a file is missing or malformed; the message names it and the line.
    """

    reads_coco_file: ClassVar[bool] = False

    def __init__(self, *, split: str = "train", **kwargs: Any) -> None:
        self.split = split
        super().__init__(**{**kwargs, "data_prefix": {}})

    @classmethod
    def image_folder(cls, options: Mapping[str, Any]) -> Path:
        """Returns the folder of ``data.yaml``: file names of images are relative to it."""
        return cls.annotation_file(options).parent

    @classmethod
    def class_names(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the ``names`` of ``data.yaml``."""
        return read_data_yaml(cls.annotation_file(options)).names

    @classmethod
    def read(
        cls, options: Mapping[str, Any], faults: list[DataError] | None = None
    ) -> dict[str, Any]:
        """Returns the content of the label files as a COCO file holds it; ids count from 1."""
        data = read_data_yaml(cls.annotation_file(options))
        images = image_files(data, options.get("split", "train"))
        found = collect(lambda path: (path, *_read_labels(path, data)), images, faults)
        return _content(data, [*found])

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "split": self.split}

    def load_data_list(self) -> list[dict[str, Any]]:
        """Returns one entry for each image: path, id, size in pixels and instances."""
        self.data_prefix = {"img": str(Path(self.ann_file).parent)}
        return super().load_data_list()


def read_data_yaml(path: Path) -> DataYaml:
    """Returns the content of a ``data.yaml``, checked.

    Raises:
        DataError: no such file, not YAML, no names, or a split that is neither text nor a list.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"annotation file not found: {path}", expected=LAYOUT) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}", expected=LAYOUT) from None
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise DataError(f"{path}:{line}: not YAML", expected=LAYOUT) from None
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds no names", expected=LAYOUT)
    return DataYaml(path, _names(content, path), _splits(content, path), _root(content, path))


def _names(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, Mapping) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(
            f"{path}: 'names' is {shorten(names)}",
            expected="a list of names, or names by number: 0, 1, 2, ...",
        )
    texts = tuple(str(name) for name in names)
    different, stated = len(set(texts)), content.get("nc", len(texts))
    if different < len(texts) or stated != len(texts):
        raise DataError(
            f"{path}: {len(texts)} names, {different} different ones, and nc is {stated}",
            expected="each class has its own name, and nc is their number",
        )
    return texts


def _splits(content: Mapping[str, Any], path: Path) -> dict[str, tuple[str, ...]]:
    splits = {}
    for split, keys in ALIASES.items():
        given = next((content[key] for key in keys if content.get(key)), None)
        if given is None:
            continue
        places = given if isinstance(given, list) else [given]
        if not all(isinstance(place, str) for place in places):
            raise DataError(f"{path}: {split!r} is {shorten(given)}", expected=LAYOUT)
        splits[split] = tuple(places)
    return splits


def _root(content: Mapping[str, Any], path: Path) -> Path:
    """Returns ``path`` of the file if there is such a folder, else the folder of the file.

    What the key names is a folder on the machine that wrote it, as a rule.
    """
    folder = path.parent / str(content.get("path") or "")
    return folder if folder.is_dir() else path.parent


def place(data: DataYaml, name: str) -> Path | None:
    """Returns the folder or list that a split names, None if there is none.

    Roboflow writes ``../train/images`` for a folder that lies beside ``data.yaml``.
    """
    found = (data.root / name, data.root / name.removeprefix("../"))
    return next((Path(os.path.normpath(path)) for path in found if path.exists()), None)


def image_files(data: DataYaml, split: str) -> list[Path]:
    """Returns the images of a split, sorted by name.

    Raises:
        DataError: the file has no such split, its folder or list is missing, or has no image.
    """
    if split not in data.splits:
        raise DataError(
            f"{data.path} has no {split!r}",
            expected=f"one of: {', '.join(data.splits) or 'train, val, test'}",
        )
    files: set[Path] = set()
    for name in data.splits[split]:
        path = place(data, name)
        if path is None:
            raise DataError(
                f"{data.path}: {split} is {name!r}, and there is no {data.root / name}",
                expected="a folder of images, or a list of them, relative to data.yaml or to "
                "the folder that it gives as 'path'",
            )
        files |= set(_folder(path) if path.is_dir() else _list(path))
    if not files:
        raise DataError(f"{data.path}: {split} has no image", expected="at least one")
    return sorted(files)


def _folder(path: Path) -> Iterable[Path]:
    return (file for file in path.rglob("*") if file.suffix.lower() in IMAGE_ENDINGS)


def _list(path: Path) -> Iterable[Path]:
    """Yields the images of a list; names in it are relative to it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        file = Path(os.path.normpath(path.parent / line.strip()))
        if not file.is_file():
            raise DataError(f"{path}:{number}: there is no image {file}", expected="a file")
        yield file


def label_file(image: Path) -> Path:
    """Returns where the labels of an image are, whether there are any or not."""
    parts = list(image.parts)
    folders = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read_labels(image: Path, data: DataYaml) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """Returns (width, height) of an image, and its annotations without ids."""
    size, file = image_size(image), label_file(image)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return size, []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}", expected=ROW) from None
    rows = ((number, line.split()) for number, line in enumerate(lines, start=1))
    return size, [_annotation(row, size, data, f"{file}:{n}") for n, row in rows if row]


def _annotation(
    row: list[str], size: tuple[int, int], data: DataYaml, where: str
) -> dict[str, Any]:
    try:
        label, values = int(float(row[0])), [float(text) for text in row[1:]]
    except (ValueError, OverflowError):
        raise DataError(f"{where}: not numbers: {shorten(' '.join(row))}", expected=ROW) from None
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise DataError(f"{where}: {len(row)} numbers", expected=ROW)
    if not 0 <= label < len(data.names):
        raise DataError(
            f"{where}: class {row[0]}, and {data.path} has {len(data.names)} names",
            expected=f"0 to {len(data.names) - 1}",
        )
    if not all(-_SLACK <= value <= 1 + _SLACK for value in values):  # NaN is not either
        raise DataError(f"{where}: not all shares are from 0 to 1", expected=ROW)
    box = _box(values, size)
    return {"category_id": label + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}


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


def _content(
    data: DataYaml, found: list[tuple[Path, tuple[int, int], list[dict[str, Any]]]]
) -> dict[str, Any]:
    folder = data.path.absolute().parent
    images = [
        {
            "id": number,
            "file_name": Path(os.path.relpath(path.absolute(), folder)).as_posix(),
            "width": width,
            "height": height,
        }
        for number, (path, (width, height), _) in enumerate(found, start=1)
    ]
    annotations = [
        {"image_id": number, **one}
        for number, (_, _, entries) in enumerate(found, start=1)
        for one in entries
    ]
    return {
        "images": images,
        "annotations": [{"id": number, **one} for number, one in enumerate(annotations, start=1)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(data.names, start=1)],
    }
