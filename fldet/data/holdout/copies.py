"""Near copies among images: the same picture resized, compressed anew, brightened or cropped a bit.

An image is compared by its grey pixels, averaged to a small square, without mean and contrast. Two
images are near copies where the correlation of these is high; so that a crop does not shift one
against the other, one of the two is also compared without its margin.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from fldet.data.image_files import header_of, is_complete, turned_upright
from fldet.errors import DataError
from fldet.files import MOST_OF_IMAGE, read_bytes
from fldet.processes import core_count

Thumbnails = npt.NDArray[np.float32]
Track = Callable[[Iterable[Thumbnails | None], int], Iterable[Thumbnails | None]]

SIDE = 16  # pixels of the small square
# Shares of the image that are cut off before it is averaged: top, left, bottom, right.
MARGINS = (
    *((share,) * 4 for share in (0.0, 0.02, 0.04, 0.06)),
    *((top, left, 0.04 - top, 0.04 - left) for top in (0.0, 0.04) for left in (0.0, 0.04)),
)
ALIKE = 0.93  # least correlation of near copies

_FLAT = 1.0  # grey levels: an image whose small square varies by less is of one colour
_BLOCK = 256  # images that are compared with all others at once
_REDUCED = (  # decoding at a part of the size is faster, of JPEG by far
    (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
)


def read_thumbnails(
    paths: Sequence[Path], track: Track = lambda found, _: found
) -> list[Thumbnails | None]:
    """Returns what ``group_copies`` compares of each image, None for one that cannot be read.

    Args:
        paths: of the image files, read in as many threads as there are cores.
        track: wraps the results as they come, with their number, to show progress.
    """
    with ThreadPoolExecutor(core_count()) as pool:
        return list(track(pool.map(_thumbnail_of, paths), len(paths)))


def _thumbnail_of(path: Path) -> Thumbnails | None:
    try:
        data = read_bytes(path, "image", most=MOST_OF_IMAGE)
    except (DataError, OSError, ValueError):  # ValueError: a name with a null byte
        return None
    image = _decode_grey(data) if is_complete(data) else None
    return None if image is None else thumbnails(image)


def _decode_grey(data: bytes) -> npt.NDArray[np.uint8] | None:
    """Returns an image as (H, W) uint8, upright, maybe at a part of its size."""
    header = header_of(data)
    if header.fault:
        return None
    shorter = min(header.width, header.height)
    flags = (flag for part, flag in _REDUCED if shorter >= 4 * SIDE * part)
    flag = next(flags, cv2.IMREAD_GRAYSCALE)
    if header.turn > 1:
        flag |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        return None
    return None if image is None else turned_upright(np.asarray(image, np.uint8), header.turn)


def thumbnails(image: npt.NDArray[np.uint8]) -> Thumbnails:
    """Returns (margins, 256): an image (H, W) as small squares of mean 0 and length 1.

    The first is of the whole image, the others are without a margin. Those of an image of one
    colour are 0.
    """
    squares = [_square(image, margin) for margin in MARGINS]
    vectors = np.stack(squares).reshape(len(MARGINS), -1)
    vectors -= vectors.mean(1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > _FLAT * SIDE, vectors / np.maximum(lengths, 1e-6), 0)


def _square(
    image: npt.NDArray[np.uint8], margins: tuple[float, float, float, float]
) -> npt.NDArray[np.float32]:
    height, width = image.shape
    top, left, bottom, right = (
        round(share * side) for share, side in zip(margins, (height, width) * 2, strict=True)
    )
    inner = image[top : height - bottom, left : width - right]
    return cv2.resize(inner.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def group_copies(found: Sequence[Thumbnails | None], names: Sequence[str] = ()) -> list[int]:
    """Returns the group of each image, by the index of its first: near copies have the same one.

    Copies of copies are in it too. Images of one colour are alike; one that could not be read is
    alone, and so are all where there is nothing to compare.

    Args:
        found: of ``read_thumbnails``.
        names: of the files, where they count: what Roboflow writes, ``NAME.rf.HASH.jpg``, are
            copies of NAME.
    """
    group = np.arange(len(found))
    seen = np.array([index for index, one in enumerate(found) if one is not None], np.int64)
    if len(seen):
        vectors = np.stack([one for one in found if one is not None])
        flat = ~vectors[:, 0].any(1)
        join(group, seen[flat])
        for start in range(0, len(seen), _BLOCK):
            for row, alike in enumerate(_alike(vectors, start), start):
                join(group, seen[[row, *np.flatnonzero(alike)]])
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        source, mark, _ = name.rpartition(".rf.")
        if mark:
            join(group, np.array([first.setdefault(source, index), index]))
    return [int(one) for one in group]


def _alike(vectors: Thumbnails, start: int) -> npt.NDArray[np.bool_]:
    """Returns (block, N): which images are near copies of those from ``start`` on."""
    block = vectors[start : start + _BLOCK, 0]
    alike = np.zeros((len(block), len(vectors)), bool)
    for margin in range(vectors.shape[1]):
        alike |= block @ vectors[:, margin].T >= ALIKE
    return alike


def join(group: npt.NDArray[np.int64], members: npt.NDArray[np.int64]) -> None:
    """Makes one group of those that some images are in, in place.

    Args:
        group: (N,) of each image.
        members: indices of images.
    """
    joined = np.unique(group[members])
    if len(joined) > 1:
        group[np.isin(group, joined)] = joined[0]
