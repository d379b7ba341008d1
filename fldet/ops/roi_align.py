"""RoIAlign (Mask R-CNN, arXiv 1703.06870) on compiled mmcv, torchvision, or plain torch.

The pooled value of a bin is the mean of samples on a regular grid, each one interpolated from
four pixels. So it is a weighted sum of pixels, and the weight of a pixel is the product of a
weight along y and one along x. fldet's own implementation computes these weights and leaves the
sum to ``embedding_bag``; the gradient is the same sum with pixels and bins exchanged.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fldet._compat import eager
from fldet.ops.nms import BACKENDS, Backend, require, works

_CHUNK = 64  # RoIs whose weights are in memory at once


class Pooling(NamedTuple):
    """What there is to choose about RoIAlign."""

    height: int  # bins along y
    width: int  # bins along x
    spatial_scale: float  # pixels of the features per pixel of the RoIs
    sampling_ratio: int  # samples per bin along each axis; 0 takes one per feature pixel
    aligned: bool  # whether pixel centres are at half coordinates (they are)


def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: int | tuple[int, int],
    *,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
    backend: Backend | None = None,
) -> Tensor:
    """Returns the features of each region, averaged in a grid of bins.

    Differentiable once, with respect to ``features``. Backends agree up to rounding.

    Args:
        features: (B, C, H, W); half types are computed in float32.
        rois: (R, 5) as index of the image in the batch, x1, y1, x2, y2 in pixels of the image.
            Samples more than one pixel outside the features count as zeros.
        output_size: bins along y and x, or one number for both.
        spatial_scale: size of the features over size of the image, such as 1 / stride.
        sampling_ratio: samples per bin along each axis; 0 adapts it to the size of the bin.
        aligned: True shifts by half a pixel, as is right; False is the original, which also
            makes regions at least one pixel wide and high.
        backend: the implementation to use; None takes the first that works.

    Returns:
        (R, C, height, width) of the type of ``features``. No regions in, none out. An inverted
        region gives zeros with adaptive sampling (compiled mmcv refuses it if aligned).

    Raises:
        ValueError: a shape, ``output_size`` or ``sampling_ratio`` is wrong, or a region names an
            image that the batch does not have.
        UnavailableError: ``backend`` is not installed or does not work.
    """
    height, width = output_size if isinstance(output_size, tuple) else (output_size, output_size)
    pooling = Pooling(height, width, float(spatial_scale), int(sampling_ratio), bool(aligned))
    _check(features, rois, pooling)
    device = features.device.type
    if backend is not None:
        require(backend, "roi_align", usable=_roi_align_works(backend, device))
    if len(rois) == 0 or features.shape[1] == 0:
        # A sum over nothing, so that the gradient is zero rather than missing.
        shape = (len(rois), features.shape[1], height, width)
        return features.new_zeros(shape) + features.sum() * 0
    wide = widened(features)
    working = (name for name in BACKENDS if _roi_align_works(name, device))
    pooled = _pool(backend or next(working), wide, rois.detach().to(wide.dtype), pooling)
    return pooled.to(features.dtype)


def widened(tensor: Tensor) -> Tensor:
    """Returns a tensor in float32, or in float64 if it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@functools.cache
def _roi_align_works(backend: str, device: str) -> bool:
    def pool_ones() -> Tensor:
        features = torch.ones(1, 1, 4, 4, device=device)
        rois = torch.tensor([[0.0, 1.0, 1.0, 3.0, 3.0]], device=device)
        return _pool(backend, features, rois, Pooling(1, 1, 1.0, 0, True))

    return works(backend, pool_ones, [[[[1.0]]]])


