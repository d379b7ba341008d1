import sys

import pytest
import torch

from fldet.ops import roi_align
from fldet.ops.nms import BACKENDS

roi_align_module = sys.modules["fldet.ops.roi_align"]  # fldet.ops.roi_align is the function
NAN, INF = float("nan"), float("inf")


def sample(image, y, x):
    """Bilinear value of one (H, W) channel at one point, zero more than a pixel outside."""
    height, width = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    above = image[top, left].item() * (1 - dx) + image[top, right].item() * dx
    below = image[bottom, left].item() * (1 - dx) + image[bottom, right].item() * dx
    return above * (1 - dy) + below * dy


def samples_per_bin(length, ratio):
    return ratio if ratio > 0 else max(int(-(-length // 1)), 0)


def slow_roi_align(features, rois, size, scale=1.0, ratio=0, aligned=True):
    """The definition, one sample at a time, in float64."""
    height, width = size
    out = torch.zeros(len(rois), features.shape[1], height, width, dtype=torch.float64)
    for r, (image, *corners) in enumerate(rois.double().tolist()):
        x1, y1, x2, y2 = (c * scale - (0.5 if aligned else 0) for c in corners)
        roi_height, roi_width = y2 - y1, x2 - x1
        if not aligned:
            roi_height, roi_width = max(roi_height, 1.0), max(roi_width, 1.0)
        bin_height, bin_width = roi_height / height, roi_width / width
        rows, columns = samples_per_bin(bin_height, ratio), samples_per_bin(bin_width, ratio)
        for c, channel in enumerate(features[int(image)].double()):
            for i in range(height):
                for j in range(width):
                    values = [
                        sample(
                            channel,
                            y1 + (i + (a + 0.5) / rows) * bin_height,
                            x1 + (j + (b + 0.5) / columns) * bin_width,
                        )
                        for a in range(rows)
                        for b in range(columns)
                    ]
                    out[r, c, i, j] = sum(values) / max(len(values), 1)
    return out


@pytest.fixture(params=BACKENDS)
def backend(request):
    if not roi_align_module._roi_align_works(request.param, "cpu"):
        pytest.skip(f"{request.param} with a working roi_align is not installed")
    return request.param


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 9, 12, generator=generator, dtype=torch.float64)


ROIS = [
    ([0, 2, 1, 8, 7], "inside"),
    ([1, 2, 1, 8, 7], "of the second image"),
    ([0, 0, 0, 12, 9], "the whole image"),
    ([0, -3, -2, 6, 5], "beyond the left and upper border"),
    ([0, 8, 5, 30, 30], "beyond the right and lower border"),
    ([0, 40, 40, 50, 50], "outside"),
    ([0, 3.2, 3.4, 3.6, 3.9], "smaller than a pixel"),
    ([0, 5, 5, 5, 5], "empty"),
]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
def test_equals_the_definition(backend, features, size, ratio, aligned):
    rois = torch.tensor([roi for roi, _ in ROIS], dtype=torch.float64)
    pooled = roi_align(features, rois, size, sampling_ratio=ratio, aligned=aligned, backend=backend)
    expected = slow_roi_align(features, rois, size, ratio=ratio, aligned=aligned)
    assert pooled.dtype == torch.float64
    for (_, reason), ours, theirs in zip(ROIS, pooled, expected, strict=True):
        torch.testing.assert_close(ours, theirs, msg=lambda text, r=reason: f"{r}: {text}")


def test_scale_maps_the_image_to_the_features(backend, features):
    rois = torch.tensor([[1, 10.0, 7.0, 40.0, 31.0]], dtype=torch.float64)
    pooled = roi_align(features, rois, 2, spatial_scale=0.25, backend=backend)
    torch.testing.assert_close(pooled, slow_roi_align(features, rois, (2, 2), scale=0.25))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)]
)
def test_keeps_the_type_of_the_features(backend, features, dtype, tolerance):
    rois = torch.tensor([roi for roi, _ in ROIS], dtype=torch.float32)
    pooled = roi_align(features.to(dtype), rois, (2, 3), backend=backend)
    assert pooled.dtype == dtype
    expected = slow_roi_align(features.to(dtype), rois, (2, 3))
    torch.testing.assert_close(pooled.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_gradient(features, ratio, aligned):
    rois = torch.tensor([roi for roi, _ in ROIS[1:5]], dtype=torch.float64)
    features = features[:, :1, :6, :7].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: roi_align(
            x, rois, (2, 3), sampling_ratio=ratio, aligned=aligned, backend="fldet"
        ),
        (features,),
    )


