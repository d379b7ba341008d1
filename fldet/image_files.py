"""Image files looked at from outside: are they there, whole, and of which size?

Nothing here imports torch: the functions run in processes that should start fast.
"""

import os
import re
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage

from fldet.drawing import Image
from fldet.errors import DataError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # in any case

_END = 16  # bytes at the end of a file that hold the marker
# Of a JPEG: not the escaped 0xFF of its pixels, nor the markers that restart their decoder.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_ORIENTATION = 0x0112  # EXIF
_TURNED_BY_OPENCV = ("JPEG", "MPO", "PNG")
_DAMAGE = re.compile(r"^(Corrupt JPEG data|Premature end).*", re.MULTILINE)


@dataclass(frozen=True)
class ImageFacts:
    """What a file says of itself.

    Attributes:
        width: in pixels, as training reads the image: after the rotation of its EXIF data.
        height: the same.
        turned: whether EXIF data swap width and height.
        mode: Pillow's name of the pixels, ``RGB``; empty where Pillow does not know the format.
        fault: why the file cannot be used; empty if it can.
        detail: of the fault.
    """

    width: int = 0
    height: int = 0
    turned: bool = False
    mode: str = ""
    fault: str = ""
    detail: str = ""


def missing_files(paths: Iterable[Path | str]) -> list[str]:
    """Returns the files that are not there, sorted, from one listing of each folder."""
    by_folder = defaultdict(set)
    for path in paths:
        folder, name = os.path.split(path)
        by_folder[folder].add(name)
    return sorted(
        path
        for folder, names in by_folder.items()
        for path in (os.path.join(folder, name) for name in names - _listing(folder))
        if not os.path.exists(path)  # names may differ by case or by how letters are composed
    )


def _listing(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder or "."))
    except OSError:
        return set()


def read_lines(file: Path) -> list[str]:
    """Returns the lines of a list of broken images, each once; none if there is no such file."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return list(dict.fromkeys(filter(None, text.split("\n"))))


def is_complete(data: bytes) -> bool:
    """Returns whether a JPEG, PNG or WebP file has its end; True for other formats.

    Not every decoder minds: OpenCV's ``imread`` makes the missing part of a JPEG grey. What
    cameras add behind the end does not matter.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return data.endswith(b"\xff\xd9") or _jpeg_ends(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" in data[-_END:] or _png_ends(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return True


def _jpeg_ends(data: bytes) -> bool:
    """Returns whether the end marker comes, segments (and the thumbnail in one) passed over."""
    position = 2
    while found := _MARKER.search(data, position):
        code, position = found[1][0], found.end()
        if code == 0xD9:
            return True
        if code not in (0x01, 0xD8):  # these two have no length
            position += int.from_bytes(data[position : position + 2], "big")
    return False


def _png_ends(data: bytes) -> bool:
    position = 8
    while position + 12 <= len(data):
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return False


def decode(data: bytes) -> Image | None:
    """Returns an image as (H, W, 3) uint8 BGR, upright as its EXIF data say; None if it is none.

    Grey and CMYK become colours, 16 bits become 8, transparency is dropped.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # no bytes, or more pixels than OpenCV allows
        return None
    return None if image is None else np.asarray(image, np.uint8)


def inspect_image(path: str, deep: bool = False) -> ImageFacts:
    """Returns what a file says of itself, from its header and its end; never raises for a file.

    Args:
        path: the file.
        deep: decode it, and take the decoder's complaints for faults.
    """
    try:
        with open(path, "rb") as file:
            data = file.read() if deep else _ends(file.read(_END), path)
        if not data:
            return ImageFacts(fault="image cannot be read", detail="the file is empty")
        if not is_complete(data):
            data = data if deep else Path(path).read_bytes()
        if not is_complete(data):
            return ImageFacts(fault="image truncated", detail=f"{os.path.getsize(path)} bytes")
        facts = _from_header(path)
        if deep or facts is None:
            return _from_pixels(Path(path).read_bytes() if facts is None else data, facts, deep)
    except OSError as error:
        return ImageFacts(fault="image cannot be read", detail=error.strerror or str(error))
    return facts


def image_size(path: Path) -> tuple[int, int]:
    """Returns (width, height) in pixels as training reads the image.

    Raises:
        DataError: there is no such file, or nothing tells its size.
    """
    facts = _from_header(str(path)) or inspect_image(str(path))
    if facts.fault:
        raise DataError(f"{path}: {facts.fault}: {facts.detail}")
    return facts.width, facts.height


def _ends(start: bytes, path: str) -> bytes:
    """Returns the first and the last bytes of a file, enough for most of ``is_complete``."""
    size = os.path.getsize(path)
    if start.startswith(b"RIFF"):  # its length is what tells
        return Path(path).read_bytes()
    with open(path, "rb") as file:
        file.seek(max(len(start), size - _END))
        return start + file.read()


def _from_header(path: str) -> ImageFacts | None:
    """Returns size and mode, None where only OpenCV can tell them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images with very many pixels
        try:
            with PillowImage.open(path) as image:
                size, mode, kind = image.size, image.mode, image.format
                orientation = image.getexif().get(_ORIENTATION, 1)
        except Exception:  # damaged headers make Pillow raise what they like
            return None
    turned = orientation in (5, 6, 7, 8)
    if kind not in _TURNED_BY_OPENCV and (kind == "TIFF" or turned):
        return None
    if not cv2.haveImageReader(path):
        return None
    width, height = reversed(size) if turned else size
    return ImageFacts(width, height, turned, mode)


def _from_pixels(data: bytes, header: ImageFacts | None, deep: bool) -> ImageFacts:
    with _captured_stderr() as complaints:
        image = decode(data)
    if image is None:
        return ImageFacts(
            fault="image cannot be read", detail=f"OpenCV cannot decode it ({_kind_of(data)})"
        )
    height, width = image.shape[:2]
    damage = _DAMAGE.search("".join(complaints)) if deep else None
    return ImageFacts(
        *(width, height, bool(header and header.turned), header.mode if header else ""),
        *(("image damaged", damage[0].strip()) if damage else ()),
    )


def _kind_of(data: bytes) -> str:
    """Returns in a few words what bytes look like that are no image."""
    try:
        data[:64].decode("ascii")
    except UnicodeDecodeError:
        return f"it starts with {data[:8].hex(' ')}"
    return "it looks like text"


@contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Collects what C libraries write: libjpeg names damage there and nowhere else."""
    lines: list[str] = []
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines.append(file.read().decode(errors="replace"))
