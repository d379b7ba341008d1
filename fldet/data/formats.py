"""What kind of data set lies at a path: COCO, Roboflow's COCO, Pascal VOC or YOLO.

Only the path itself and folders with the usual names below it are looked at; the result names, for
each split, the keywords of the data set class that reads it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fldet.annotations import has_image, id_of, read_annotations
from fldet.data.yolo import place, read_data_yaml
from fldet.errors import DataError, UsageError, shorten
from fldet.image_files import IMAGE_ENDINGS
from fldet.registry import DATASETS

LOOKED_FOR = """one of
  COCO           a .json file with images, annotations and categories, in PATH or PATH/annotations
  Roboflow COCO  _annotations.coco.json in PATH/train, PATH/valid, PATH/test
  Pascal VOC     PATH/ImageSets/Main/*.txt and PATH/Annotations/*.xml, or .xml files in PATH,
                 PATH/Annotations or PATH/train, PATH/valid, PATH/test
  YOLO           a .yaml file with 'names', and 'train', 'val' or 'test', in PATH"""
SPLIT_FOLDERS = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}
XML_FOLDERS = ("", "Annotations", "annotations", "annotations/xmls", "xml", "xmls")
IMAGE_FOLDERS = ("", "JPEGImages", "images", "Images", "img", "imgs")
ROBOFLOW = "_annotations.coco.json"

_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SAMPLE = 20  # images of a file that are looked for in folders

Options = dict[str, Any]


@dataclass(frozen=True)
class FoundData:
    """A data set that was recognised.

    Attributes:
        format: ``COCO``, ``Roboflow COCO``, ``Pascal VOC`` or ``YOLO``.
        root: folder that the paths in ``splits`` are relative to, absolute.
        splits: ``type`` and keywords of the data set class for ``train``, ``val``, ``test``.
        notes: what was left out, one sentence each.
    """

    format: str
    root: Path
    splits: dict[str, Options]
    notes: list[str] = field(default_factory=list)

    def options(self, split: str) -> Options:
        """Returns all keywords of a split's data set, and ``type``.

        Raises:
            UsageError: there is no such split.
        """
        if split not in self.splits:
            raise UsageError(
                f"{self.root} has no split {split!r}", expected=f"one of: {', '.join(self.splits)}"
            )
        return {"data_root": str(self.root), **self.splits[split]}

    def read(self, split: str) -> dict[str, Any]:
        """Returns the content of a split as a COCO file holds it."""
        options = self.options(split)
        content: dict[str, Any] = DATASETS.get(options["type"]).read(options)
        return content

    def image_folder(self, split: str) -> Path:
        """Returns the folder that the file names in ``read`` are relative to."""
        options = self.options(split)
        folder: Path = DATASETS.get(options["type"]).image_folder(options)
        return folder


def recognise(path: Path) -> FoundData:
    """Returns what lies at ``path``, a folder or an annotation file (.json, .yaml).

    Raises:
        DataError: nothing, more than one thing, or a malformed file.
    """
    path = path.expanduser().absolute()
    if not path.exists():
        raise DataError(f"there is no {path}", expected="the folder of a data set, or its file")
    found = [result for look in (_coco, _roboflow, _voc, _yolo) if (result := look(path))]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{path} looks like {' and like '.join(one.format for one in found)}",
            expected="one format",
            hint="name its file (.json, data.yaml) or a folder that holds one of them only",
        )
    raise _unknown(path)


def _unknown(path: Path) -> DataError:
    """Returns the error that says what was looked for; a folder below may be what is meant."""
    below = sorted(path.iterdir()) if path.is_dir() else []
    hints = [folder for folder in below if folder.is_dir() and _may_be_meant(folder)]
    return DataError(
        f"{path} is no data set that fldet knows",
        expected=LOOKED_FOR,
        hint=f"{hints[0]} looks like one" if hints else "",
    )


def _may_be_meant(folder: Path) -> bool:
    try:
        return any(look(folder) for look in (_roboflow, _voc, _yolo))
    except (DataError, OSError):
        return False


# --- COCO ----------------------------------------------------------------------------------------


def _coco(path: Path) -> FoundData | None:
    if path.is_file():
        files = [path] if path.suffix == ".json" else []
        root = path.parent.parent if path.parent.name == "annotations" else path.parent
    else:
        files = [*sorted(path.glob("*.json")), *sorted(path.glob("annotations/*.json"))]
        files = [file for file in files if not file.name.startswith(_OTHER_TASKS)]
        files = [file for file in files if file.name != ROBOFLOW and _is_coco(file)]
        root = path
    if not files:
        return None
    by_split = _by_split(files)
    splits = {split: _coco_options(root, by_split[split], split) for split in by_split}
    return FoundData("COCO", root, splits)


def _is_coco(file: Path) -> bool:
    text = file.read_text(encoding="utf-8", errors="replace")
    return all(f'"{key}"' in text for key in ("images", "annotations", "categories"))


def _by_split(files: list[Path]) -> dict[str, Path]:
    """Returns the file of each split by the words in the names; one alone is for training."""
    if len(files) == 1:
        return {_split_of(files[0]) or "train": files[0]}
    by_split: dict[str, Path] = {}
    for file in files:
        split = _split_of(file)
        if split is None or split in by_split:
            raise DataError(
                f"{file.parent} has several COCO files: {', '.join(one.name for one in files)}",
                expected="one each with 'train', 'val' and 'test' in its name",
                hint=f"name one file: {files[0]}",
            )
        by_split[split] = file
    return {split: by_split[split] for split in SPLIT_FOLDERS if split in by_split}


def _split_of(file: Path) -> str | None:
    words = re.findall(r"[a-z]+", file.stem.lower())
    return next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), None)


def _coco_options(root: Path, file: Path, split: str) -> Options:
    content = read_annotations(file)
    names = [image.get("file_name") for image in content["images"][:_SAMPLE]]
    folder = _folder_with(names, _image_folders(root, file, split))
    if folder is None:
        raise DataError(
            f"{file}: no folder in {root} has its images, such as {shorten([*names, None][0])}",
            expected="file_name of each image relative to a folder beside the annotation file",
        )
    return _options("fldet.CocoDataset", root, file, folder)


def _image_folders(root: Path, file: Path, split: str) -> Iterable[Path]:
    """Yields folders that may hold images: the usual ones first, then all, three levels deep."""
    usual = [file.stem.rpartition("_")[2], *SPLIT_FOLDERS[split]]
    for name in usual:
        yield from (root / name, root / "images" / name, root / name / "images")
    yield from (file.parent / "images", file.parent, root / "images", root)
    for pattern in ("*/", "*/*/", "*/*/*/"):
        yield from sorted(folder for folder in root.glob(pattern) if folder.is_dir())


def _folder_with(names: list[Any], folders: Iterable[Path]) -> Path | None:
    """Returns the folder that has most of the files, the first of equals; None if none has any."""
    best, most = None, 0
    for folder in folders:
        count = sum(has_image(folder, name) for name in names)
        if count > most:
            best, most = folder, count
        if most == len(names):
            break
    return best


def _options(kind: str, root: Path, file: Path, images: Path) -> Options:
    return {
        "type": kind,
        "ann_file": file.relative_to(root).as_posix(),
        "data_prefix": {"img": images.relative_to(root).as_posix()},
    }


# --- Roboflow, VOC, YOLO -------------------------------------------------------------------------


def _split_folders(path: Path, has: Callable[[Path], bool]) -> dict[str, Path]:
    """Returns the folders of splits that have something."""
    found = {
        split: next((path / name for name in names if has(path / name)), None)
        for split, names in SPLIT_FOLDERS.items()
    }
    return {split: folder for split, folder in found.items() if folder is not None}


def _roboflow(path: Path) -> FoundData | None:
    folders = _split_folders(path, lambda folder: (folder / ROBOFLOW).is_file())
    splits = {
        split: _options("fldet.CocoDataset", path, folder / ROBOFLOW, folder)
        for split, folder in folders.items()
    }
    return FoundData("Roboflow COCO", path, splits) if splits else None


def _voc(path: Path) -> FoundData | None:
    lists = path / "ImageSets" / "Main"
    if lists.is_dir() and (path / "Annotations").is_dir():
        return _voc_lists(path, lists)
    folders = _split_folders(path, _has_xml)
    if not folders:
        here = next((path / name for name in XML_FOLDERS if _has_xml(path / name)), None)
        folders = {"train": here} if here else {}
    if not folders:
        return None
    # The images may lie beside a folder of XML files that is named itself.
    root = path.parent if _has_xml(path) else path
    splits = {split: _xml_options(root, folder) for split, folder in folders.items()}
    return FoundData("Pascal VOC", root, splits)


def _has_xml(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.xml"))


def _voc_lists(path: Path, lists: Path) -> FoundData | None:
    names = {split: split for split in SPLIT_FOLDERS if (lists / f"{split}.txt").is_file()}
    if "train" not in names and (lists / "trainval.txt").is_file():
        names = {"train": "trainval", **names}
    folder = path / "Annotations"
    images = _images_for(folder, path)
    splits = {
        split: _options("fldet.VOCDataset", path, lists / f"{name}.txt", images)
        for split, name in names.items()
    }
    return FoundData("Pascal VOC", path, splits) if splits else None


def _xml_options(root: Path, folder: Path) -> Options:
    return _options("fldet.VOCDataset", root, folder, _images_for(folder, root))


def _images_for(folder: Path, root: Path) -> Path:
    """Returns the folder with an image of the same name as the first XML file.

    Raises:
        DataError: there is none.
    """
    first = min(folder.glob("*.xml"), default=None)
    names = [f"{first.stem}{ending}" for ending in IMAGE_ENDINGS] if first else []
    for images in (folder, *(root / name for name in IMAGE_FOLDERS)):
        if any((images / name).is_file() for name in names):
            return images
    raise DataError(
        f"no image belongs to {first or folder}",
        expected="a file of the same name beside it, or in one of the folders "
        f"{', '.join(name for name in IMAGE_FOLDERS if name)} of {root}",
    )


def _yolo_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix in (".yaml", ".yml") else []
    files = (file for ending in ("yaml", "yml") for file in sorted(path.glob(f"*.{ending}")))
    return [file for file in files if re.search(r"(?m)^names\s*:", file.read_text())]


def _yolo(path: Path) -> FoundData | None:
    files = _yolo_files(path)
    if len(files) > 1:
        raise DataError(
            f"{path} has several YAML files with names: {', '.join(file.name for file in files)}",
            expected="one",
            hint=f"name one file: {files[0]}",
        )
    if not files:
        return None
    file, data = files[0], read_data_yaml(files[0])
    there = {
        split: all(place(data, name) for name in names) for split, names in data.splits.items()
    }
    if not any(there.values()):
        missing = [str(data.root / name) for names in data.splits.values() for name in names]
        raise DataError(
            f"{file}: none of its splits exists: {', '.join(missing) or 'none is given'}",
            expected="'train' and 'val': folders of images relative to the file",
        )
    options = {"type": "fldet.YOLODataset", "ann_file": file.name}
    return FoundData(
        "YOLO",
        file.parent,
        {split: {**options, "split": split} for split, is_there in there.items() if is_there},
        [f"{file.name} names a {s!r} that is not there" for s, ok in there.items() if not ok],
    )


# --- classes -------------------------------------------------------------------------------------


def used_classes(contents: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the classes of all splits in the order of their ids, and placeholders left out.

    Roboflow puts a category before the others that only groups them: it has no boxes, and the
    others name it as their ``supercategory``.
    """
    contents = list(contents)
    by_name: dict[str, Mapping[str, Any]] = {}
    for content in contents:
        for category in sorted(content["categories"], key=lambda one: one["id"]):
            by_name.setdefault(category["name"], category)
    with_boxes = {
        next((c["name"] for c in content["categories"] if c["id"] == number), None)
        for content in contents
        for number in {id_of(one.get("category_id")) for one in content["annotations"]}
    }
    stated = (category.get("supercategory") for category in by_name.values())
    groups = {name for name in stated if isinstance(name, str)}
    is_group = partial(_is_group, groups=groups, with_boxes=with_boxes)
    return (
        tuple(name for name, category in by_name.items() if not is_group(category)),
        tuple(name for name, category in by_name.items() if is_group(category)),
    )


def _is_group(category: Mapping[str, Any], groups: set[Any], with_boxes: set[Any]) -> bool:
    name = category["name"]
    alone = category.get("supercategory") in ("none", None, "")
    return alone and name in groups and name not in with_boxes
