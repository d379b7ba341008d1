"""What a first config takes of a data set: its splits, or a part of the training images as one."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fldet.analysis.dataset.suspicions import suspicions
from fldet.data.formats.found import FoundData, oddities
from fldet.data.holdout.set_aside import SetAside, set_aside
from fldet.errors import DataError, UsageError
from fldet.files import write_atomically

log = logging.getLogger("fldet")

RARE = 4  # so many images of a class to one of the rarest call for oversampling
MOST_OFTEN = 3  # that an image of the rarest class is listed then
SET_ASIDE = 0.2  # share of the training images, where the data has no validation split


def read_splits(found: FoundData) -> tuple[FoundData, dict[str, dict[str, Any]]]:
    """Returns a data set with the splits that are used, and their contents.

    Raises:
        DataError: there are no training images or boxes.
    """
    if "train" not in found.splits:
        raise DataError(
            f"{found.root} has no training images, only {', '.join(found.splits)}",
            expected="a split called 'train'",
            hint="; ".join(found.notes),
        )
    contents = {split: found.read(split) for split in found.splits}
    for note in oddities(found, contents):
        log.warning("%s", note)
    for split in ("val", "test"):  # COCO's own test files have no boxes
        if split in contents and not contents[split]["annotations"]:
            log.info("the %s images have no boxes and are left out", split)
            del contents[split]
    found = FoundData(found.format, found.root, {s: found.splits[s] for s in contents})
    images = contents["train"]["images"]
    if not images or not contents["train"]["annotations"]:
        raise DataError(f"the training images of {found.root} have no boxes", expected="some")
    for note in suspicions(contents):
        log.warning("%s", note)
    return found, contents


def oversampling(content: Mapping[str, Any]) -> float | None:
    """Returns the value of the line ``oversample``, None where no class is rare.

    That is where the images with the rarest class are fewer than a quarter of those with the most
    frequent one. The line then lists none of them more than ``MOST_OFTEN`` times.
    """
    seen: dict[Any, set[Any]] = {}
    for one in content["annotations"]:
        if not one.get("iscrowd") and not one.get("ignore"):
            seen.setdefault(one["category_id"], set()).add(one["image_id"])
    counts = [len(images) for images in seen.values()]
    if not counts or RARE * min(counts) >= max(counts):
        return None
    share = min(counts) / len(content["images"])
    return float(f"{min(0.5, MOST_OFTEN**2 * share):.1g}")


def images_aside(
    found: FoundData, content: Mapping[str, Any], val: float | None
) -> SetAside | None:
    """Returns the training images to validate on, None where there are others or none."""
    if val and "val" in found.splits:
        raise UsageError(
            f"{found.root} has images to validate on, the split 'val'",
            expected="no --val, which sets training images aside",
            hint="to divide other images, name the file or folder that has only those",
        )
    if val == 0 or "val" in found.splits or (val is None and "test" in found.splits):
        return None
    try:
        return set_aside(found, content, SET_ASIDE if val is None else val)
    except DataError as error:
        if val is None:
            log.warning("no images are set aside to validate on: %s", error.message)
            return None
        raise DataError(
            f"{found.root}: {error.message}",
            expected=error.expected,
            hint="--val 0 writes a config without validation",
        ) from None


@contextmanager
def written(file: Path, text: str) -> Iterator[None]:
    """Writes the list of images, if there is one, and removes it where the config fails."""
    if text and file.exists() and file.read_bytes() != text.encode():
        raise UsageError(f"{file} exists", expected="a new file", hint="choose another --out")
    is_new = bool(text) and not file.exists()
    if is_new:
        write_atomically(file, text)
    try:
        yield
    except BaseException:
        if is_new:
            file.unlink(missing_ok=True)
        raise
