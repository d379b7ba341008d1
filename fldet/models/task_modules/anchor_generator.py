"""Anchors in the paper's own terms (Sec. 4, "Anchors"; Table 1c)."""

from collections.abc import Sequence

from mmdet.models.task_modules import AnchorGenerator as MMDetAnchorGenerator

from fldet.registry import TASK_UTILS


@TASK_UTILS.register_module()
class AnchorGenerator(MMDetAnchorGenerator):
    """Anchors of ``num_scales`` sizes and ``len(ratios)`` shapes at every location of a level.

    On a level of size s the anchors have the areas ``(s * 2^(k / num_scales))^2`` for
    k = 0..num_scales-1, each in every ratio. The defaults are the paper's nine per location,
    32 to 813 pixels. State and order of the anchors are those of MMDetection's generator.

    Args:
        sizes: side of the smallest square anchor of each level, in pixels of the network's input.
        strides: distance of neighbouring locations of each level, in pixels.
        num_scales: scales per octave, "#sc" in Table 1c.
        ratios: height over width of the anchors, "#ar" in Table 1c.

    Raises:
        ValueError: ``sizes`` and ``strides`` differ in length, or a value is not positive.
    """

    def __init__(
        self,
        *,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        num_scales: int = 3,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
    ) -> None:
        if len(sizes) != len(strides):
            raise ValueError(
                f"expected one size for each of {len(strides)} strides, got {len(sizes)} sizes"
            )
        if min([*sizes, *strides, *ratios, num_scales]) <= 0:
            raise ValueError("sizes, strides, ratios and num_scales must be positive")
        super().__init__(
            strides=list(strides),
            base_sizes=list(sizes),
            ratios=list(ratios),
            octave_base_scale=1,
            scales_per_octave=num_scales,
        )