def _check(features: Tensor, rois: Tensor, pooling: Pooling) -> None:
    if features.dim() != 4 or not features.is_floating_point():
        raise ValueError(
            "expected floating-point features of shape (B, C, H, W), "
            f"got {features.dtype} of shape {tuple(features.shape)}"
        )
    if 0 in features.shape[2:]:
        raise ValueError(f"expected features of at least one pixel, got {tuple(features.shape)}")
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(f"expected rois of shape (R, 5), got {tuple(rois.shape)}")
    if pooling.height < 1 or pooling.width < 1:
        raise ValueError(f"output_size must be >= 1, got {(pooling.height, pooling.width)}")
    if pooling.sampling_ratio < 0:
        raise ValueError(f"sampling_ratio must be >= 0, got {pooling.sampling_ratio}")
    image = rois[:, 0]
    if not ((image >= 0) & (image < len(features))).all():
        raise ValueError(
            f"rois must name images 0 to {len(features) - 1} in their first column, "
            f"got {image.min().item():g} to {image.max().item():g}"
        )


def _pool(backend: str, features: Tensor, rois: Tensor, pooling: Pooling) -> Tensor:
    size = (pooling.height, pooling.width)
    pooled: Tensor
    if backend == "mmcv":
        from mmcv.ops import roi_align as mmcv_roi_align

        pooled = mmcv_roi_align(
            features.contiguous(), rois.contiguous(), size, *pooling[2:4], "avg", pooling.aligned
        )
    elif backend == "torchvision":
        from torchvision.ops import roi_align as torchvision_roi_align

        pooled = torchvision_roi_align(features, rois, size, *pooling[2:])
    else:
        pooled = _RoIAlign.apply(features, rois, pooling)  # type: ignore[no-untyped-call]
    return pooled


