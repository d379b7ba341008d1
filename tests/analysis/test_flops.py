"""Layers put together to parts and levels, and the figure of them."""

import cv2
import pytest

from fldet.analysis.flops.analyze import analyze_flops
from fldet.analysis.flops.count import LayerCall, NetworkCosts
from fldet.analysis.flops.report import costs_by_part, plot_costs
from fldet.config.load import load_config
from fldet.errors import ConfigError, UsageError

COSTS = NetworkCosts(
    shape=(64, 96),
    strides=(8, 16),
    parameters={
        "backbone.conv1.weight": 10,
        "backbone.bn1.weight": 2,
        "backbone.layer1.0.conv1.weight": 20,
        "neck.fpn_convs.1.conv.weight": 30,
        "bbox_head.cls_convs.0.conv.weight": 40,
        "bbox_head.retina_reg.weight": 50,
    },
    calls=(
        LayerCall("backbone.conv1", 0, 1000, 262144),
        LayerCall("backbone.layer1.0.conv1", 0, 2000, 100),
        LayerCall("neck.lateral_convs.0", 0, 300, 30),
        LayerCall("neck.fpn_convs.1.conv", 0, 400, 40),
        LayerCall("bbox_head.cls_convs.0.conv", 0, 50, 5),
        LayerCall("bbox_head.cls_convs.0.conv", 1, 60, 6),
        LayerCall("bbox_head.retina_reg", 0, 70, 7),
        LayerCall("bbox_head.retina_reg", 1, 80, 8),
        LayerCall("", 0, 9, 0),
    ),
)


def test_layers_become_parts_and_levels():
    count = costs_by_part(COSTS)
    found = {
        part.total.name: {
            piece.name: (piece.parameters, piece.flops, piece.activations) for piece in part.pieces
        }
        for part in count.parts
    }
    assert found == {
        "backbone": {"stem": (12, 1000, 262144), "C2": (20, 2000, 100)},
        "neck": {"P4": (30, 400, 40), "P3": (0, 300, 30)},
        "classification subnet": {"shared": (40, 0, 0), "P3": (0, 50, 5), "P4": (0, 60, 6)},
        "box subnet": {"shared": (50, 0, 0), "P3": (0, 70, 7), "P4": (0, 80, 8)},
        "other": {"shared": (0, 9, 0)},
    }


def test_a_head_with_layers_for_each_level():
    """SSD's: the number in a name is the level; each is called once."""
    costs = NetworkCosts(
        shape=(64, 96),
        strides=(8, 16),
        parameters={"bbox_head.cls_convs.0.0.weight": 10, "bbox_head.reg_convs.1.1.bias": 20},
        calls=(
            LayerCall("bbox_head.cls_convs.0.0", 0, 50, 5),
            LayerCall("bbox_head.cls_convs.1.0", 0, 60, 6),
            LayerCall("bbox_head.reg_convs.1.1", 0, 70, 7),
        ),
    )
    scores, boxes = costs_by_part(costs).parts
    assert [(one.name, one.parameters, one.flops) for one in scores.pieces] == [
        ("P3", 10, 50),
        ("P4", 0, 60),
    ]
    assert [(one.name, one.parameters, one.flops) for one in boxes.pieces] == [("P4", 20, 70)]


def test_sums_and_bytes():
    count = costs_by_part(COSTS)
    assert count.total.flops == sum(call.flops for call in COSTS.calls)
    assert count.total.parameters == sum(COSTS.parameters.values())
    assert count.parts[0].pieces[0].activations_mib == 1  # 262144 numbers of 4 bytes
    assert "2 FLOPs for a multiply-add" in count.counted


def test_the_figure_names_parts_and_levels(tmp_path):
    paths = plot_costs(costs_by_part(COSTS), tmp_path / "flops", title="tiny")
    assert [path.name for path in paths] == ["flops.png", "flops.svg"]
    assert cv2.imread(str(paths[0])).shape == (900, 1500, 3)
    text = paths[1].read_text()
    for words in ("tiny: one image of 64x96", "backbone", "stem", "P3", "shared by the levels"):
        assert f"<!-- {words}" in text


def test_a_config_that_warps_is_counted_at_its_size_and_no_other(tmp_path):
    cfg = load_config("systems/shapes/ssd_r18.py")
    assert analyze_flops(cfg, out_dir=tmp_path).result.shape == (160, 160)
    with pytest.raises(ConfigError, match="warps all of them to 160x160"):
        analyze_flops(cfg, shape=(300, 400), out_dir=tmp_path)


def test_a_size_with_no_room_for_a_layer_is_refused(tmp_path):
    cfg = load_config("systems/shapes/ssd_r18.py", {"val_dataloader.dataset.pipeline": []})
    with pytest.raises(UsageError, match="too small for the network"):
        analyze_flops(cfg, shape=(1, 1), out_dir=tmp_path)
