"""Finds COCO files and their images, Roboflow's among them."""

from collections.abc import Iterable, Mapping
from os.path import isfile  # unlike pathlib's, false for names that cannot be
from pathlib import Path
from typing import Any

from fldet.data.annotations import has_image, read_annotations
from fldet.data.folders import (
    SPLITS,
    files_below,
    folder_named,
    folders_below,
    split_folders,
    split_of,
)
from fldet.data.foreign import foreign_format
from fldet.data.formats.found import SAMPLE, FoundData, fullest, names_of, options_of
from fldet.errors import DataError, shorten
from fldet.files import MOST_OF_ANNOTATIONS, read_bytes

ROBOFLOW = "_annotations.coco.json"

_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")


def find_coco(path: Path, images: Path | None = None) -> FoundData | None:
    """Returns the COCO files in a folder or its ``annotations``, or a file as one; else None."""
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
    """Returns the splits that have images, at least one; those without are noted."""
    contents = {split: read_annotations(file) for split, file in files.items()}
    notes = [
        f"{files[split].relative_to(root)} lists no image: left out"
        for split, content in contents.items()
        if not content["images"]
    ]
    splits = {
        split: options_of(
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
                f"{root} has several COCO files: {names_of(files, root)}",
                expected="one each with 'train', 'val' and 'test' in its name",
                hint=f"name one file: {files[0]}",
            )
        by_split[split] = file
    return {split: by_split[split] for split in SPLITS if split in by_split}


def _coco_images(root: Path, file: Path, split: str, content: Mapping[str, Any]) -> Path:
    names = [image.get("file_name") for image in content["images"][:SAMPLE]]
    folder = fullest(
        _image_folders(root, file, split),
        lambda folder: sum(has_image(folder, name) for name in names),
        len(names),
    )
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


def find_roboflow(path: Path, images: Path | None = None) -> FoundData | None:
    """Returns the splits that are folders with a file of Roboflow's; None if there are none."""
    folders = split_folders(path, lambda folder: isfile(folder / ROBOFLOW))
    files = {split: folder / ROBOFLOW for split, folder in folders.items()}
    return _coco_found("Roboflow COCO", path, files, images) if files else None
