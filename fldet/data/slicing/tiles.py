"""Large pictures as tiles: entries of a data set, each with a part of a picture and its boxes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fldet.data.slicing.slices import check_slices, slices
from fldet.errors import UsageError, shorten
from fldet.numeric import is_number


@dataclass(frozen=True)
class Tiles:
    """How the pictures of a training are cut.

    Args:
        size: width and height of a tile in pixels of the picture.
        overlap: share of a tile that neighbours have in common, at least.
        visible: a box is learned in a tile that shows this share of its area or more, clipped to
            the tile; with less it is a region to be ignored.
        empty: so many tiles without a box to learn are kept for each tile with one, at most.

    Raises:
        UsageError: one of them cannot be.
    """

    size: int
    overlap: float = 0.2
    visible: float = 0.5
    empty: float = 0.25

    def __post_init__(self) -> None:
        check_slices(self.size, self.overlap)
        if not (is_number(self.visible) and 0 < self.visible <= 1):
            raise UsageError(
                f"visible is {shorten(self.visible)}", expected="a share above 0, at most 1"
            )
        if not (is_number(self.empty) and 0 <= self.empty < math.inf):
            raise UsageError(f"empty is {shorten(self.empty)}", expected="a number, at least 0")


def tiled(entries: Sequence[Mapping[str, Any]], tiles: Tiles) -> list[dict[str, Any]]:
    """Returns the entries of a data set with one for each tile in the place of a large picture.

    A picture no larger than a tile stays as it is, also without objects. Of the tiles without a box
    to learn those that are kept lie evenly in the list, the same each time.

    Args:
        entries: with ``width``, ``height`` and ``instances``, see ``CocoDataset.load_data_list``.
        tiles: how pictures are cut.

    Returns:
        The entries, those of tiles with ``tile`` (xyxy in pixels of the picture) and ``picture``
        (its width and height); ``width``, ``height`` and boxes are those of the tile.
    """
    found = [one for entry in entries for one in _tiles_of(entry, tiles)]
    empty = [row for row, one in enumerate(found) if "tile" in one and not _has_box(one)]
    with_box = sum("tile" in one for one in found) - len(empty)
    most = min(len(empty), math.ceil(tiles.empty * with_box))
    kept = {empty[number * len(empty) // most] for number in range(most)}
    left_out = set(empty) - kept
    return [one for row, one in enumerate(found) if row not in left_out]


def _tiles_of(entry: Mapping[str, Any], tiles: Tiles) -> list[dict[str, Any]]:
    width, height = int(entry["width"]), int(entry["height"])
    if max(width, height) <= tiles.size:
        return [dict(entry)]
    return [
        {
            **entry,
            "tile": tuple(tile),
            "picture": (width, height),
            "width": tile[2] - tile[0],
            "height": tile[3] - tile[1],
            "instances": _visible(entry["instances"], tile, (width, height), tiles.visible),
        }
        for tile in slices(width, height, tiles.size, tiles.overlap).tolist()
    ]


def _visible(
    instances: Sequence[Mapping[str, Any]], tile: Sequence[int], size: tuple[int, int], least: float
) -> list[dict[str, Any]]:
    """Returns what of the instances of a picture of a size is in a tile, in its pixels."""
    boxes: Any = np.array([one["bbox"] for one in instances], float).reshape(-1, 4)
    boxes = boxes.clip(0, np.tile(size, 2))
    parts = boxes.clip(np.tile(tile[:2], 2), np.tile(tile[2:], 2))
    sides = parts[:, 2:] - parts[:, :2]
    shares = sides.prod(axis=1) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).clip(1e-9)
    parts = parts - np.tile(tile[:2], 2)
    found = []
    for one, part, side, share in zip(instances, parts.tolist(), sides, shares, strict=True):
        is_seen = share >= least
        if is_seen or (side >= 1).all():  # of the rest no strip thinner than a pixel
            ignored = int(bool(one["ignore_flag"]) or not is_seen)
            found.append({**one, "bbox": part, "ignore_flag": ignored})
    return found


def _has_box(entry: Mapping[str, Any]) -> bool:
    return any(not one["ignore_flag"] for one in entry["instances"])
