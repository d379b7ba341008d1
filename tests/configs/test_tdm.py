"""Faster R-CNN with TDM: its size, and what of the base network it begins with."""

import copy

import torch
from mmengine.registry import init_default_scope

from fldet.config.load import load_config
from fldet.registry import MODELS

OURS = "systems/tdm_inception_resnet_v2.py"
BASE = "systems/grmi_inception_resnet_v2_stride16.py"


def built(name):
    init_default_scope("mmdet")
    with torch.device("meta"):
        return MODELS.build(copy.deepcopy(load_config(name).model)).eval()


def shapes(name):
    return {key: tuple(value.shape) for key, value in built(name).state_dict().items()}


def test_weights_of_the_base_network_fit_but_those_on_other_channels():
    ours, base = shapes(OURS), shapes(BASE)
    assert set(base) < set(ours)
    other = {name for name in base if base[name] != ours[name]}
    assert other == {"rpn_head.rpn_conv.weight"}
    new = {name.rsplit(".", 2)[0] for name in set(ours) - set(base)}
    parts = ("neck.lateral.0", "neck.top_down.0", "neck.join.0", "roi_head.shared_head.project")
    assert new == set(parts)


def test_one_map_of_stride_8_for_rpn_and_regions():
    model = built(OURS)
    base, neck, project, narrower_rpn = 59_967_597, 3_507_200, 558_144, 9 * 512 * (1088 - 512)
    parameters = sum(value.numel() for value in model.parameters())
    assert parameters == base + neck + project - narrower_rpn
    (fine,) = model.extract_feat(torch.empty(1, 3, 600, 1000, device="meta"))
    assert fine.shape == (1, 512, 75, 125)
    anchors = model.rpn_head.prior_generator
    assert anchors.strides == [(8, 8)]
    assert anchors.base_sizes == [8]
    crops = torch.empty(2, 512, 17, 17, device="meta")
    assert model.roi_head.shared_head(crops).shape == (2, 1536, 8, 8)
