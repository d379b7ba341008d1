"""Finds the XML files, lists and images of Pascal VOC."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from fldet.data.folders import (
    SPLITS,
    files_below,
    folder_named,
    folders_below,
    images_by_stem,
    listing,
    split_folders,
    split_named,
    text_lines,
)
from fldet.data.foreign import xml_root
from fldet.data.formats.found import SAMPLE, FoundData, fullest, names_of, options_of
from fldet.data.voc import IMAGE_FOLDERS, LIST, LIST_LAYOUT, XML_FOLDERS
from fldet.errors import DataError

_LISTS = ("ImageSets/Main", "ImageSets", "")  # folders with lists of images


def find_voc(path: Path, images: Path | None = None) -> FoundData | None:
    """Returns the splits of lists or folders with XML files; None if there is no such file."""
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
            split: options_of("fldet.VOCDataset", path, file, folder)
            for split, file in lists.items()
        }
        return FoundData("Pascal VOC", path, splits, notes)
    # The images may lie beside a folder of XML files that is named itself, and lists too.
    root = path.parent if here == path else path
    if not folders:
        images = _images_for(here or path, root, images)
        splits = {"train": options_of("fldet.VOCDataset", root, here or path, images)}
        return FoundData("Pascal VOC", root, splits, [*_unused_lists(root), *_empty(path, [])])
    splits = {
        split: options_of(
            "fldet.VOCDataset", root, folder, _images_for(folder, root, images, split)
        )
        for split, folder in ((split, _xml_below(one) or one) for split, one in folders.items())
    }
    return FoundData("Pascal VOC", root, splits, [*_unused_lists(root), *_empty(path, folders)])


def _xml_below(path: Path) -> Path | None:
    """Returns the folder with one of the usual names that has XML files."""
    found = (folder_named(path, [name]) for name in XML_FOLDERS)
    return next((folder for folder in found if folder and _has_xml(folder)), None)


def _has_xml(folder: Path, **options: int) -> bool:
    """Returns whether files are of VOC or, being no XML at all, may be meant so."""
    files = files_below(folder, [".xml"], **options)[:SAMPLE]
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
                notes.append(f"lists that are not used: {names_of(left, path)}")
            for split in [
                one
                for one, file in lists.items()
                if not any(text_lines(file, LIST, expected=LIST_LAYOUT))
            ]:
                notes.append(f"{names_of([lists.pop(split)], path)} is empty: left out")
            return {split: lists[split] for split in SPLITS if split in lists}, notes
    return {}, []


def _is_known(file: Path, lists: Mapping[str, Path]) -> bool:
    """Returns whether a list is of one class, or of images of training and validation together."""
    word = file.stem.lower().rpartition("_")[2]
    return word in ("trainval", "val") or (split_named(word) in lists and "_" in file.stem)


def _unused_lists(root: Path) -> list[str]:
    """Returns a note where there are lists, none of which is of a split."""
    folder = folder_named(root, ["ImageSets"])
    files = files_below(folder, [".txt"], deepest=2) if folder else []
    if not files:
        return []
    return [
        f"lists that are not used: {names_of(files, root)}; splits are lists such as "
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
    """Returns the folder with images of the same names as XML files, if none is ``given``.

    Where each split has XML files of its own, folders of the others are not looked into.
    """
    if given is not None:
        return given
    files = files_below(folder, [".xml"])[:SAMPLE]
    names = [file.relative_to(folder).with_suffix("") for file in files]
    parents = {name.parent for name in names}

    def count_in(images: Path) -> int:
        stems = {parent: images_by_stem(images / parent) for parent in parents}
        return sum(name.name in stems[name.parent] for name in names)

    best = fullest(_voc_image_folders(folder, root, split), count_in, len(names))
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
