"""Several configs, each timed at the size that it tests at."""

import pytest

from fldet.benchmark.side_by_side import resized_shape, speeds_side_by_side
from fldet.cli.benchmark.text import describe_side_by_side
from fldet.config.load import load_config
from fldet.errors import UsageError


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ("systems/ssd513_r101.py", (513, 513)),  # warped
        ("systems/yolov2_darknet19.py", (408, 544)),  # letterboxed
        ("systems/faster_rcnn_r101_fpn.py", (800, 1067)),
        ("paper/table1e/r50_400px.py", (400, 533)),
        ("shapes/retinanet_r18_shapes.py", (480, 640)),  # as it is
    ],
)
def test_the_shape_is_what_becomes_of_an_image_of_480_by_640(config, shape):
    assert resized_shape(load_config(config)) == shape


def test_a_row_for_each_config_and_one_that_fails(tiny_config, tmp_path):
    seen = []
    bad = tmp_path / "bad.py"
    bad.write_text(f"_base_ = {str(tiny_config)!r}\nmodel = dict(backbone=dict(depth=35))\n")
    found = speeds_side_by_side(
        [str(bad), str(tiny_config)], num_images=1, device="cpu", on_row=seen.append
    )
    assert [len(so_far.rows) for so_far in seen] == [1, 2]
    failed, good = found.rows
    assert failed.result is None
    assert "35" in failed.error
    assert good.result.parameters > 1000
    assert good.result.image_shape == resized_shape(load_config(tiny_config))
    text = describe_side_by_side(found)
    assert f"{good.result.parameters / 1e6:.2f} M" in text
    assert "bad failed: " in text


def test_what_none_could_use_is_refused_before_the_first():
    with pytest.raises(UsageError, match=r"configs a\.py a\.py"):
        speeds_side_by_side(["a.py", "a.py"])
    with pytest.raises(UsageError, match="unknown comparison"):
        speeds_side_by_side(["a.py", "b.py"], against="me")
