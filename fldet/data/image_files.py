"""Image files looked at from outside: are they there, whole, and of which size?

Nothing here imports torch: the functions run in processes that should start fast.
"""

import contextlib
import hashlib
import io
import os
import re
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from fldet.errors import BrokenImageError, DataError
from fldet.files import MOST_OF_IMAGE, other_than_file

Image = npt.NDArray[np.uint8]

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # in any case

MOST_PIXELS = 2**29 // 3  # of an image: 512 MiB as colours of 8 bits; Pillow's limit too

MEND = "fldet data check CONFIG --deep finds all broken images"

_END = 16  # bytes at the end of a file that hold the marker
# Of a JPEG: not the escaped 0xFF of its pixels, nor the markers that restart their decoder.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_SIZE_OF_JPEG = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers before height and width
_ORIENTATION = 0x0112  # EXIF
_MOST_CHUNKS = 10_000  # of a PNG that are looked through for EXIF data
_TURNED_BY_OPENCV = ("", "JPEG", "MPO", "PNG", "TIFF")
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_DAMAGE = re.compile(r"^(Corrupt JPEG data|Premature end).*", re.MULTILINE)


@dataclass(frozen=True)
class ImageFacts:
    """What a file says of itself."""

    width: int = 0  # in pixels, as training reads the image: as its EXIF data turn it
    height: int = 0
    turned: bool = False  # whether EXIF data swap width and height
    mode: str = ""  # Pillow's name of the pixels, ``RGB``; empty where Pillow does not know it
    fault: str = ""  # why the file cannot be used; empty if it can
    detail: str = ""
    digest: str = ""  # of all bytes, where they were read


_HDR = "HDR"  # Radiance
_SIZE_OF_HDR = re.compile(rb"[-+]Y (\d{1,9}) [-+]X (\d{1,9})")


@dataclass(frozen=True)
class Header:
    """What a file says before it is decoded; zeros where that is not known."""

    width: int = 0  # in pixels, as they are stored
    height: int = 0
    format: str = ""  # Pillow's name; empty for JPEG and PNG, whose headers are read here
    mode: str = ""  # Pillow's name of the pixels
    orientation: int = 1  # of the EXIF data, 1 to 8

    @property
    def fault(self) -> str:
        """Why the image is not decoded: it would fill the memory; empty if nothing is wrong."""
        # the decoders of these take four times the memory
        most = MOST_PIXELS // 4 if self.format in ("AVIF", _HDR) else MOST_PIXELS
        return f"it has more than {most} pixels" if self.width * self.height > most else ""

    @property
    def turn(self) -> int:
        """The orientation that is left to us: OpenCV turns JPEG, PNG and TIFF, others not."""
        return 1 if self.format in _TURNED_BY_OPENCV else self.orientation


def for_opencv(path: str) -> Any:
    """Returns the name of a file as OpenCV takes it: half a character would end the process.

    So Python reads bytes of a name that are no text. Every name for OpenCV passes here.
    """
    return os.fsencode(path) if os.name == "posix" else path.encode(errors="replace").decode()


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


def is_complete(data: bytes, size: int | None = None) -> bool:
    """Returns whether a JPEG, PNG or WebP file has its end; True for other formats.

    Not every decoder minds: OpenCV's ``imread`` makes the missing part of a JPEG grey. What cameras
    add behind the end does not matter. Where ``data`` are the first and last bytes only, ``size``
    is that of the file.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return data.endswith(b"\xff\xd9") or any(code == 0xD9 for code, _ in _jpeg_markers(data))
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" in data[-_END:] or _png_ends(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return (size or len(data)) >= 8 + int.from_bytes(data[4:8], "little")
    return True


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields the markers of a JPEG with the places behind them, but for those of a thumbnail."""
    position = 2
    while found := _MARKER.search(data, position):
        code, position = found[1][0], found.end()
        yield code, position
        if code not in (0x01, 0xD8, 0xD9):  # these have no length
            position += int.from_bytes(data[position : position + 2], "big")


def _png_ends(data: bytes) -> bool:
    position = 8
    while position + 12 <= len(data):
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return False


