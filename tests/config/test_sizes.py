"""The one size that a pipeline may warp all images to."""

import pytest

from fldet.config.sizes import require_size, warped_size
from fldet.errors import ConfigError


@pytest.mark.parametrize(
    ("steps", "size"),
    [
        ([{"type": "Resize", "scale": (513, 300)}], (300, 513)),
        ([{"type": "mmdet.Resize", "scale": (9, 8), "keep_ratio": True}], None),
        ([{"type": "Resize", "scale_factor": 1.0}], None),
        ([], None),
    ],
)
def test_the_size_that_images_are_warped_to(steps, size):
    assert warped_size([{"type": "LoadImageFromFile"}, *steps, {"type": "Pack"}]) == size


def test_another_size_than_that_is_refused():
    warping = [{"type": "Resize", "scale": (96, 64), "keep_ratio": False}]
    keeping = [{"type": "Resize", "scale": (96, 64), "keep_ratio": True}]
    for steps in (warping, keeping, [], None):
        require_size(steps, (64, 96))
    require_size(keeping, (33, 500))
    with pytest.raises(ConfigError, match=r"of 33x500: .* to 64x96\n") as refused:
        require_size(warping, (33, 500))
    assert "--shape 64x96" in refused.value.expected
