"""From the images of a batch to what the network sees, in the layout that convolutions like."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor as MMDetDataPreprocessor
from mmengine.model import ImgDataPreprocessor
from torch import Tensor

from fldet.errors import ConfigError
from fldet.registry import MODELS


class _ChannelsLastBatch(ImgDataPreprocessor):
    """Normalises, pads and stacks in one pass over the batch, where MMEngine makes four copies."""

    batch_sizes: int | Sequence[tuple[int, int]] | None = None

    def forward(self, data: Any, training: bool = False) -> Any:
        """Returns ``data`` on the device of the model, its ``inputs`` one (N, C, H, W) tensor."""
        data = self.cast_data(data)
        data["inputs"] = self._batch(data["inputs"], training)
        data.setdefault("data_samples", None)
        return data

    def _batch(self, images: Sequence[Tensor], training: bool) -> Tensor:
        channels = images[0].shape[0]
        height, width = (self._padded(max(i.shape[dim] for i in images)) for dim in (1, 2))
        if training and self.batch_sizes is not None:
            height, width = batch_size(height, width, self.batch_sizes)
        # Pixels of a row side by side: with three values as the inner dimension every operator
        # below is several times slower.
        rows = images[0].new_full(
            (len(images), height, width * channels), self.pad_value, dtype=torch.float32
        )
        for image, place in zip(images, rows, strict=True):
            self._write(image, place[: image.shape[1], : image.shape[2] * channels])
        return rows.view(-1, height, width, channels).permute(0, 3, 1, 2)

    def _padded(self, length: int) -> int:
        return -(-length // self.pad_size_divisor) * self.pad_size_divisor

    def _write(self, image: Tensor, rows: Tensor) -> None:
        """Writes a (C, H, W) image into rows (H, W * C)."""
        planes = image.unbind()
        pixels = torch.stack(planes[::-1] if self._channel_conversion else planes, dim=-1)
        rows.copy_(pixels.flatten(1))
        if self._enable_normalize:
            mean, std = (
                value.flatten().expand(len(image)).repeat(image.shape[2])
                for value in (self.mean, self.std)
            )
            rows.sub_(mean).div_(std)


@MODELS.register_module()
class DetDataPreprocessor(MMDetDataPreprocessor, _ChannelsLastBatch):
    """MMDetection's preprocessor, whose batch is channels_last and made with fewer copies.

    The values are equal to the last bit. MMDetection asks the class after it for the batch, which
    is ours here. No config uses it by default: on a CPU, torch 2.13 corrupts memory in the backward
    pass of a 1x1 convolution of stride 2 that has 8 channels in this layout; with 12 and more
    nothing was seen.

    Args:
        batch_sizes: (height, width) that batches of a training are padded to, further than
            ``pad_size_divisor`` asks: the smallest that holds the images. A number pads both sides
            to its multiples. None pads no further. ``pad_shape`` of an image stays what it is
            without, so no anchor of this padding counts.
        **kwargs: of MMDetection's ``DetDataPreprocessor``.
    """

    def __init__(
        self, *, batch_sizes: int | Sequence[tuple[int, int]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.batch_sizes = batch_sizes


def batch_size(height: int, width: int, sizes: int | Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Returns the smallest size that holds a batch, or its sides rounded up to multiples."""
    if isinstance(sizes, int):
        return -(-height // sizes) * sizes, -(-width // sizes) * sizes
    large_enough = [size for size in sizes if size[0] >= height and size[1] >= width]
    if not large_enough:
        names = ", ".join(f"{h}x{w}" for h, w in sizes)
        raise ConfigError(
            f"a batch of {height}x{width} pixels, padded, fits into none of the sizes {names}",
            expected="a size for every batch: compile=dict(sizes=[(HEIGHT, WIDTH), ...])",
        )
    return min(large_enough, key=lambda size: size[0] * size[1])
