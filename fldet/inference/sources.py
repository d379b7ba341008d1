"""Images to predict on, one after the other: files, folders, globs, videos, cameras, addresses.

Nothing is listed as a whole but the names in one folder at a time, and all that a glob pattern
finds; these are sorted, so that several processes and a later run see the same order.
"""

import contextlib
import glob
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import cv2
import numpy as np
import numpy.typing as npt

from fldet.data.image_files import for_opencv
from fldet.errors import DataError, UsageError
from fldet.files import other_than_file, read_bytes
from fldet.inference.remote import fetch_image, is_address
from fldet.text import file_name

log = logging.getLogger("fldet")

# What has another ending is looked into.
IMAGES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".bmp", ".dib", ".tif", ".tiff"),
    *(".webp", ".avif", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
SETTINGS = "predict.json"  # marks a folder of predictions
_COPIES = (".ipynb_checkpoints", "__MACOSX")  # folders that programs fill by themselves
_COPY = "._"  # begins the names of what macOS writes beside a file
_LONGEST_PATH = 1 << 16  # bytes of a line on stdin; systems take 4096
_TEXT = int.from_bytes(b"ansi", "little")  # FFmpeg draws the letters of a .txt file
_CAMERA = re.compile(r"camera:(\d{1,3})")
_ROOT, _UP = "_root", "_up"


@dataclass(frozen=True)
class Item:
    """One image of a source; a frame is decoded only before the next item is taken."""

    file: str  # path of the image or video, as the source names it
    frame: int | None  # number of the frame of a video, from 0; None for an image file
    picture: str  # where its picture goes, relative to the folder of pictures
    decode: Callable[[], npt.NDArray[np.uint8]] | None = None

    def read(self) -> str | npt.NDArray[np.uint8] | DataError:
        """Returns what a detector takes, or why it cannot be read."""
        try:
            if self.decode is not None:
                return self.decode()
            _require_regular(self.file)
        except DataError as error:
            return error
        return self.file


@dataclass
class _LeftOut:
    """What a source holds beside images; said at its end."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, file: str) -> None:
        self.count += 1
        if len(self.first) < 3:
            self.first.append(file)

    def say(self) -> None:
        if self.count:
            log.info(
                "left out: %d other files or links to folders, such as %s; a video is a source of "
                "its own",
                self.count,
                ", ".join(self.first),
            )


def find_items(source: str, every: int = 1) -> Iterator[Item]:
    """Returns an iterator over the images of a source.

    That is an image, a video, a folder (with all folders below it), a glob pattern (``**`` for any
    folders), the address of an image, ``camera:0``, or ``-`` for one path a line on stdin. Of a
    video or camera, only each so many-th frame is taken.

    Raises:
        DataError: there is no such file, or it is neither an image nor a video.
    """
    if source == "-":
        return _from_lines(sys.stdin.buffer)
    if is_address(source):
        name = os.path.basename(urlsplit(source).path) or "image"
        return iter([Item(source, None, _picture_name(name), partial(fetch_image, source))])
    if number := _CAMERA.fullmatch(source):
        return _from_camera(source, int(number[1]), every)
    if os.path.isdir(source):
        return _walk(source)
    if os.path.isfile(source):
        if is_image(source) and not _start(source).startswith(b"GIF"):
            return iter([_item(source, os.path.dirname(source))])
        return _frames(source, every)
    if glob.has_magic(source):
        return _found(sorted(glob.iglob(source, recursive=True)), fixed_part(source))
    raise _nothing(source)


def fixed_part(source: str) -> str:
    """Returns the folder that holds all that a glob pattern can find; a source without as it is."""
    if os.path.exists(source) or not glob.has_magic(source):
        return source
    return os.path.dirname(re.split(r"[*?\[]", source)[0])


def _nothing(source: str) -> DataError:
    return DataError(
        f"nothing to predict on: {source}",
        expected="an image, a video, a folder, a quoted glob pattern, an address (https://...), "
        "camera:0, or - for paths on stdin",
    )


def check_source(source: str, processes: int = 1) -> None:
    """Does nothing if there is such a source, and so many processes can share it.

    Raises:
        DataError: no such file or folder, and no pattern of their names.
        UsageError: several processes, and one stdin or camera.
    """
    is_one = source == "-" or bool(_CAMERA.fullmatch(source))
    if not (is_one or is_address(source) or os.path.exists(source) or glob.has_magic(source)):
        raise _nothing(source)
    if is_one and processes > 1:
        shared = "the paths on stdin" if source == "-" else source
        raise UsageError(
            f"{processes} processes cannot share {shared}",
            expected="one process, or a folder or glob pattern as the source",
        )


def is_image(file: str) -> bool:
    """Returns whether a file is to be read as an image: it has the ending or begins like one."""
    if os.path.basename(file).startswith(_COPY):
        return False
    if file.lower().endswith(IMAGES):
        return True
    return os.path.isfile(file) and bool(cv2.haveImageReader(for_opencv(file)))


def _from_lines(lines: Any) -> Iterator[Item]:
    for line in iter(partial(lines.readline, _LONGEST_PATH), b""):
        if file := os.fsdecode(line.rstrip(b"\r\n")):
            yield _item(file, "")


def _found(files: Iterable[str], root: str) -> Iterator[Item]:
    left_out = _LeftOut()
    for file in files:
        if is_image(file):
            yield _item(file, root)
        elif not os.path.isdir(file):
            left_out.add(file)
    left_out.say()


def _walk(root: str) -> Iterator[Item]:
    """Yields the images of a folder by name, then those below; linked folders are left out."""
    left_out = _LeftOut()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                found = sorted((one.name, one.is_dir(follow_symlinks=False)) for one in entries)
        except OSError as error:
            reason = f"cannot list the folder {folder}: {error.strerror}"
            yield Item(folder, None, "", partial(_fail, reason))
            continue
        if folder != root and (SETTINGS, False) in found:
            log.warning("left out: %s holds predictions", folder)
            continue
        below = []
        for name, is_folder in found:
            path = os.path.join(folder, name)
            if is_folder:
                below += [] if name in _COPIES else [path]
            elif is_image(path):
                yield _item(path, root)
            else:
                left_out.add(path)
        waiting += reversed(below)
    left_out.say()


def _fail(reason: str) -> NoReturn:
    raise DataError(reason)


def _item(file: str, root: str) -> Item:
    """Returns an image file; its picture is placed as it is below ``root``, and is its alone."""
    path = Path(os.path.relpath(file, root) if root else file)
    *folders, name = path.parts or (".",)
    places = [_folder_name(folder, path.anchor) for folder in folders]
    picture = os.path.join(*places, _picture_name(name))
    if len(os.fsencode(picture)) > 1000:
        picture = _picture_name(str(path))
    return Item(file, None, picture)


def _folder_name(name: str, anchor: str) -> str:
    if name in ("..", anchor):
        return _UP if name == ".." else _ROOT
    return file_name(name, marked=name in (_UP, _ROOT))


def _picture_name(name: str) -> str:
    """Returns the name of a picture, another one for each name: a.jpg, a.png.jpg, a.HASH.jpg."""
    stem, ending = os.path.splitext(name)
    if ending.lower() == ".jpg":
        return file_name(stem, marked=stem.lower().endswith(IMAGES)) + ending
    return f"{file_name(name, marked=ending.lower() not in IMAGES)}.jpg"


def _require_regular(file: str) -> None:
    """Refuses a pipe or device, which may never end; a file that is missing is named later."""
    try:
        kind = other_than_file(os.stat(file))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read the image {file}: {reason}") from None
    if kind:
        raise DataError(f"cannot read the image {file}: it is {kind}")


def _start(file: str) -> bytes:
    """Returns the first bytes of a file, none of one that cannot be read."""
    with contextlib.suppress(DataError):
        return read_bytes(Path(file), most=4096, cut=True)
    return b""


# What FFmpeg takes for a list of other files or addresses, whatever the ending.
_LISTS = (b"#EXTM3U", b"ffconcat", b"<", b"v=0", b"[", b"RTSPtext", b"rtsp:", b"http", b"SMI")


def _is_text(file: str) -> bool:
    """Returns whether a file is text where a video has bytes; OpenCV would open what it names."""
    start = _start(file)
    words = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if words.startswith(_LISTS) or b"#EXTM3U" in start or b"ffconcat" in start:
        return True
    return bool(start) and not any(byte < 9 or 13 < byte < 32 for byte in start)


def _frames(file: str, every: int) -> Iterator[Item]:
    """Returns the frames of a video; only those that are asked for are decoded."""
    capture = None if _is_text(file) else cv2.VideoCapture(for_opencv(file))
    if not capture or not capture.isOpened() or capture.get(cv2.CAP_PROP_FOURCC) == _TEXT:
        raise DataError(
            f"OpenCV cannot open {file}, neither as an image nor as a video",
            expected="a format and codec that it knows",
        )
    return _opened_frames(capture, file, every)


def _opened_frames(capture: cv2.VideoCapture, file: str, every: int) -> Iterator[Item]:
    number, stated = 0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    folder = file_name(Path(file).stem)
    while capture.grab():
        if number % every == 0:
            picture = os.path.join(folder, f"{number:06d}.jpg")
            yield Item(file, number, picture, partial(_decode, capture, file, number))
        number += 1
    capture.release()
    if number < stated:
        log.warning("%s ends after %d frames, its header says %d", file, number, stated)


def _from_camera(source: str, number: int, every: int) -> Iterator[Item]:
    """Returns the frames of a camera, until the command is stopped."""
    capture = cv2.VideoCapture()
    capture.open(number)
    if not capture.isOpened():
        raise DataError(
            f"{source}: OpenCV cannot open this camera",
            expected="camera:0 for the first one, connected and not in use",
        )
    return _opened_frames(capture, source, every)


def _decode(capture: cv2.VideoCapture, file: str, number: int) -> npt.NDArray[np.uint8]:
    fine, frame = capture.retrieve()
    if not fine:
        raise DataError(f"cannot decode frame {number} of {file}")
    return np.asarray(frame, np.uint8)
