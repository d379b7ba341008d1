"""Regions cropped and resized to one size, as G-RMI's detectors do (arXiv 1611.10012, Sec. 3.1)."""

from typing import Any

from mmdet.models.roi_heads.roi_extractors.base_roi_extractor import BaseRoIExtractor
from torch import Tensor

from fldet.ops.roi_align import widened
from fldet.registry import MODELS


@MODELS.register_module()
class CropRoIExtractor(BaseRoIExtractor):
    """Samples one map at ``crop_size`` by ``crop_size`` points of each region, its edges included.

    Values between pixels are bilinear, as TensorFlow's ``crop_and_resize`` computes them: RoIAlign
    with one sample a bin does this on a region that is enlarged by n / (n - 1) about its centre.
    DEVIATION D40: pixel i of the map lies at ``i * stride`` of the image; TensorFlow has the last
    pixel at the image's edge. Points beyond the map take its border.

    Args:
        crop_size: n, points along each side, 2 or more.
        out_channels: of the map.
        featmap_strides: the stride of the map in pixels, alone in a list.
        init_cfg: as of every module.

    Raises:
        ValueError: ``crop_size`` is below 2, or there is not one stride.
    """

    def __init__(
        self, crop_size: int, out_channels: int, featmap_strides: list[int], init_cfg: Any = None
    ) -> None:
        if crop_size < 2:
            raise ValueError(f"crop_size must be at least 2, got {crop_size}")
        if len(featmap_strides) != 1:
            raise ValueError(f"expected one stride in featmap_strides, got {featmap_strides}")
        # aligned: a region smaller than a pixel of the map stays as small
        layer = {"output_size": crop_size, "sampling_ratio": 1, "aligned": True}
        super().__init__(
            {"type": "RoIAlign", **layer}, out_channels, list(featmap_strides), init_cfg
        )
        self.crop_size = crop_size

    def forward(
        self, feats: tuple[Tensor], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        """Returns the (R, C, n, n) crops of the first map.

        Args:
            feats: the (N, C, H, W) map; half types are sampled in float32.
            rois: (R, 5) as index of the image, x1, y1, x2, y2 in pixels of the image.
            roi_scale_factor: enlarges the regions about their centres before.
        """
        (stride,), n = self.featmap_strides, self.crop_size
        if len(rois) == 0:
            return feats[0].new_zeros(0, self.out_channels, n, n)
        enlarged = self.roi_rescale(rois, n / (n - 1) * (roi_scale_factor or 1.0))
        # RoIAlign has the middle of a pixel where this has the pixel
        enlarged[:, 1:] += stride / 2
        maps = widened(feats[0])  # bfloat16 would place a region by 8 pixels
        crops: Tensor = self.roi_layers[0](maps, enlarged.to(maps.dtype))
        return crops.to(feats[0].dtype)
