"""Finds the annotations of other tools that are read as they are, and their images."""

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

from fldet.data.folders import (
    SPLITS,
    files_below,
    folder_named,
    folders_below,
    split_folders,
    split_named,
    split_of,
)
from fldet.data.foreign import Foreign, foreign_format
from fldet.data.formats.found import SAMPLE, FoundData, fullest, names_of, options_of
from fldet.data.imported.dataset import ImageNames, labelled_images
from fldet.errors import DataError, shorten

OF_FOLDERS = {"labelme": ".json", "KITTI": ".txt"}  # those with a file for each image
LABEL_FOLDERS = ("label_2", "labels", "label")
IMAGE_FOLDERS = ("images", "image_2", "imgs", "img", "data")

_DEEPEST = 3  # folders below a path, as foreign_format looks


def find_imported(
    path: Path, images: Path | None = None, columns: Mapping[str, str] | None = None
) -> FoundData | None:
    """Returns the splits of a format that ``fldet.ImportedDataset`` reads; None if there is none.

    A table whose columns are named may have any.
    """
    form = foreign_format(path)
    if columns and path.suffix.lower() == ".csv":
        form = Foreign("a table (CSV)", r"\.csv", (), read_as="CSV")
    if form is None or not form.read_as:
        return None
    name, root = form.read_as, path if path.is_dir() else path.parent
    files = _label_folders(path, name) if name in OF_FOLDERS else _files(path, form)
    splits = {}
    for split, file in files.items():
        folder = images or _image_folder(root, file, split, name, columns)
        options = {**options_of("fldet.ImportedDataset", root, file, folder), "format": name}
        splits[split] = {**options, "columns": dict(columns)} if columns else options
    return FoundData(name, root, splits)


def _label_folders(path: Path, name: str) -> dict[str, Path]:
    """Returns the folder of each split that has files; a file alone is for training."""
    if not path.is_dir():
        return {"train": path}

    def labels_in(folder: Path) -> Path | None:
        below = folder_named(folder, LABEL_FOLDERS) if name == "KITTI" else None
        return below or (folder if files_below(folder, [OF_FOLDERS[name]]) else None)

    labels = folder_named(path, LABEL_FOLDERS)
    for base in (path, labels) if labels else (path,):
        if folders := split_folders(base, lambda folder: labels_in(folder) is not None):
            return {split: labels_in(folder) or folder for split, folder in folders.items()}
    return {"train": labels_in(path) or path}


def _files(path: Path, form: Foreign) -> dict[str, Path]:
    """Returns the file of each split, by the words in its name or its folder's."""
    if not path.is_dir():
        return {"train": path}
    files = [file for file in files_below(path, [""], deepest=_DEEPEST) if form.matches(file)]
    if len(files) == 1:
        return {split_of(files[0].stem) or split_named(files[0].parent.name) or "train": files[0]}
    found: dict[str, Path] = {}
    for file in files:
        split = split_of(file.stem) or split_named(file.parent.name)
        if split is None or split in found:
            raise DataError(
                f"{path} has several files of {form.read_as}: {names_of(files, path)}",
                expected="one, or one each with 'train', 'val' and 'test' in its name",
                hint=f"name one file: {files[0]}",
            )
        found[split] = file
    return {split: found[split] for split in SPLITS if split in found}


def _image_folder(
    root: Path, file: Path, split: str, name: str, columns: Mapping[str, str] | None
) -> Path:
    """Returns the folder that has most of the first images that the annotations name."""
    images = [one.name for one in islice(labelled_images(name, file, columns), SAMPLE)]
    if not images:
        raise DataError(f"{file} names no image", expected="at least one")

    def count_in(folder: Path) -> int:
        there = ImageNames(folder)
        return sum(there.find(image) is not None for image in images)

    folder = fullest(_folders(root, file, split), count_in, len(images))
    if folder is None:
        raise DataError(
            f"{file}: no folder in {root} has its images, such as {shorten(images[0])}",
            expected="images beside the annotations, or in a folder called images",
            hint="--images FOLDER names the folder",
        )
    return folder


def _folders(root: Path, file: Path, split: str) -> Iterable[Path]:
    """Yields folders that may hold images: those near the annotations first, then all."""
    for base in dict.fromkeys((file if file.is_dir() else file.parent, file.parent, root)):
        for name in IMAGE_FOLDERS:
            if found := folder_named(base, [name]):
                yield from (one for one in (found / split, found / file.name) if one.is_dir())
                yield found
        if base.is_relative_to(root):
            yield base
    yield from folders_below(root, deepest=_DEEPEST)
