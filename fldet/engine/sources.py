"""Images to predict on, one after the other: files, folders, globs, videos, paths on stdin.

Nothing is listed as a whole but the names in one folder at a time, and all that a glob pattern
finds; these are sorted, so that several processes and a later run see the same order.
"""

import glob
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fldet.errors import DataError, UsageError

log = logging.getLogger("fldet")

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


@dataclass(frozen=True)
class Item:
    """One image of a source.

    Attributes:
        file: path of the image or video, as the source names it.
        frame: number of the frame of a video, from 0; None for an image file.
        picture: where its picture goes, relative to the folder of pictures.
        decode: returns the frame, only before the next item is taken; None for an image file.
    """

    file: str
    frame: int | None
    picture: str
    decode: Callable[[], npt.NDArray[np.uint8]] | None = None

    def read(self) -> str | npt.NDArray[np.uint8] | DataError:
        """Returns what a detector takes, or why a frame cannot be read."""
        if self.decode is None:
            return self.file
        try:
            return self.decode()
        except DataError as error:
            return error


def find_items(source: str, every: int = 1) -> Iterator[Item]:
    """Returns an iterator over the images of a source.

    Args:
        source: an image, a video, a folder (with all folders below it), a glob pattern (``**`` for
            any folders), or ``-`` for one path a line on stdin.
        every: of a video, only each so many-th frame.

    Raises:
        DataError: there is no such file, or a video cannot be opened.
    """
    path = Path(source)
    if source == "-":
        return _from_lines(sys.stdin)
    if path.is_dir():
        return (_item(file, source) for file in _walk(source))
    if path.is_file():
        return _frames(source, every) if path.suffix.lower() in VIDEOS else _single(path)
    if glob.has_magic(source):
        root = re.split(r"[*?\[]", source)[0]
        found = glob.iglob(source, recursive=True)
        return (_item(file, os.path.dirname(root)) for file in sorted(filter(_is_image, found)))
    raise DataError(
        f"nothing to predict on: {source}",
        expected="an image, a video, a folder, a quoted glob pattern, or - for paths on stdin",
    )


def check_source(source: str, processes: int) -> None:
    """Does nothing if several processes can share a source.

    Raises:
        UsageError: they cannot: there is one stdin.
    """
    if source == "-" and processes > 1:
        raise UsageError(
            f"{processes} processes cannot share the paths on stdin",
            expected="one process, or a folder or glob pattern as the source",
        )


def _single(path: Path) -> Iterator[Item]:
    yield _item(str(path), str(path.parent))


def _from_lines(lines: Any) -> Iterator[Item]:
    for line in lines:
        if file := line.rstrip("\r\n"):
            yield _item(file, "")


def _walk(folder: str) -> Iterator[str]:
    """Yields the images of a folder by name, then those below; linked folders are left out."""
    names, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif _is_image(entry.name):
                names.append(entry.name)
    names.sort()
    yield from (os.path.join(folder, name) for name in names)
    names.clear()
    for name in sorted(folders):
        yield from _walk(os.path.join(folder, name))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGES)


def _item(file: str, root: str) -> Item:
    """Returns an image file, its picture placed as the file is below ``root``."""
    below = os.path.relpath(file, root) if root else file
    parts = [part for part in Path(below).parts if part not in ("..", Path(below).anchor)]
    name = os.path.join(*parts)
    # Two files that differ in the ending only are two pictures.
    return Item(file, None, name if name.lower().endswith(".jpg") else f"{name}.jpg")


def _frames(file: str, every: int) -> Iterator[Item]:
    """Returns the frames of a video; only those that are asked for are decoded."""
    capture = cv2.VideoCapture(file)
    if not capture.isOpened():
        raise DataError(
            f"OpenCV cannot open the video {file}", expected="a format and codec that it knows"
        )
    return _opened_frames(capture, file, every)


def _opened_frames(capture: cv2.VideoCapture, file: str, every: int) -> Iterator[Item]:
    number, stated = 0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    while capture.grab():
        if number % every == 0:
            picture = os.path.join(Path(file).stem, f"{number:06d}.jpg")
            yield Item(file, number, picture, lambda at=number: _decode(capture, file, at))  # type: ignore[misc]
        number += 1
    capture.release()
    if number < stated:
        log.warning("%s ends after %d frames, its header says %d", file, number, stated)


def _decode(capture: cv2.VideoCapture, file: str, number: int) -> npt.NDArray[np.uint8]:
    fine, frame = capture.retrieve()
    if not fine:
        raise DataError(f"cannot decode frame {number} of {file}")
    return np.asarray(frame, np.uint8)
