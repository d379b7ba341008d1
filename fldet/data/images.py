"""Images of a data set: reading one, and keeping account of those that are broken."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio

from fldet.data.image_files import (
    MEND,
    broken,
    decode,
    header_of,
    image_bytes,
    part_of_sides,
    read_lines,
    require_whole,
    turned_upright,
    whole_shape,
)
from fldet.errors import BrokenImageError, ConfigError, DataError, shorten
from fldet.registry import TRANSFORMS

log = logging.getLogger("fldet")

_USUAL = ("color", "cv2")  # color_type and imdecode_backend that can decode a part of the sides


# By the second name MMDetection's DetInferencer finds what it puts its own loader in the place of.
@TRANSFORMS.register_module(name=["LoadImage", "LoadImageFromFile"])
class LoadImage(LoadImageFromFile):
    """Reads an image, as mmcv's ``LoadImageFromFile`` does, and names one that is broken.

    Broken is a file that is missing, empty, cut off, no image or too large to be decoded, a pipe or
    device, and one whose size is not that of its annotation. An image is read upright, as its EXIF
    data say, so the annotation gives the size and the boxes of the upright image. The result is
    (H, W, 3) uint8 BGR: grey becomes three channels, 16 bits become 8, transparency is dropped,
    CMYK is converted. Of an entry with a ``tile`` only that part of the picture is handed on.

    Args:
        largest: (longer, shorter) side in pixels of the largest image that the next steps make of
            it. A JPEG is decoded at a half, a quarter or an eighth of its sides if it is no smaller
            then; all but ``img`` is as of the whole picture, and ``fldet.Resize`` has to follow,
            which gives it the size that it has without. None decodes all in full.
        keep_ratio: whether they keep its ratio; else ``largest`` bounds both sides.
        **kwargs: of ``LoadImageFromFile``; ``ignore_empty`` has no effect.

    Raises:
        BrokenImageError: names the file and what is wrong with it.
    """

    def __init__(
        self, largest: Sequence[int] | None = None, keep_ratio: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if largest is not None and not (
            isinstance(largest, (list, tuple))
            and len(largest) == 2
            and all(type(side) is int and side > 0 for side in largest)
        ):
            raise ConfigError(
                f"largest of LoadImage is {shorten(largest)}", expected="two numbers of pixels"
            )
        self.largest = largest
        self.keep_ratio = keep_ratio

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Returns ``results`` with ``img``, ``img_shape`` and ``ori_shape``.

        They have ``img_path``; where ``width`` and ``height`` are there, these must fit. With
        ``tile``, xyxy in pixels of the picture, they are of the tile, and ``picture`` is the width
        and height that must fit.
        """
        path = str(results["img_path"])
        data = self._read(path)
        header = header_of(data)
        if header.fault:
            raise broken(path, header.fault)
        part, largest = 1, self.largest
        if largest and "tile" not in results and (self.color_type, self.imdecode_backend) == _USUAL:
            part = part_of_sides(data, header, largest, self.keep_ratio)
        image = self._decode(data, path, header.turn, part)
        height, width = size = whole_shape(image.shape, header, part)
        if part > 1:
            results["whole_shape"] = size
        annotated = results.get("width", width), results.get("height", height)
        annotated = results.get("picture", annotated)
        # Flags that leave the EXIF orientation alone read pixels as they are stored.
        if annotated != (width, height):
            raise broken(
                path,
                f"it has {width} x {height} pixels, its annotation says "
                f"{annotated[0]:g} x {annotated[1]:g}",
            )
        if "tile" in results:
            x1, y1, x2, y2 = results["tile"]
            image = np.ascontiguousarray(image[y1:y2, x1:x2])
        results["img"] = image.astype("float32") if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = size if part > 1 else image.shape[:2]
        return results

    def _read(self, path: str) -> bytes:
        try:
            if self.file_client_args is not None:
                data = fileio.FileClient.infer_client(self.file_client_args, path).get(path)
            elif self.backend_args is not None or "://" in path:
                data = fileio.get(path, backend_args=self.backend_args)
            else:
                return image_bytes(path)
        except OSError as error:
            raise broken(path, error.strerror or str(error)) from None
        require_whole(path, data)
        return bytes(data)

    def _decode(self, data: bytes, path: str, turn: int, part: int) -> Any:
        flag = self.color_type
        if self.imdecode_backend != "cv2" or flag not in ("color", "grayscale"):
            turn = 1  # Pillow turns all kinds, other flags none
        if turn > 1:
            flag += "_ignore_orientation"
        try:
            if part > 1:
                image = decode(data, part)
            else:
                image = mmcv.imfrombytes(data, flag=flag, backend=self.imdecode_backend)
        except MemoryError:
            raise
        except Exception as error:  # each decoder has its own
            raise broken(path, f"cannot be decoded: {' '.join(str(error).split())}") from None
        if image is None:
            raise broken(path, "not an image that can be decoded")
        return turned_upright(image, turn) if turn > 1 else image


class BrokenImages:
    """The broken images that a training met, each once.

    Args:
        limit: so many are left out; one more is an error.
        file: text file that all processes of a run append to, a line for each image. None keeps
            the account in this object and logs each image at once.
    """

    def __init__(self, limit: int, file: Path | None = None) -> None:
        self.limit = limit
        self.file = file
        self._lines: list[str] = []

    def add(self, error: BrokenImageError) -> None:
        """Takes account of a broken image; there may be ``limit`` of them."""
        line = " ".join(error.message.splitlines())
        lines = self.lines()
        if line not in lines:
            self._append(line)
            lines = self.lines()
        if len(lines) > self.limit:
            raise DataError(
                f"broken training images: {len(lines)}; the last: {'; '.join(lines[-3:])}",
                expected=f"at most {self.limit} (max_broken_images of the training data set)",
                hint=MEND,
            ) from None

    def lines(self) -> list[str]:
        """Returns what is known of each broken image: ``path: reason``."""
        return self._lines if self.file is None else read_lines(self.file)

    def _append(self, line: str) -> None:
        if self.file is None:
            self._lines.append(line)
            log.warning("broken image left out: %s", line)
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:  # one write of a line: those of other processes come before or after it
            os.write(handle, f"{line}\n".encode(errors="backslashreplace"))
        finally:
            os.close(handle)
