"""Costs of layers against those worked out by hand, and against what was measured."""

import pytest
import torch

from fldet.analysis.flops.count import count_flops
from fldet.analysis.flops.report import costs_by_part
from fldet.config.load import load_config
from fldet.errors import ConfigError

LEVELS = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]  # of an image of 64x96


@pytest.fixture(scope="module")
def costs(tmp_path_factory, write_tiny_config):
    cfg = load_config(write_tiny_config(tmp_path_factory.mktemp("flops")))
    return count_flops(cfg, (60, 90))


def test_the_image_is_padded(costs):
    assert (costs.shape, costs.strides) == ((64, 96), (8, 16, 32, 64, 128))


def test_a_convolution_of_the_head_on_every_level(costs):
    found = [call for call in costs.calls if call.name == "bbox_head.retina_cls"]
    assert [call.call for call in found] == [0, 1, 2, 3, 4]
    # 9 anchors x 2 classes from 8 channels, 3x3, two for a multiply-add
    assert [call.flops for call in found] == [2 * 8 * 9 * 18 * h * w for h, w in LEVELS]
    assert [call.outputs for call in found] == [18 * h * w for h, w in LEVELS]


def test_only_layers_with_products_are_counted(costs):
    assert all(call.flops > 0 and call.name for call in costs.calls)
    assert not any("relu" in call.name or ".bn" in call.name for call in costs.calls)
    assert costs.parameters["bbox_head.retina_cls.weight"] == 18 * 8 * 9


def test_the_paper_s_network_costs_what_was_measured(monkeypatch):
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", None)  # nothing may be downloaded
    costs = count_flops(load_config("retinanet/r50_fpn_1x.py"), (800, 1333))
    assert costs.shape == (800, 1344)
    assert sum(call.flops for call in costs.calls) == pytest.approx(501e9, abs=0.5e9)
    backbone = sum(call.flops for call in costs.calls if call.name.startswith("backbone"))
    assert backbone == pytest.approx(175e9, abs=0.5e9)


def test_a_model_without_anchors_is_refused(tiny_config, monkeypatch):
    monkeypatch.setattr("fldet.analysis.flops.count.MODELS.build", lambda _: torch.nn.Identity())
    with pytest.raises(ConfigError, match="model 'RetinaNet' has no bbox_head"):
        count_flops(load_config(tiny_config), (64, 64))


def test_a_module_that_makes_its_weights_past_the_meta_device(tiny_config):
    """SSD's VGG: L2Norm of MMDetection calls torch.Tensor(n)."""
    cfg = load_config(tiny_config)
    cfg.model = load_config("mmdet::_base_/models/ssd300.py").model
    cfg.model.backbone.init_cfg = None
    costs = count_flops(cfg, (300, 300))
    assert costs.strides == (8, 16, 32, 64, 100, 300)
    # 4 boxes a cell of 38x38, 4 numbers each, from 512 channels, 3x3, two for a multiply-add
    first = next(call for call in costs.calls if call.name == "bbox_head.reg_convs.0.0")
    assert first.flops == 2 * 512 * 9 * 16 * 38 * 38
    pieces = {
        part.total.name: {piece.name: piece.flops for piece in part.pieces}
        for part in costs_by_part(costs).parts
    }
    levels = {"P3": (38, 512), "P4": (19, 1024), "P5": (10, 512), "P6": (5, 256), "P7": (3, 256)}
    boxes = {"P3": 4, "P4": 6, "P5": 6, "P6": 6, "P7": 4}
    for level, (side, channels) in levels.items():
        flops = 2 * channels * 9 * 4 * boxes[level] * side**2
        assert pieces["box subnet"][level] == flops, level
    assert pieces["box subnet"]["P8"] == 2 * 256 * 9 * 16
    assert "shared" not in pieces["box subnet"]
