"""Sizes of priors found by clustering boxes, as those of YOLOv2."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_MOST_ROUNDS = 100


def cluster_sizes(sizes: Floats, count: int) -> Floats:
    """Returns the mean sizes of ``count`` clusters of boxes, the smallest first.

    k-means whose distance is 1 - IoU of two boxes with one centre (Redmon and Farhadi, YOLO9000,
    Sec. 2, "Dimension clusters"). It begins with quantiles of the area, so the same boxes give the
    same clusters; one that has no box keeps the size that it had.

    Args:
        sizes: (N, 2) widths and heights above 0, N >= 1.
        count: of clusters, >= 1.

    Returns:
        (count, 2) widths and heights, in the unit of ``sizes``.

    Raises:
        ValueError: there is no box or no cluster, or a size is not above 0.
    """
    if not len(sizes) or count < 1 or sizes.min() <= 0:
        raise ValueError(f"expected sizes above 0 and a count from 1, got {sizes.shape}, {count}")
    by_area = sizes[np.argsort(sizes.prod(axis=1), kind="stable")]
    places = (np.arange(count) + 0.5) / count * len(sizes)
    centres = by_area[places.astype(int)].astype(float)
    for _ in range(_MOST_ROUNDS):
        nearest = iou_of_sizes(sizes, centres).argmax(axis=1)
        moved = np.array(
            [
                sizes[nearest == index].mean(axis=0) if (nearest == index).any() else centre
                for index, centre in enumerate(centres)
            ]
        )
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres[np.argsort(centres.prod(axis=1), kind="stable")]


def iou_of_sizes(a: Floats, b: Floats) -> Floats:
    """Returns the (N, M) IoU of (N, 2) and (M, 2) widths and heights of boxes with one centre."""
    common = np.minimum(a[:, None], b[None]).prod(axis=2)
    union = a.prod(axis=1)[:, None] + b.prod(axis=1)[None] - common
    return np.asarray(common / union)
