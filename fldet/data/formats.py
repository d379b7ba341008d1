"""What kind of data set lies at a path: COCO, Roboflow's COCO, Pascal VOC or YOLO.

Only the path itself and folders with the usual names below it are looked at; the result names, for
each split, the keywords of the data set class that reads it.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from os.path import isdir, isfile  # unlike pathlib's, false for names that cannot be
from pathlib import Path
from typing import Any

from fldet.data.annotations import group_ids, has_image, id_of, read_annotations
from fldet.data.folders import (
    SPLITS,
    files_below,
    folder_named,
    folders_below,
    images_by_stem,
    listing,
    split_folders,
    split_named,
    split_of,
    text_lines,
)
from fldet.data.foreign import foreign_format, xml_root
from fldet.data.voc import IMAGE_FOLDERS, LIST, LIST_LAYOUT, XML_FOLDERS
from fldet.data.yolo import has_labels
from fldet.data.yolo_settings import NAME_FILES, Settings, has_images, place, read_settings
from fldet.errors import DataError, UsageError, shorten
from fldet.files import MOST_OF_ANNOTATIONS, MOST_OF_SETTINGS, read_bytes
from fldet.registry import DATASETS

LOOKED_FOR = """one of
  COCO           a .json file with images, annotations and categories, in PATH or PATH/annotations
  Roboflow COCO  _annotations.coco.json in PATH/train, PATH/valid, PATH/test
  Pascal VOC     PATH/ImageSets/Main/*.txt and PATH/Annotations/*.xml, or .xml files in PATH,
                 PATH/Annotations or PATH/train, PATH/valid, PATH/test
  YOLO           a .yaml file with 'names', and 'train', 'val' or 'test', in PATH; or classes.txt,
                 obj.data, obj.names or _darknet.labels with images and labels"""
ROBOFLOW = "_annotations.coco.json"

_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
_LISTS = ("ImageSets/Main", "ImageSets", "")  # folders with lists of images
_SAMPLE = 20  # images or XML files that are looked for or into
_SHOWN = 5  # names in a note

Options = dict[str, Any]


@dataclass(frozen=True)
class FoundData:
    """A data set that was recognised.

    Attributes:
        format: ``COCO``, ``Roboflow COCO``, ``Pascal VOC`` or ``YOLO``.
        root: folder that the paths in ``splits`` are relative to, absolute.
        splits: ``type`` and keywords of the data set class for ``train``, ``val``, ``test``.
        notes: what is left out or odd, one sentence each.
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


def recognise(path: Path, images: Path | None = None) -> FoundData:
    """Returns what lies at ``path``.

    Args:
        path: a folder, or a file (.json, .yaml, or with the names of classes).
        images: folder of the images, of COCO and VOC; None looks for it.

    Raises:
        DataError: nothing, more than one thing, or a malformed file.
        UsageError: ``images`` is no folder, or the format names its images itself.
    """
    path = Path(os.path.abspath(path.expanduser()))
    if not os.path.exists(path):
        raise DataError(f"there is no {path}", expected="the folder of a data set, or its file")
    if images is not None:
        images = Path(os.path.abspath(images.expanduser()))
        if not isdir(images):
            raise UsageError(f"folder of images not found: {images}", expected="a folder")
    found = [
        *filter(None, (look(path, images) for look in (_coco, _roboflow, _voc))),
        *filter(None, [_yolo(path)]),
    ]
    found = found or [*filter(None, [_yolo_without_yaml(path)])]
    if len(found) > 1:
        raise DataError(
            f"{path} looks like {' and like '.join(one.format for one in found)}",
            expected="one format",
            hint="name its file (.json, data.yaml) or a folder that holds one of them only",
        )
    if not found:
        raise _unknown(path)
    if images is not None and found[0].format == "YOLO":
        raise UsageError(
            f"the YOLO data at {path} names its images itself", expected="no --images FOLDER"
        )
    return found[0]


def _unknown(path: Path) -> DataError:
    """Returns the error that says what lies there; a folder below may be what is meant."""
    hints = [one for one in listing(path) if one.is_dir() and _may_be_meant(one)]
    other = None if hints else foreign_format(path)
    if other is not None:
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
        return any([_roboflow(folder), _voc(folder), _yolo(folder), _yolo_without_yaml(folder)])
    except DataError:
        return False


def _options(kind: str, root: Path, file: Path, images: Path) -> Options:
    inside = images.is_relative_to(root)
    return {
        "type": kind,
        "ann_file": file.relative_to(root).as_posix(),
        "data_prefix": {"img": (images.relative_to(root) if inside else images).as_posix()},
    }


def _names(files: Iterable[Path], root: Path) -> str:
    names = [file.relative_to(root).as_posix() for file in files]
    return f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"


# --- COCO ----------------------------------------------------------------------------------------


def _coco(path: Path, images: Path | None = None) -> FoundData | None:
    if path.is_file():
        files = [path] if path.suffix.lower() == ".json" else []
        if files and not _is_coco(path) and foreign_format(path):
            return None
        root = path.parent.parent if path.parent.name == "annotations" else path.parent
    else:
        root = path
        folders = [path, folder_named(path, ["annotations"])]
        files = [file for one in folders if one for file in files_below(one, [".json"], deepest=0)]
        files = [file for file in files if not file.name.startswith(_OTHER_TASKS)]
        files = [file for file in files if file.name != ROBOFLOW and _is_coco(file)]
    if not files:
        return None
    return _coco_found("COCO", root, _by_split(files, root), images)


def _coco_found(name: str, root: Path, files: Mapping[str, Path], images: Path | None) -> FoundData:
    """Returns the splits that have images; those without are noted.

    Raises:
        DataError: no split has any.
    """
    contents = {split: read_annotations(file) for split, file in files.items()}
    notes = [
        f"{files[split].relative_to(root)} lists no image: left out"
        for split, content in contents.items()
        if not content["images"]
    ]
    splits = {
        split: _options(
            "fldet.CocoDataset",
            root,
            files[split],
            images or _coco_images(root, files[split], split, content),
        )
        for split, content in contents.items()
        if content["images"]
    }
    if not splits:
        raise DataError(f"{next(iter(files.values()))} lists no image", expected="at least one")
    return FoundData(name, root, splits, notes)


def _is_coco(file: Path) -> bool:
    data = read_bytes(file, "annotation file", most=MOST_OF_ANNOTATIONS)
    if b"\0" in data:  # UTF-16: the letters of ASCII remain
        data = data.replace(b"\0", b"")
    return all(b'"%s"' % key in data for key in (b"images", b"annotations", b"categories"))


def _by_split(files: list[Path], root: Path) -> dict[str, Path]:
    """Returns the file of each split by the words in the names; one alone is for training."""
    if len(files) == 1:
        return {split_of(files[0].stem) or "train": files[0]}
    by_split: dict[str, Path] = {}
    for file in files:
        split = split_of(file.stem)
        if split is None or split in by_split:
            raise DataError(
                f"{root} has several COCO files: {_names(files, root)}",
                expected="one each with 'train', 'val' and 'test' in its name",
                hint=f"name one file: {files[0]}",
            )
        by_split[split] = file
    return {split: by_split[split] for split in SPLITS if split in by_split}


def _coco_images(root: Path, file: Path, split: str, content: Mapping[str, Any]) -> Path:
    names = [image.get("file_name") for image in content["images"][:_SAMPLE]]
    folder = _folder_with(names, _image_folders(root, file, split))
    if folder is None:
        raise DataError(
            f"{file}: no folder in {root} has its images, such as {shorten([*names, None][0])}",
            expected="file_name of each image relative to a folder beside the annotation file",
            hint="--images FOLDER names the folder",
        )
    return folder


def _image_folders(root: Path, file: Path, split: str) -> Iterable[Path]:
    """Yields folders that may hold images: the usual ones first, then all, three levels deep."""
    usual = [file.stem.rpartition("_")[2], *(("valid", "val") if split == "val" else (split,))]
    for name in usual:
        yield from (root / name, root / "images" / name, root / name / "images")
    yield from (file.parent / "images", file.parent, root / "images", root)
    yield from folders_below(root, deepest=3)


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


def _roboflow(path: Path, images: Path | None = None) -> FoundData | None:
    folders = split_folders(path, lambda folder: isfile(folder / ROBOFLOW))
    files = {split: folder / ROBOFLOW for split, folder in folders.items()}
    return _coco_found("Roboflow COCO", path, files, images) if files else None


# --- Pascal VOC ----------------------------------------------------------------------------------


def _voc(path: Path, images: Path | None = None) -> FoundData | None:
    if not path.is_dir():
        return None
    here = _xml_below(path) or (path if _has_xml(path, deepest=0) else None)
    folders = split_folders(path, _has_xml) or (split_folders(here, _has_xml) if here else {})
    if here is None and not folders:
        return None
    lists, notes = _voc_lists(path)
    if here and lists:
        folder = _images_for(here, path, images)
        splits = {
            split: _options("fldet.VOCDataset", path, file, folder) for split, file in lists.items()
        }
        return FoundData("Pascal VOC", path, splits, notes)
    # The images may lie beside a folder of XML files that is named itself, and lists too.
    root = path.parent if here == path else path
    if not folders:
        images = _images_for(here or path, root, images)
        splits = {"train": _options("fldet.VOCDataset", root, here or path, images)}
        return FoundData("Pascal VOC", root, splits, [*_unused_lists(root), *_empty(path, [])])
    splits = {
        split: _options("fldet.VOCDataset", root, folder, _images_for(folder, root, images, split))
        for split, folder in ((split, _xml_below(one) or one) for split, one in folders.items())
    }
    return FoundData("Pascal VOC", root, splits, [*_unused_lists(root), *_empty(path, folders)])


def _xml_below(path: Path) -> Path | None:
    """Returns the folder with one of the usual names that has XML files."""
    found = (folder_named(path, [name]) for name in XML_FOLDERS)
    return next((folder for folder in found if folder and _has_xml(folder)), None)


def _has_xml(folder: Path, **options: int) -> bool:
    """Returns whether files are of VOC or, being no XML at all, may be meant so."""
    files = files_below(folder, [".xml"], **options)[:_SAMPLE]
    return any(xml_root(file) in ("annotation", "") for file in files)


def _voc_lists(path: Path) -> tuple[dict[str, Path], list[str]]:
    """Returns the list of each split, and notes on other lists; none where no list is of one."""
    for name in _LISTS:
        folder = folder_named(path, [name])
        files = files_below(folder, [".txt"], deepest=0) if folder else []
        lists: dict[str, Path] = {}
        for file in sorted(files, key=lambda one: (len(one.stem), one)):
            split = split_named(file.stem)
            if split and file.stem.lower() != "trainval":
                lists.setdefault(split, file)
        by_name = {file.stem.lower(): file for file in files}
        whole, notes = by_name.get("trainval"), []
        if whole and "train" not in lists:
            if "val" in lists:
                part = lists.pop("val")
                files.remove(part)
                notes.append(f"{part.name} is not used: trainval.txt, for training, has its images")
            lists["train"] = whole
        elif not lists and name and "default" in by_name:  # of CVAT
            lists["train"] = by_name["default"]
        if lists:
            left = [one for one in files if one not in lists.values() and not _is_known(one, lists)]
            if left:
                notes.append(f"lists that are not used: {_names(left, path)}")
            for split in [one for one, file in lists.items() if not any(_lines(file))]:
                notes.append(f"{_names([lists.pop(split)], path)} is empty: left out")
            return {split: lists[split] for split in SPLITS if split in lists}, notes
    return {}, []


def _is_known(file: Path, lists: Mapping[str, Path]) -> bool:
    """Returns whether a list is of one class, or of images of training and validation together."""
    word = file.stem.lower().rpartition("_")[2]
    return word in ("trainval", "val") or (split_named(word) in lists and "_" in file.stem)


def _lines(file: Path) -> list[str]:
    return text_lines(file, LIST, expected=LIST_LAYOUT)


def _unused_lists(root: Path) -> list[str]:
    """Returns a note where there are lists, none of which is of a split."""
    folder = folder_named(root, ["ImageSets"])
    files = files_below(folder, [".txt"], deepest=2) if folder else []
    if not files:
        return []
    return [
        f"lists that are not used: {_names(files, root)}; splits are lists such as "
        "ImageSets/Main/train.txt, val.txt and test.txt"
    ]


def _empty(path: Path, used: Iterable[str]) -> list[str]:
    """Returns a note for each folder of a split that has nothing to read."""
    folders = {one.name: split_named(one.name) for one in listing(path) if one.is_dir()}
    return [
        f"the folder {name} has no annotations: left out"
        for name, split in folders.items()
        if split and split not in used
    ]


def _images_for(folder: Path, root: Path, given: Path | None, split: str = "") -> Path:
    """Returns the folder that has images of the same names as XML files.

    Args:
        folder: of the XML files.
        root: of the data set.
        given: the folder that the user names, which is taken as it is.
        split: where each has XML files of its own; folders of the others are not looked into.

    Raises:
        DataError: there is none.
    """
    if given is not None:
        return given
    files = files_below(folder, [".xml"])[:_SAMPLE]
    names = [file.relative_to(folder).with_suffix("") for file in files]
    best, most = None, 0
    for images in _voc_image_folders(folder, root, split):
        stems = {
            parent: images_by_stem(images / parent) for parent in {one.parent for one in names}
        }
        count = sum(name.name in stems[name.parent] for name in names)
        if count > most:
            best, most = images, count
        if most == len(names):
            break
    if best is None:
        raise DataError(
            f"no image belongs to {files[0] if files else folder}",
            expected="a file of the same name beside it, or in one of the folders "
            f"{', '.join(IMAGE_FOLDERS)} of {root}",
            hint="--images FOLDER names the folder",
        )
    return best


def _voc_image_folders(folder: Path, root: Path, split: str) -> Iterable[Path]:
    yield folder
    for base in dict.fromkeys((folder.parent, root)):
        for name in IMAGE_FOLDERS:
            if images := folder_named(base, [name]):
                yield from (images / folder.name, images)
        yield base
    for images in folders_below(root, deepest=2):
        of_splits = {split_named(part) for part in images.relative_to(root).parts} - {None}
        if not split or of_splits <= {split}:
            yield images


# --- YOLO ----------------------------------------------------------------------------------------


def _yolo(path: Path) -> FoundData | None:
    files = _yolo_files(path)
    if len(files) > 1:
        raise DataError(
            f"{path} has several YAML files with names: {_names(files, path)}",
            expected="one",
            hint=f"name one file: {files[0]}",
        )
    return _yolo_found(read_settings(files[0])) if files else None


def _yolo_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() in (".yaml", ".yml") else []
    return [file for file in files_below(path, [".yaml", ".yml"], deepest=0) if _has_names(file)]


def _has_names(file: Path) -> bool:
    data = read_bytes(file, most=MOST_OF_SETTINGS, cut=True).replace(b"\0", b"")  # UTF-16
    return re.search(rb"(?m)^[^\w\s]{0,4}names[\"']?\s*:", data) is not None


def _yolo_without_yaml(path: Path) -> FoundData | None:
    """Looks for a file with the names of classes, and labels."""
    if path.is_file():
        is_one = path.name in NAME_FILES or path.suffix.lower() in (".data", ".names")
        return _yolo_found(read_settings(path)) if is_one else None
    labels = folder_named(path, ["labels"])
    folders = [path, *([labels] if labels else [])]
    folders += [one for base in folders for one in listing(base) if split_named(one.name)]
    for name in NAME_FILES:
        files = [folder / name for folder in folders if isfile(folder / name)]
        all_settings = [read_settings(file) for file in files]
        if not all_settings:
            continue
        if len({one.names for one in all_settings}) > 1:
            raise DataError(
                f"the classes are not the same in {_names(files, path)}",
                expected="the same names in the same order in each",
            )
        found = _yolo_found(all_settings[0])
        found.notes.append(f"classes of {_names(files[:1], path)}, splits of the folders")
        return found if has_labels(all_settings[0]) else None
    return None


def _yolo_found(data: Settings) -> FoundData:
    """Returns the splits that have images; others are noted.

    Raises:
        DataError: no split has any.
    """
    notes, splits = [], {}
    for split, names in data.splits.items():
        if not all(place(data, name) for name in names):
            notes.append(f"{data.path.name} names a {split!r} that is not there")
        elif not has_images(data, split):
            notes.append(f"the {split!r} of {data.path.name} has no image: left out")
        else:
            splits[split] = {
                "type": "fldet.YOLODataset",
                "ann_file": data.path.name,
                "split": split,
            }
    if not splits:
        places = [shorten(name) for names in data.splits.values() for name in names][:_SHOWN]
        raise DataError(
            f"{data.path}: none of its splits has images: {', '.join(places) or 'none is given'}",
            expected="'train' and 'val': folders of images relative to the file",
        )
    return FoundData("YOLO", data.path.parent, splits, notes)


# --- classes and oddities ------------------------------------------------------------------------


def used_classes(contents: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the classes of all splits in the order of their ids, and placeholders left out.

    Roboflow puts a category before the others that only groups them: it has no boxes, and the
    others name it as their ``supercategory``. One of them may have its name.
    """
    contents = list(contents)
    with_boxes = {
        (index, id_of(one.get("category_id")))
        for index, content in enumerate(contents)
        for one in content["annotations"]
    }
    classes: dict[str, None] = {}
    groups: dict[str, None] = {}
    for index, content in enumerate(contents):
        empty = {key for key in group_ids(content["categories"]) if (index, key) not in with_boxes}
        for category in sorted(content["categories"], key=lambda one: one["id"]):
            (groups if category["id"] in empty else classes)[category["name"]] = None
    return tuple(classes), tuple(name for name in groups if name not in classes)


def oddities(found: FoundData, contents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns what a user should know of a data set, one sentence each.

    Args:
        found: the data set.
        contents: what ``found.read`` returned, by split.
    """
    notes = [*found.notes]
    if any(one.get("difficult") for content in contents.values() for one in content["annotations"]):
        notes.append("difficult objects are counted as crowd regions: no figure counts them")
    files = {
        split: {found.image_folder(split) / str(one.get("file_name")) for one in content["images"]}
        for split, content in contents.items()
    }
    for a, b in combinations(files, 2):
        if both := len(files[a] & files[b]):
            notes.append(f"{both} images are in {a} and in {b}")
    return notes
