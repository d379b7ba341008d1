"""From the images of a batch to what the network sees, in the layout that convolutions like."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.data_preprocessors import DetDataPreprocessor as MMDetDataPreprocessor
from mmengine.logging import MessageHub
from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn

from fldet.data.stream import SIZE
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


@MODELS.register_module()
class SizeByIteration(nn.Module):
    """Resizes the batches of a training to a size that changes every few iterations.

    One of ``data_preprocessor.batch_augments``, and like the multi-scale training of YOLOv2 (arXiv
    1612.08242, Sec. 2). The size follows from the seed and the number of the iteration and from
    nothing else, so that all processes agree and a resumed run has the sizes that it would have
    had; MMDetection's ``BatchSyncRandomResize`` keeps it in an attribute that no checkpoint has.

    Args:
        smallest: side in pixels.
        largest: side in pixels; the batches have it, and the others are shares of their sides.
        step: the sides are ``smallest`` and so many pixels more, up to ``largest``.
        interval: iterations with one size.
        last: iterations at the end of a training that are of the largest size.

    Raises:
        ValueError: a number is out of range, or ``largest`` is no ``smallest`` and some steps.
    """

    def __init__(
        self,
        smallest: int = 320,
        largest: int = 608,
        *,
        step: int = 32,
        interval: int = 10,
        last: int = 200,
    ) -> None:
        super().__init__()
        if min(smallest, step, interval) < 1 or last < 0 or (largest - smallest) % step:
            raise ValueError(
                f"no sizes from {smallest} to {largest} in steps of {step}, every {interval}"
            )
        self.sides = range(smallest, largest + 1, step)
        self.interval, self.last = interval, last

    def side(self, seed: int, iteration: int, iterations: int) -> int:
        """Returns the side of an iteration, counted from 0, of a training of so many."""
        if iteration >= iterations - self.last:
            return self.sides[-1]
        drawn = np.random.default_rng([SIZE, seed, iteration // self.interval])
        return self.sides[int(drawn.integers(len(self.sides)))]

    def forward(self, inputs: Tensor, data_samples: Any) -> tuple[Tensor, Any]:
        """Returns a batch (N, C, H, W) and its samples, resized; outside of a training as it is."""
        hub = MessageHub.get_current_instance()
        where = [hub.get_info(name) for name in ("seed", "iter", "max_iters")]
        if None in where:
            return inputs, data_samples
        share = self.side(*where) / self.sides[-1]
        before = (inputs.shape[-2], inputs.shape[-1])
        height, width = (self._rounded(side * share) for side in before)
        if (height, width) == before:
            return inputs, data_samples
        factors = height / before[0], width / before[1]
        for sample in data_samples:
            _resize_sample(sample, factors, (height, width))
        size = (height, width)
        return F.interpolate(inputs, size, mode="bilinear", align_corners=False), data_samples

    def _rounded(self, side: float) -> int:
        step = self.sides.step
        return max(step, round(side / step) * step)


def _resize_sample(sample: Any, factors: tuple[float, float], shape: tuple[int, int]) -> None:
    """Brings boxes and sizes of a sample to a batch of another (height, width)."""
    for name in ("img_shape", "pad_shape"):
        sides = zip(sample.metainfo.get(name, shape)[:2], factors, strict=True)
        sample.set_metainfo({name: tuple(round(side * factor) for side, factor in sides)})
    sample.set_metainfo({"batch_input_shape": shape})
    for instances in (sample.gt_instances, sample.get("ignored_instances")):
        if instances is not None and "bboxes" in instances:
            boxes = instances.bboxes
            instances.bboxes = boxes * boxes.new_tensor([*factors[::-1]] * 2)