def random_rois(num_rois, num_images, size):
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(num_rois, 2, generator=generator) * size
    extent = torch.rand(num_rois, 2, generator=generator) ** 3 * size
    image = torch.randint(num_images, (num_rois, 1), generator=generator)
    return torch.cat([image, corner, corner + extent], dim=1)


def test_backends_agree_on_many_regions(backend):
    generator = torch.Generator().manual_seed(2)
    rois = random_rois(200, num_images=2, size=200.0)  # several portions of very mixed size
    results = {}
    for name in {"fldet", backend}:
        features = torch.randn(2, 8, 25, 30, generator=generator.manual_seed(2)).requires_grad_()
        pooled = roi_align(features, rois, 7, spatial_scale=0.125, backend=name)
        (pooled * torch.linspace(-1, 1, pooled.numel()).view_as(pooled)).sum().backward()
        results[name] = pooled.detach(), features.grad
    for ours, theirs in zip(results["fldet"], results[backend], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_portions_do_not_change_the_result(monkeypatch, features):
    rois = random_rois(20, num_images=2, size=10.0).double()
    whole = roi_align(features, rois, (2, 3), backend="fldet")
    monkeypatch.setattr(roi_align_module, "_CHUNK", 3)
    torch.testing.assert_close(roi_align(features, rois, (2, 3), backend="fldet"), whole)


def test_no_regions_give_a_zero_gradient(backend, features):
    features.requires_grad_()
    pooled = roi_align(features, torch.zeros(0, 5), (2, 3), backend=backend)
    assert pooled.shape == (0, 3, 2, 3)
    pooled.sum().backward()
    assert features.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("roi", "reason"),
    [
        ([0, 8, 7, 2, 1], "inverted"),
        ([0, NAN, 1, 5, 5], "NaN"),
        ([0, 1, 1, INF, 5], "infinite"),
    ],
)
def test_a_region_that_is_none_gives_zeros(features, roi, reason):
    rois = torch.tensor([roi, [0, 2, 1, 8, 7]], dtype=torch.float64)
    pooled = roi_align(features, rois, 2, backend="fldet")
    assert pooled[0].abs().sum() == 0, reason
    torch.testing.assert_close(pooled[1:], slow_roi_align(features, rois[1:], (2, 2)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"features": torch.zeros(3, 4, 4)}, r"shape \(B, C, H, W\), got torch.float32 of shape"),
        ({"features": torch.zeros(1, 3, 4, 4, dtype=torch.int64)}, "got torch.int64"),
        ({"features": torch.zeros(1, 3, 0, 4)}, r"at least one pixel, got \(1, 3, 0, 4\)"),
        ({"rois": torch.zeros(2, 4)}, r"rois of shape \(R, 5\), got \(2, 4\)"),
        ({"rois": torch.tensor([[1.0, 0, 0, 2, 2]])}, "images 0 to 0 in .*, got 1 to 1"),
        ({"rois": torch.tensor([[-1.0, 0, 0, 2, 2]])}, "images 0 to 0 in .*, got -1 to -1"),
        ({"output_size": 0}, r"output_size must be >= 1, got \(0, 0\)"),
        ({"sampling_ratio": -1}, "sampling_ratio must be >= 0, got -1"),
        ({"backend": "caffe2"}, "one of mmcv, torchvision, fldet, got 'caffe2'"),
    ],
)
def test_wrong_arguments_are_named(change, match):
    arguments = {"features": torch.zeros(1, 3, 4, 4), "rois": torch.zeros(1, 5), "output_size": 2}
    with pytest.raises(ValueError, match=match):
        roi_align(**arguments | change)
