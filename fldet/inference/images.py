"""What people pass as images, as what a detector reads: files and arrays in BGR order."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageOps

from fldet.errors import DataError
from fldet.inference.remote import fetch_image, is_address
from fldet.inference.sources import find_items, is_image

Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Given:
    """One image."""

    content: str | Array  # the file, or (H, W, 3) uint8 in BGR order
    kept: str | Array | None  # for drawing; None of a frame, of which there may be thousands


def is_one(images: Any) -> bool:
    """Returns whether what was passed is one image, and not several or a folder of them."""
    if isinstance(images, (str, Path)):
        return _is_image_file(images)
    if isinstance(images, np.ndarray) or _is_tensor(images):
        return images.ndim < 4
    return isinstance(images, Pillow.Image)


def given_images(images: Any) -> Iterator[Given]:
    """Yields the images in what was passed: one or several of the kinds of ``Detector.predict``.

    Raises:
        DataError: an image is of none of these kinds, or a file cannot be read.
    """
    if is_one(images):
        yield _one(images)
    elif isinstance(images, (str, Path)):
        yield from _of_source(str(images))
    elif isinstance(images, (np.ndarray, Iterable)) or _is_tensor(images):
        for image in images:
            if isinstance(image, (list, tuple)):
                raise DataError(f"a {type(image).__name__} in a list is no image")
            yield from given_images(image)
    else:
        raise DataError(
            f"a {type(images).__name__} is no image",
            expected="a path, a PIL image, an array, a tensor, or several",
        )


def _is_image_file(path: str | Path) -> bool:
    """Returns whether a path names no folder, video or pattern; one that is missing is named."""
    text = str(path)
    if is_address(text):
        return True
    if Path(text).is_file():
        return is_image(text) or not Path(text).stat().st_size
    return not (Path(text).is_dir() or any(letter in text for letter in "*?["))


def _of_source(source: str) -> Iterator[Given]:
    for item in find_items(source):
        content = item.read()
        if isinstance(content, DataError):
            raise content
        yield Given(content, content if isinstance(content, str) else None)


def _one(image: Any) -> Given:
    if isinstance(image, (str, Path)) and not is_address(str(image)):
        return Given(str(image), str(image))
    pixels = fetch_image(image) if isinstance(image, str) else image
    if isinstance(image, Pillow.Image):
        upright = ImageOps.exif_transpose(image) or image
        pixels = np.ascontiguousarray(np.asarray(upright.convert("RGB"))[:, :, ::-1])
    elif _is_tensor(image):
        pixels = _of_tensor(image)
    return Given(pixels, pixels)


def _is_tensor(image: Any) -> bool:
    """Returns whether this is a tensor of torch, which is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


def _of_tensor(image: Any) -> Array:
    """Returns the pixels of a (3, H, W) tensor in RGB order, uint8 or floats in [0, 1]."""
    import torch

    fits = image.ndim == 3 and image.shape[0] == 3 and image.numel()
    values = image.detach().cpu()
    if values.is_floating_point() and fits:
        fits = bool(((values >= 0) & (values <= 1)).all())
        values = (values.float() * 255).round().to(torch.uint8)
    if not fits or values.dtype != torch.uint8:
        raise DataError(
            f"a tensor of shape {tuple(image.shape)} and type {image.dtype} is no image",
            expected="(3, H, W) in RGB order, uint8 or floats from 0 to 1",
        )
    return np.ascontiguousarray(values.numpy().transpose(1, 2, 0)[:, :, ::-1])