class _RoIAlign(torch.autograd.Function):
    """fldet's own RoIAlign for autograd."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, rois: Tensor, pooling: Pooling) -> Tensor:
        ctx.save_for_backward(rois)
        ctx.features_shape, ctx.pooling = features.shape, pooling
        return pool_features(features, rois, pooling)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (rois,) = ctx.saved_tensors
        return pool_features_backward(grad, rois, ctx.features_shape, ctx.pooling), None, None


@eager
def pool_features(features: Tensor, rois: Tensor, pooling: Pooling) -> Tensor:
    """Returns (R, C, height, width) pooled features, see ``roi_align``; no autograd.

    Features (B, C, H, W) and RoIs (R, 5) are both in float32 or both in float64.
    """
    num_channels = features.shape[1]
    pixels = features.permute(0, 2, 3, 1).reshape(-1, num_channels)
    bins = features.new_zeros(len(rois), pooling.height * pooling.width, num_channels)
    for chosen in _chunks(rois):
        weights = _weigh(rois[chosen], features.shape, pooling)
        pooled = F.embedding_bag(
            weights.pixel, pixels, weights.offsets(), mode="sum", per_sample_weights=weights.weight
        )
        bins[chosen] = pooled.view(len(chosen), -1, num_channels)
    shape = (len(rois), pooling.height, pooling.width, num_channels)
    return bins.view(shape).permute(0, 3, 1, 2).contiguous()


@eager
def pool_features_backward(
    grad: Tensor, rois: Tensor, features_shape: torch.Size, pooling: Pooling
) -> Tensor:
    """Returns the gradient with respect to the features, (B, C, H, W).

    That of the pooled features (R, C, height, width) and the RoIs (R, 5) are both in float32 or
    both in float64.
    """
    num_images, num_channels, height, width = features_shape
    pixels = grad.new_zeros(num_images * height * width, num_channels)
    for chosen in _chunks(rois):
        weights = _weigh(rois[chosen], features_shape, pooling)
        bins = grad[chosen].permute(0, 2, 3, 1).reshape(-1, num_channels)
        # The same weights, grouped by pixel instead of by bin.
        pixel, order = weights.pixel.sort()
        touched, count = torch.unique_consecutive(pixel, return_counts=True)
        pixels.index_add_(
            0,
            touched,
            F.embedding_bag(
                weights.bin()[order],
                bins,
                count.cumsum(0) - count,
                mode="sum",
                per_sample_weights=weights.weight[order],
            ),
        )
    shape = (num_images, height, width, num_channels)
    return pixels.view(shape).permute(0, 3, 1, 2)


class _Weights(NamedTuple):
    """The pixels that make up each bin."""

    pixel: Tensor  # (E,) index of a pixel in the flattened (B, H, W), bin after bin
    weight: Tensor  # (E,) its weight
    sizes: Tensor  # (R * height * width,) how many of the E belong to each bin

    def offsets(self) -> Tensor:
        """Returns where each bin begins among the E."""
        return self.sizes.cumsum(0) - self.sizes

    def bin(self) -> Tensor:
        """Returns the (E,) bin of each weight."""
        bins = torch.arange(len(self.sizes), device=self.sizes.device)
        return bins.repeat_interleave(self.sizes)


def _chunks(rois: Tensor) -> Iterator[Tensor]:
    """Yields indices of RoIs, few at a time and of similar size, because weights are padded."""
    size = (rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])
    order = size.argsort()
    for first in range(0, len(order), _CHUNK):
        yield order[first : first + _CHUNK]


def _weigh(rois: Tensor, features_shape: torch.Size, pooling: Pooling) -> _Weights:
    """Returns the weights of the pixels in every bin of the RoIs."""
    height, width = features_shape[2:]
    shift = 0.5 if pooling.aligned else 0.0
    x1, y1, x2, y2 = (rois[:, 1:] * pooling.spatial_scale - shift).unbind(1)
    y, weight_y = _weigh_axis(y1, y2, pooling.height, height, pooling)  # (R, height, Y)
    x, weight_x = _weigh_axis(x1, x2, pooling.width, width, pooling)  # (R, width, X)
    weight = weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :]
    image = rois[:, 0].long()[:, None, None, None, None]
    pixel = (image * height + y[:, :, None, :, None]) * width + x[:, None, :, None, :]
    used = weight != 0  # (R, height, width, Y, X)
    return _Weights(pixel[used], weight[used], used.sum(dim=(3, 4)).flatten())


def _weigh_axis(
    start: Tensor, end: Tensor, num_bins: int, size: int, pooling: Pooling
) -> tuple[Tensor, Tensor]:
    """Returns the pixels and weights of every bin along one axis.

    The RoIs lie from ``start`` (R,) to ``end`` (R,), in pixels of the features, of which the axis
    has ``size``. Pixels are (R, num_bins, L) in [0, size - 1], with weights that are zero where
    padded; L is the width of the widest bin.
    """
    length = end - start
    if not pooling.aligned:
        length = length.clamp(min=1)
    bin_size = (length / num_bins)[:, None, None]
    if pooling.sampling_ratio > 0:
        num_samples = torch.full_like(bin_size, pooling.sampling_ratio)
    else:
        num_samples = bin_size.ceil().nan_to_num(0, posinf=0).clamp(min=0)
    steps = torch.arange(max(int(num_samples.max()), 1), device=start.device)
    exists = steps < num_samples  # (R, 1, S)
    num_samples = num_samples.clamp(min=1)
    step = torch.minimum(steps, num_samples - 1)  # pads with the last sample
    bins = torch.arange(num_bins, device=start.device)[None, :, None]
    position = start[:, None, None] + bins * bin_size + (step + 0.5) * bin_size / num_samples
    inside = exists & (position >= -1) & (position <= size)  # (R, num_bins, S)
    position = position.nan_to_num(0).clamp(0, size - 1)
    low = position.floor()
    share = inside / num_samples
    first = low.amin(dim=2, keepdim=True)
    slot = (low - first).long()
    window = int(slot.max()) + 2  # a sample reaches one pixel beyond its own
    weight = position.new_zeros(*position.shape[:2], window)
    weight.scatter_add_(2, slot, (1 - (position - low)) * share)
    weight.scatter_add_(2, slot + 1, (position - low) * share)
    pixel = first.long() + torch.arange(window, device=start.device)
    return pixel.clamp(max=size - 1), weight
