"""Costs of layers against those worked out by hand, and against what was measured."""

import math

import pytest
import torch
from torch import nn

from fldet.analysis.flops.count import count_flops, flop_counter
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


@pytest.mark.parametrize(
    ("options", "products"),  # multiply-adds for two maps of 8 x 12
    [
        ({}, 2 * 8 * 12 * (6 * 4 * 9)),
        ({"groups": 2}, 2 * 8 * 12 * (6 * 2 * 9)),
        ({"out_channels": 4, "groups": 4}, 2 * 8 * 12 * (4 * 9)),
        ({"out_channels": 8, "groups": 4}, 2 * 8 * 12 * (8 * 9)),  # two maps of each channel
        ({"stride": 2}, 2 * 4 * 6 * (6 * 4 * 9)),
        ({"out_channels": 4, "groups": 4, "stride": 2}, 2 * 4 * 6 * (4 * 9)),
        ({"kernel_size": 1, "padding": 0, "bias": False}, 2 * 8 * 12 * (6 * 4)),
        ({"dilation": 2, "padding": 2}, 2 * 8 * 12 * (6 * 4 * 9)),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_operations_of_a_convolution_and_of_its_gradients(kind, options, products):
    """Each gradient costs what the convolution costs; a transposed one, a product an input."""
    given = {"out_channels": 6, "kernel_size": 3, "padding": 1} | options
    layer = kind(4, **given)
    if kind is nn.ConvTranspose2d and given.get("stride") == 2:
        products *= 4  # every place of the map counts, not every fourth
    for wants_input, wants_weight in [(True, True), (True, False), (False, True)]:
        x = torch.randn(2, 4, 8, 12, requires_grad=wants_input)
        layer.weight.requires_grad_(wants_weight)
        with flop_counter() as counter:
            out = layer(x)
            forward = counter.get_total_flops()
            out.sum().backward()
        assert forward == 2 * products
        assert counter.get_total_flops() == forward * (1 + wants_input + wants_weight)


def test_other_operations_are_counted_as_torch_does():
    x, layer = torch.randn(5, 3), nn.Linear(3, 4)
    with flop_counter() as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 2 * 2 * math.prod((5, 3, 4))  # x wants no gradient
