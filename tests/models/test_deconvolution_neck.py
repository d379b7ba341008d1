"""The decoder of DSSD: its product, odd maps, and what stays frozen."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch.nn import functional as F

from fldet.config.load import load_config
from fldet.data.random_batches import random_batch
from fldet.models.necks.deconvolution_neck import DeconvolutionModule, DeconvolutionNeck
from fldet.registry import MODELS


def module(kernel=2, stride=2):
    torch.manual_seed(0)
    return DeconvolutionModule(
        6, 5, 4, kernel_size=kernel, stride=stride, norm_cfg={"type": "BN"}
    ).eval()


def test_the_module_by_functions_alone():
    one = module()
    coarse, fine = torch.randn(2, 6, 4, 3), torch.randn(2, 5, 8, 6)
    large = F.conv_transpose2d(coarse, one.deconv.weight, one.deconv.bias, stride=2)

    def conv(layer, x):  # an untrained norm in evaluation divides by sqrt(1 + eps)
        return F.conv2d(x, layer.conv.weight, padding=1) / (1 + 1e-5) ** 0.5

    expected = conv(one.after_deconv, large) * conv(one.fine2, conv(one.fine1, fine).relu())
    torch.testing.assert_close(one(coarse, fine), expected.relu())


def test_a_finer_map_of_ones_leaves_the_enlarged_one():
    one = module()
    torch.nn.init.zeros_(one.fine2.conv.weight)
    torch.nn.init.ones_(one.fine2.bn.bias)
    coarse = torch.randn(1, 6, 4, 4)
    found = one(coarse, torch.randn(1, 5, 8, 8))
    torch.testing.assert_close(found, one.after_deconv(one.deconv(coarse)).relu())
    assert found.count_nonzero() > 0


@pytest.mark.parametrize(
    ("kernel", "stride", "coarse", "fine"),
    [
        (2, 1, (1, 1), (2, 2)),
        (3, 1, (1, 3), (3, 5)),
        (2, 2, (3, 3), (7, 6)),  # rounded down
        (2, 2, (7, 6), (13, 11)),  # rounded up
    ],
)
def test_sizes(kernel, stride, coarse, fine):
    found = module(kernel, stride)(torch.randn(1, 6, *coarse), torch.randn(1, 5, *fine))
    assert found.shape == (1, 4, *fine)
    assert torch.isfinite(found).all()


def test_what_cannot_be():
    with pytest.raises(ValueError, match="expected 6 up_kernel_sizes and up_strides"):
        DeconvolutionNeck(in_channels=(4, 8), extra_channels=8, up_strides=(2,))


def small_dssd(*, freeze_encoder=True):
    """The small DSSD, its encoder as it is in a training of DSSD513."""
    init_default_scope("mmdet")
    cfg = load_config("systems/shapes/dssd_r18.py")
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.update(
        in_channels=(16, 64), extra_channels=16, decoder_channels=8, widths=(4,) * 5
    )
    cfg.model.neck.freeze_encoder = freeze_encoder
    if freeze_encoder:
        cfg.model.backbone.update(frozen_stages=4, norm_eval=True)
    cfg.model.bbox_head.update(in_channels=(16,) * 5, feat_channels=8)
    model = MODELS.build(cfg.model)
    return model.train(), build_optim_wrapper(model, cfg.optim_wrapper)


def test_the_encoder_is_bit_equal_after_a_step_and_all_else_is_not():
    model, optimizer = small_dssd()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = model.train_step(random_batch(2, (160, 160), 6, boxes=3), optimizer)
    assert losses["loss"] > 0
    encoder = ("backbone.", "neck.extra_layers.")
    changed = {n for n, value in model.state_dict().items() if not value.equal(before[n])}
    assert not {name for name in changed if name.startswith(encoder)}
    kernels = {name for name, value in model.named_parameters() if value.dim() == 4}
    assert {name for name in kernels if not name.startswith(encoder)} <= changed


def test_an_encoder_that_learns():
    model, optimizer = small_dssd(freeze_encoder=False)
    before = model.neck.extra_layers[0].branch1.conv.weight.clone()
    model.train_step(random_batch(2, (160, 160), 6, boxes=3), optimizer)
    assert not model.neck.extra_layers[0].branch1.conv.weight.equal(before)


def test_a_checkpoint_of_ssd_fits_by_name():
    init_default_scope("mmdet")
    with torch.device("meta"):
        ssd, dssd = (
            MODELS.build(load_config(f"systems/{name}513_r101.py").model).state_dict()
            for name in ("ssd", "dssd")
        )
    encoder = {name for name in ssd if name.startswith(("backbone.", "neck.extra_layers."))}
    assert len(encoder) > 600
    assert all(dssd[name].shape == ssd[name].shape for name in encoder)
