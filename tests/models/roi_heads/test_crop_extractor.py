"""Crops of regions against TensorFlow's crop_and_resize, written down as a loop."""

import numpy as np
import pytest
import torch

from fldet.models.roi_heads.crop_extractor import CropRoIExtractor

STRIDE, N = 8, 5


def crop_and_resize(image, box, n):
    """TensorFlow's kernel for one (C, H, W) map; the box is y1, x1, y2, x2 in pixels of the map."""
    out = np.zeros((image.shape[0], n, n))
    for i in range(n):
        for j in range(n):
            y = box[0] + i * (box[2] - box[0]) / (n - 1)
            x = box[1] + j * (box[3] - box[1]) / (n - 1)
            top, left = int(np.floor(y)), int(np.floor(x))
            bottom, right = int(np.ceil(y)), int(np.ceil(x))
            for row, weight_y in ((top, 1 - (y - top)), (bottom, y - top)):
                for column, weight_x in ((left, 1 - (x - left)), (right, x - left)):
                    out[:, i, j] += weight_y * weight_x * image[:, row, column]
    return out


@pytest.mark.parametrize("n", [2, N, 17])
def test_crops_are_tensorflows(n):
    generator = np.random.default_rng(0)
    maps = generator.standard_normal((2, 3, 11, 13))
    rois = [
        (0, 8.0, 16.0, 80.0, 64.0),  # corners on pixels
        (1, 3.7, 5.1, 90.2, 77.7),
        (1, 20.0, 30.0, 23.0, 30.5),  # smaller than a pixel of the map
        (0, 40.0, 24.0, 40.0, 24.0),  # a point
        (0, 0.0, 0.0, 96.0, 80.0),  # all of the map
    ]
    expected = [
        crop_and_resize(maps[image], np.array([y1, x1, y2, x2]) / STRIDE, n)
        for image, x1, y1, x2, y2 in rois
    ]
    extractor = CropRoIExtractor(n, out_channels=3, featmap_strides=[STRIDE])
    given = torch.from_numpy(maps).float().requires_grad_()
    found = extractor((given,), torch.tensor(rois))
    torch.testing.assert_close(
        found, torch.from_numpy(np.stack(expected)).float(), rtol=0, atol=2e-5
    )
    found.sum().backward()
    assert given.grad.abs().sum() > 0


def test_points_beyond_the_map_take_its_border():
    """The image ends at 32, the last pixel of a map of stride 8 lies at 24."""
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    extractor = CropRoIExtractor(3, out_channels=1, featmap_strides=[STRIDE])
    crops = extractor((ramp,), torch.tensor([[0, 16.0, 0.0, 32.0, 16.0]]))
    torch.testing.assert_close(crops[0, 0], torch.tensor([[2.0, 3.0, 3.0]]).expand(3, 3))


def test_no_regions_and_enlarged_ones():
    extractor = CropRoIExtractor(N, out_channels=2, featmap_strides=[STRIDE])
    maps = (torch.randn(1, 2, 9, 9),)
    assert extractor(maps, torch.zeros(0, 5)).shape == (0, 2, N, N)
    rois, twice = torch.tensor([[0, 24.0, 24, 40, 48]]), torch.tensor([[0, 16.0, 12, 48, 60]])
    before = rois.clone()
    torch.testing.assert_close(
        extractor(maps, rois, roi_scale_factor=2.0), extractor(maps, twice), rtol=0, atol=1e-5
    )
    assert rois.equal(before)


def test_a_map_in_bfloat16_does_not_round_the_regions():
    ramp = torch.arange(128.0).expand(1, 1, 128, 128)  # exact in bfloat16
    extractor = CropRoIExtractor(3, out_channels=1, featmap_strides=[STRIDE])
    rois = torch.tensor([[0, 805.0, 805.0, 837.0, 837.0]])  # bfloat16 has 804 and 808, 836 and 840
    crops = extractor((ramp.bfloat16(),), rois)
    assert crops.dtype == torch.bfloat16
    expected = torch.tensor([805.0, 821.0, 837.0]) / STRIDE
    assert crops[0, 0, 0].equal(expected.bfloat16())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop_size": 1, "featmap_strides": [8]}, "at least 2, got 1"),
        ({"crop_size": 17, "featmap_strides": [8, 16]}, "one stride"),
    ],
)
def test_refuses_what_cannot_be_built(options, words):
    with pytest.raises(ValueError, match=words):
        CropRoIExtractor(out_channels=3, **options)
