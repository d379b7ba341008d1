"""SSD's default boxes in the terms of the authors' layer, PriorBox."""

from collections.abc import Sequence

from mmdet.models.task_modules import SSDAnchorGenerator

from fldet.registry import TASK_UTILS


@TASK_UTILS.register_module()
class DefaultBoxes(SSDAnchorGenerator):
    """Default boxes of SSD: a small and a larger square, and the small one in other shapes.

    At each cell of a map stand, in this order, the square of side ``min_size``, that of side
    ``sqrt(min_size * max_size)``, and for each ratio r of the map two boxes of the area
    ``min_size ** 2``, first with width over height r, then with 1 / r (Liu et al. 2016, Sec. 2.2;
    PriorBox of the authors' Caffe, in its order). Boxes are not clipped to the image.

    Args:
        strides: distance of neighbouring cells of each map, in pixels of the network's input.
        min_sizes: side of the small square of each map, in whole pixels: PriorBox cuts off what
            comes after the point.
        max_sizes: of each map, usually the ``min_sizes`` of the next one.
        ratios: for each map those beside 1, greater than 1.
        centers: x and y of the centre of the first cell of each map, in pixels; half the stride
            if None.

    Raises:
        ValueError: lengths differ, or a size is not a whole number of pixels, min_size < max_size.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int],
        min_sizes: Sequence[int],
        max_sizes: Sequence[int],
        ratios: Sequence[Sequence[float]],
        centers: Sequence[float] | None = None,
    ) -> None:
        given = [strides, min_sizes, max_sizes, ratios, strides if centers is None else centers]
        if len({len(values) for values in given}) != 1:
            raise ValueError(
                f"expected one value for each of {len(strides)} strides, got "
                f"{len(min_sizes)} min_sizes, {len(max_sizes)} max_sizes, {len(ratios)} ratios, "
                f"{len(given[-1])} centers"
            )
        for small, large in zip(min_sizes, max_sizes, strict=True):
            if type(small) is not int or type(large) is not int or not 0 < small < large:
                raise ValueError(
                    "min_sizes and max_sizes must be whole numbers of pixels, 0 < min < max, got "
                    f"{small} and {large}"
                )
        super().__init__(
            strides=list(strides),
            ratios=[list(some) for some in ratios],
            min_sizes=list(min_sizes),
            max_sizes=list(max_sizes),
            scale_major=False,
        )
        if centers is not None:
            self.centers = [(float(center), float(center)) for center in centers]
            self.base_anchors = self.gen_base_anchors()
