"""The maps of SSD: counts of the authors' networks, and a block by torch's functions alone."""

import pytest
import torch
from mmengine.registry import init_default_scope
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fldet.config.load import load_config
from fldet.models.backbones.ssd_resnet import SSDResNet
from fldet.models.necks.residual_ssd_neck import ResidualBlock, ResidualSSDNeck
from fldet.registry import MODELS

COUNTS = {  # of the prototypes that were built from the authors' files, layer by layer
    "ssd513_r101": (173_145_304, 279.4),
    "dssd513_r101": (254_983_896, 415.9),
}


@pytest.mark.parametrize(("name", "counts"), COUNTS.items(), ids=COUNTS)
def test_parameters_operations_and_maps_of_the_papers_networks(name, counts):
    init_default_scope("mmdet")
    with torch.device("meta"):
        model = MODELS.build(load_config(f"systems/{name}.py").model).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            scores, deltas = model.bbox_head(model.extract_feat(torch.empty(1, 3, 513, 513)))
    assert sum(value.numel() for value in model.parameters()) == counts[0]
    assert counter.get_total_flops() / 1e9 == pytest.approx(counts[1], abs=0.05)
    assert [m.shape[-1] for m in scores] == [64, 32, 16, 8, 4, 2, 1]
    assert sum(m.shape[1] // 81 * m.shape[2] * m.shape[3] for m in scores) == 43_688
    assert sum(m.numel() // 4 for m in deltas) == 43_688


@pytest.mark.parametrize(("side", "maps"), [(513, [64, 32]), (321, [40, 20]), (160, [20, 10])])
def test_the_first_pooling_rounds_up_without_a_border(side, maps):
    with torch.device("meta"):
        resnet = SSDResNet(18, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), out_indices=(1, 3))
        assert [m.shape[-1] for m in resnet(torch.empty(1, 3, side, side))] == maps


def test_the_maps_of_ssd321():
    with torch.device("meta"):
        neck = ResidualSSDNeck(
            in_channels=(8, 16),
            extra_channels=32,
            kernel_sizes=(2, 2, 3, 3),
            strides=(2, 2, 1, 1),
            widths=(2, 4, 8, 8, 8, 8),
        ).eval()
        found = neck((torch.empty(1, 8, 40, 40), torch.empty(1, 16, 20, 20)))
    assert [m.shape[-1] for m in found] == [40, 20, 10, 5, 3, 1]
    assert [m.shape[1] for m in found] == [8, 16, 32, 32, 32, 32]


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 2), (3, 1)])
def test_a_block_by_functions_alone(kernel, stride):
    torch.manual_seed(0)
    block = ResidualBlock(6, 4, kernel, stride, norm_cfg={"type": "BN", "eps": 1e-3})
    for norm in (module for module in block.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 9, 7)
    found = block.train()(x)
    own = dict(block.named_parameters())

    def layer(name, x, **options):
        x = F.conv2d(x, own[f"{name}.conv.weight"], **options)
        return F.batch_norm(
            x, None, None, own[f"{name}.bn.weight"], own[f"{name}.bn.bias"], True, 0.0, 1e-3
        )

    side = F.relu(layer("branch2a", x, stride=stride))
    side = layer("branch2c", F.relu(layer("branch2b", side, padding=1)))
    expected = F.relu(layer("branch1", x, stride=stride) + side)
    torch.testing.assert_close(found, expected)
    assert len(own) == 12  # four convolutions without bias, four norms


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": (2,)}, "one stride for each of 2"),
        ({"extra_channels": 30}, "multiple of 4"),
        ({"widths": (4, 4)}, "one width for each of 4 maps"),
    ],
)
def test_what_cannot_be(change, message):
    options = {
        "in_channels": (8, 16),
        "extra_channels": 32,
        "kernel_sizes": (2, 2),
        "strides": (2, 2),
        "widths": (4, 4, 4, 4),
    }
    with pytest.raises(ValueError, match=message):
        ResidualSSDNeck(**{**options, **change})