def header_of(data: bytes) -> Header:
    """Returns what has to be known of a file before it is decoded.

    The header of JPEG and PNG is read here: Pillow takes longer, and refuses what OpenCV decodes.
    """
    if data.startswith(b"\x89PNG"):
        width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
        return Header(width, height)
    if data.startswith(b"\xff\xd8\xff"):
        places = (place for code, place in _jpeg_markers(data) if code in _SIZE_OF_JPEG)
        place = next(places, len(data))
        height, width = (int.from_bytes(data[place + i : place + i + 2], "big") for i in (3, 5))
        return Header(width, height)
    if found := _SIZE_OF_HDR.search(data[:4096]) if data.startswith(b"#?R") else None:
        return Header(int(found[2]), int(found[1]), _HDR)  # which Pillow does not know
    return _pillow_header(io.BytesIO(data)) or Header()


def _pillow_header(source: str | io.BytesIO) -> Header | None:
    """Returns the header as Pillow reads it, without a pixel; None where it cannot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)
            with PillowImage.open(source) as image:
                width, height = image.size
                if image.format == "TIFF":  # Pillow may give the size after the rotation
                    width, height = (int(image.tag_v2[tag]) for tag in (256, 257))
                kind, orientation = image.format or "", _orientation(image)
                return Header(width, height, kind, image.mode, orientation)
    except PillowImage.DecompressionBombError:
        return Header(MOST_PIXELS, 2)
    except Exception:  # damaged headers make Pillow raise what they like
        return None


def _orientation(image: PillowImage.Image) -> int:
    """Returns the EXIF orientation, 1 where there is none.

    Of a PNG that which stands before the pixels: for the rest Pillow would decode them.
    """
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return _valid(image.getexif().get(_ORIENTATION, 1))


def turned_upright(image: Image, orientation: int) -> Image:
    """Returns an image (H, W) or (H, W, C) as its EXIF orientation, 1 to 8, wants it to be seen."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    vertical, horizontal = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(image[:: -1 if vertical else 1, :: -1 if horizontal else 1])


def image_bytes(path: str) -> bytes:
    """Returns the content of an image file that is whole, as far as its end says.

    Raises:
        BrokenImageError: it is missing, empty, cut off, too large, or a pipe or device.
    """
    try:
        facts = os.stat(path)
        if kind := other_than_file(facts):
            raise broken(path, f"it is {kind}")
        if facts.st_size > MOST_OF_IMAGE:
            raise broken(path, f"it has {facts.st_size} bytes, more than {MOST_OF_IMAGE}")
        data = Path(path).read_bytes()
    except OSError as error:
        raise broken(path, error.strerror or str(error)) from None
    require_whole(path, data)
    return data


def require_whole(path: str, data: bytes) -> None:
    """Does nothing if the content of an image file is whole, as far as its end says.

    Raises:
        BrokenImageError: it is empty or cut off.
    """
    if not data:
        raise broken(path, "the file is empty")
    if not is_complete(data):
        raise broken(path, f"truncated after {len(data)} bytes")


def broken(path: str, reason: str) -> BrokenImageError:
    """Returns the error about an image file that is broken."""
    return BrokenImageError(
        f"{path}: {reason}",
        expected="an image, whole and of the annotated size",
        hint=MEND,
    )


