"""What the lines that make a training step faster set in a config."""

import logging

import pytest
import torch

from fldet.config import train_step
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.config.train_step import set_train_step, wrapper_name
from fldet.errors import ConfigError

CPU = torch.device("cpu")


def test_gpus_without_bfloat16_get_float16_with_a_scaled_loss(monkeypatch):
    for has, name in ((True, "fldet.Bfloat16OptimWrapper"), (False, "AmpOptimWrapper")):
        monkeypatch.setattr("fldet.config.train_step.has_bfloat16", lambda device, has=has: has)
        assert wrapper_name(torch.device("cuda")) == name


CUDA = torch.device("cuda")
PLAIN = {"type": "OptimWrapper"}
SCALED = {"type": "AmpOptimWrapper", "dtype": "float16", "loss_scale": 512.0}
BRAIN = {"type": "fldet.Bfloat16OptimWrapper"}


@pytest.mark.parametrize(
    ("given", "amp", "device", "used"),
    [
        (SCALED, False, CPU, PLAIN),
        (SCALED, False, CUDA, PLAIN),
        (SCALED, True, CPU, BRAIN),
        (SCALED, True, CUDA, SCALED),
        (SCALED, None, CUDA, SCALED),
        (BRAIN, False, CPU, PLAIN),  # the config of a work dir, with --no-amp
        (BRAIN, None, CPU, BRAIN),
        (PLAIN, None, CPU, PLAIN),
        (SCALED | {"type": "mmengine.AmpOptimWrapper"}, False, CPU, PLAIN),
        (SCALED | {"type": "mmengine.AmpOptimWrapper"}, True, CPU, BRAIN),
        (PLAIN | {"type": "mmengine.OptimWrapper"}, True, CPU, BRAIN),
    ],
)
def test_amp_has_the_last_word_over_the_wrapper(tiny_config, given, amp, device, used):
    cfg = load_config(tiny_config)
    assert cfg.amp is None
    cfg.amp = amp
    optimizer = dict(cfg.optim_wrapper.optimizer)
    cfg.optim_wrapper = {**given, "optimizer": optimizer}
    set_train_step(cfg, device)
    assert cfg.optim_wrapper == {**used, "optimizer": optimizer}


@pytest.mark.parametrize(
    ("given", "has_it", "used"),
    [(PLAIN, True, BRAIN), (PLAIN, False, PLAIN), (BRAIN, False, PLAIN), (SCALED, False, PLAIN)],
)
@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_amp_auto_is_bfloat16_where_the_device_computes_in_it(
    tiny_config, monkeypatch, caplog, given, has_it, used, device
):
    cfg = load_config(tiny_config, ["amp='auto'"])
    optimizer = dict(cfg.optim_wrapper.optimizer)
    cfg.optim_wrapper = {**given, "optimizer": optimizer}
    monkeypatch.setattr(train_step, "has_bfloat16", lambda device: has_it)
    set_train_step(cfg, device)
    assert cfg.optim_wrapper == {**used, "optimizer": optimizer}
    assert "emulated" not in caplog.text


def test_a_scaled_loss_on_a_cpu_is_refused_with_the_ways_out(tiny_config):
    cfg = load_config(tiny_config, ["optim_wrapper.type=AmpOptimWrapper"])
    with pytest.raises(ConfigError, match="'AmpOptimWrapper', which is for GPUs alone") as error:
        set_train_step(cfg, CPU)
    assert "--no-amp" in error.value.hint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["channels_last=1"], "channels_last is 1"),
        (["compile=dict(mode='x')"], "compile is"),
        (["compile=3"], "compile is 3"),
        (["compile=True", "gradient_checkpointing=True"], "exclude each other"),
        (["fold_batch_norms=True", "+sync_bn=torch"], "exclude each other"),
        (
            [
                "compile=True",
                "model.data_preprocessor=dict(type='BatchFixedSizePad', _delete_=True)",
            ],
            "data_preprocessor.type is",
        ),
        (["amp=True", "optim_wrapper.type=ApexOptimWrapper"], "optim_wrapper.type is 'Apex"),
        (["amp='on'"], "amp is 'on'"),
    ],
)
def test_lines_that_make_no_sense(tiny_config, options, message):
    cfg = load_config(tiny_config, options)
    with pytest.raises(ConfigError, match=message):
        set_train_step(cfg, CPU)


@pytest.mark.parametrize(
    ("scale", "keep_ratio", "sizes", "warned"),
    [
        ((400, 300), False, 160, "300x400 and are padded to 320x480"),
        ((320, 480), False, 160, ""),  # fits
        ((400, 300), True, 160, ""),  # sizes differ
        ((400, 300), False, [(300, 400)], ""),  # named
    ],
)
def test_compiling_says_where_images_of_one_size_are_padded(
    tiny_config, caplog, scale, keep_ratio, sizes, warned
):
    cfg = prepare_config(load_config(tiny_config), phases=())
    resize = {"type": "mmdet.Resize", "scale": scale, "keep_ratio": keep_ratio}
    cfg.train_dataloader.dataset.pipeline.append(resize)
    cfg.compile = {"sizes": sizes, "backend": "eager"}
    with caplog.at_level(logging.WARNING, "fldet"):
        set_train_step(cfg, CPU)
    assert warned in caplog.text
    assert bool(warned) == ("padded to" in caplog.text)
