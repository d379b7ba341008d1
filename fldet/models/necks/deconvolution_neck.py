"""DSSD: the maps of SSD enlarged again, from the coarsest on, and joined to the finer ones."""

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from fldet.models.necks.residual_ssd_neck import SSDEncoder
from fldet.registry import MODELS


class DeconvolutionModule(BaseModule):
    """The product of an enlarged coarse map and of a finer one (Fu et al. 2017, Fig. 3).

    Args:
        coarse_channels: of the coarse map.
        fine_channels: of the finer map.
        channels: of all layers, and of the result.
        kernel_size: of the transposed convolution, which has no norm.
        stride: of the same.
        norm_cfg: config of the norms.
    """

    def __init__(
        self,
        coarse_channels: int,
        fine_channels: int,
        channels: int,
        *,
        kernel_size: int,
        stride: int,
        norm_cfg: dict[str, Any],
    ) -> None:
        super().__init__()
        options = {"kernel_size": 3, "padding": 1, "norm_cfg": norm_cfg}
        self.deconv = nn.ConvTranspose2d(coarse_channels, channels, kernel_size, stride)
        self.after_deconv = ConvModule(channels, channels, act_cfg=None, **options)
        self.fine1 = ConvModule(fine_channels, channels, **options)
        self.fine2 = ConvModule(channels, channels, act_cfg=None, **options)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Returns (N, channels, H, W) of the coarse map and of the finer one (N, C, H, W).

        An odd map that a stride of 2 has rounded up is reached from above, and cut off.
        """
        height, width = fine.shape[-2:]
        (kernel, _), (stride, _) = self.deconv.kernel_size, self.deconv.stride
        least = [(side - 1) * stride + kernel for side in coarse.shape[-2:]]
        size = [max(least[0], height), max(least[1], width)]
        large = self.deconv(coarse, output_size=size)[..., :height, :width]
        return (self.after_deconv(large) * self.fine2(self.fine1(fine))).relu()


@MODELS.register_module()
class DeconvolutionNeck(SSDEncoder):
    """The maps of DSSD: those of SSD, carried up again, each with a prediction module of its own.

    The coarsest map stays what it is in SSD; every finer one is joined to the result before it by
    a ``DeconvolutionModule`` (Fu et al. 2017, Sec. 3.3). The weights of the encoder have the names
    that they have in ``ResidualSSDNeck``, so a checkpoint of SSD is where a training starts.

    Args:
        widths: of the prediction modules, one a map; the result has ``4 * width`` channels.
        decoder_channels: of the maps that are carried up.
        up_kernel_sizes: of the transposed convolutions, from the finest map on; one less than maps.
        up_strides: of the same. They have to give the size of the finer map: those of the blocks
            that made the coarse one, and 2 and 2 for the step between the backbone's maps.
        freeze_encoder: whether the further maps of SSD stay as they are, statistics of norms
            included, as in the first stage of the authors' training. For the backbone
            ``frozen_stages=4, norm_eval=True`` says the same.
        **kwargs: see ``SSDEncoder``.

    Raises:
        ValueError: lengths do not fit the number of maps; see ``SSDEncoder``.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (256, 256, 256, 256, 256, 256, 256),
        decoder_channels: int = 512,
        up_kernel_sizes: Sequence[int] = (2, 2, 2, 2, 2, 2),
        up_strides: Sequence[int] = (2, 2, 2, 2, 2, 1),
        freeze_encoder: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        *fine, coarsest = self.channels
        if not len(up_kernel_sizes) == len(up_strides) == len(fine):
            raise ValueError(
                f"expected {len(fine)} up_kernel_sizes and up_strides, one less than maps, got "
                f"{up_kernel_sizes} and {up_strides}"
            )
        coarse = [decoder_channels] * (len(fine) - 1) + [coarsest]
        self.decoder = nn.ModuleList(
            DeconvolutionModule(
                *(below, beside, decoder_channels),
                kernel_size=kernel,
                stride=stride,
                norm_cfg=self.norm_cfg,
            )
            for below, beside, kernel, stride in zip(
                coarse, fine, up_kernel_sizes, up_strides, strict=True
            )
        )
        self.predictions = self.prediction_modules(
            [*[decoder_channels] * len(fine), coarsest], widths
        )
        self.freeze_encoder = freeze_encoder
        if freeze_encoder:
            self.extra_layers.requires_grad_(False)

    def train(self, mode: bool = True) -> "DeconvolutionNeck":
        """Sets the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze_encoder:
            self.extra_layers.eval()
        return self

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns (N, 4 * width, h, w) for each map, finest first, of the backbone's maps."""
        maps = self.encode(inputs)
        for level in reversed(range(len(self.decoder))):
            maps[level] = self.decoder[level](maps[level + 1], maps[level])
        return tuple(module(x) for module, x in zip(self.predictions, maps, strict=True))