def part_of_sides(data: bytes, header: Header, largest: Sequence[int], keep_ratio: bool) -> int:
    """Returns 2, 4 or 8 if decoding that part of each side is enough, 1 if all pixels are needed.

    Args:
        data: of the file.
        header: of the file.
        largest: (longer, shorter) side in pixels of what is made of the image.
        keep_ratio: whether that has the ratio of the image; else ``largest`` bounds both sides.
    """
    if not data.startswith(b"\xff\xd8\xff"):  # other decoders do not skip
        return 1
    short, long = sorted((header.width, header.height))
    most, least = largest
    ratio = max(long / most, short / least) if keep_ratio else short / max(most, least)
    part = next((part for part in (8, 4, 2) if part <= ratio), 1)
    # Two sides that differ and no longer do: which way it was turned could not be told.
    return 1 if short != long and -(-short // part) == -(-long // part) else part


def whole_shape(shape: Sequence[int], header: Header, part: int) -> tuple[int, int]:
    """Returns the (height, width) of a whole image, upright, of which a part was decoded."""
    stored = header.height, header.width
    if part == 1:
        return shape[0], shape[1]
    is_upright = tuple(shape[:2]) == tuple(-(-side // part) for side in stored)
    return stored if is_upright else stored[::-1]


def decode(data: bytes, part: int = 1) -> Image | None:
    """Returns an image as (H, W, 3) uint8 BGR, upright as its EXIF data say; None if it is none.

    Grey and CMYK become colours, 16 bits become 8, transparency is dropped. One of more than
    ``MOST_PIXELS`` is not decoded. Of a JPEG a ``part`` of the sides, as ``part_of_sides`` gives
    it, may be decoded.
    """
    header = header_of(data)
    if header.fault:
        return None
    flags = _REDUCED[part] | (cv2.IMREAD_IGNORE_ORIENTATION if header.turn > 1 else 0)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # no bytes, or more pixels than OpenCV allows
        return None
    return None if image is None else turned_upright(np.asarray(image, np.uint8), header.turn)


def inspect_image(path: str, deep: bool = False) -> ImageFacts:
    """Returns what a file says of itself, from its header and its end; never raises for a file.

    What is no regular file is not opened. ``deep`` decodes it, and takes the decoder's complaints
    for faults.
    """
    try:
        facts = os.stat(path)
        if kind := other_than_file(facts):
            return ImageFacts(fault="image cannot be read", detail=f"it is {kind}")
        if facts.st_size > MOST_OF_IMAGE:
            return ImageFacts(fault="image too large", detail=f"{facts.st_size} bytes")
        with open(path, "rb") as file:
            data = file.read() if deep else _ends(file, facts.st_size)
        if not data:
            return ImageFacts(fault="image cannot be read", detail="the file is empty")
        if not is_complete(data, facts.st_size) and not is_complete(Path(path).read_bytes()):
            return ImageFacts(fault="image truncated", detail=f"{facts.st_size} bytes")
        header = _from_header(path)
        if deep:
            digest = hashlib.blake2b(data, digest_size=16).hexdigest()
            return replace(_from_pixels(data, header, deep), digest=digest)
        if header is None:
            return _from_pixels(Path(path).read_bytes(), header, deep)
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or str(error)
        return ImageFacts(fault="image cannot be read", detail=reason)
    return header


def image_size(path: Path) -> tuple[int, int]:
    """Returns (width, height) in pixels as training reads the image.

    Raises:
        DataError: there is no such file, or nothing tells its size.
    """
    facts = (_from_header(str(path)) if path.is_file() else None) or inspect_image(str(path))
    if facts.fault:
        raise DataError(f"{path}: {facts.fault}: {facts.detail}")
    return facts.width, facts.height


def _ends(file: BinaryIO, size: int) -> bytes:
    """Returns the first and the last bytes of a file, enough for most of ``is_complete``."""
    start = file.read(_END)
    file.seek(max(len(start), size - _END))
    return start + file.read()


def _from_header(path: str) -> ImageFacts | None:
    """Returns size and mode, None where only OpenCV can tell them."""
    header = _pillow_header(path)
    if header is None:
        return None
    if header.fault:
        return ImageFacts(fault="image too large", detail=header.fault)
    if not cv2.haveImageReader(for_opencv(path)):
        return None
    orientation = header.orientation
    if header.format == "PNG" and orientation == 1:
        orientation = _late_orientation(path)
    turned = orientation >= 5
    width, height = (header.width, header.height)[:: -1 if turned else 1]
    return ImageFacts(width, height, turned, header.mode)


def _late_orientation(path: str) -> int:
    """Returns the EXIF orientation that a PNG has behind its pixels, which are passed over."""
    exif = PillowImage.Exif()
    with open(path, "rb") as file:
        file.seek(8)
        for _ in range(_MOST_CHUNKS):
            length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            if not kind:
                break
            if kind == b"eXIf":
                with contextlib.suppress(Exception):  # damaged, which Pillow says in many ways
                    exif.load(b"Exif\0\0" + file.read(length))
                break
            file.seek(length + 4, os.SEEK_CUR)
    return _valid(exif.get(_ORIENTATION, 1))


def _valid(orientation: object) -> int:
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _from_pixels(data: bytes, header: ImageFacts | None, deep: bool) -> ImageFacts:
    if fault := header_of(data).fault:
        return ImageFacts(fault="image too large", detail=fault)
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
