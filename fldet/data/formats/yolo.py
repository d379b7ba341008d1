"""Finds the settings of YOLO, or a file with the names of classes, with labels and images."""

import re
from os.path import isfile  # unlike pathlib's, false for names that cannot be
from pathlib import Path

from fldet.data.folders import files_below, folder_named, listing, split_named
from fldet.data.formats.found import SHOWN, FoundData, names_of
from fldet.data.yolo import has_labels
from fldet.data.yolo_settings import NAME_FILES, Settings, has_images, place, read_settings
from fldet.errors import DataError, shorten
from fldet.files import MOST_OF_SETTINGS, read_bytes


def find_yolo(path: Path) -> FoundData | None:
    """Returns the splits of a YAML file, or of the one in a folder; None if there is none."""
    files = _yolo_files(path)
    if len(files) > 1:
        raise DataError(
            f"{path} has several YAML files with names: {names_of(files, path)}",
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


def find_yolo_without_yaml(path: Path) -> FoundData | None:
    """Returns the splits of a file with names of classes, beside labels; None if there is none."""
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
                f"the classes are not the same in {names_of(files, path)}",
                expected="the same names in the same order in each",
            )
        found = _yolo_found(all_settings[0])
        found.notes.append(f"classes of {names_of(files[:1], path)}, splits of the folders")
        return found if has_labels(all_settings[0]) else None
    return None


def _yolo_found(data: Settings) -> FoundData:
    """Returns the splits that have images, at least one; others are noted."""
    notes, splits = [], {}
    for split, names in data.splits.items():
        if not all(place(data, name) for name in names):
            notes.append(f"{data.path.name} names a {split!r} that is not there")
        elif not has_images(data, split):
            notes.append(f"the {split!r} of {data.path.name} has no image: left out")
        else:
            kind, file = "fldet.YOLODataset", data.path.name
            splits[split] = {"type": kind, "ann_file": file, "split": split}
    if not splits:
        places = [shorten(name) for names in data.splits.values() for name in names][:SHOWN]
        raise DataError(
            f"{data.path}: none of its splits has images: {', '.join(places) or 'none is given'}",
            expected="'train' and 'val': folders of images relative to the file",
        )
    return FoundData("YOLO", data.path.parent, splits, notes)
