"""Images too small or too few for a network end a run in words."""

import functools
import re

import pytest
import torch
from torch import nn

from fldet.config.load import load_config
from fldet.engine.step_errors import explained_step_errors
from fldet.engine.train import train
from fldet.errors import UsageError


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm2d(3), (1, 3, 1, 1)),
        (nn.BatchNorm1d(3), (1, 3)),
        (nn.InstanceNorm2d(3), (2, 3, 1, 1)),
        (nn.GroupNorm(3, 3), (1, 3, 1, 1)),
    ],
)
def test_a_norm_that_gets_one_value_is_named_with_its_size(layer, shape):
    said = r"one value of each channel, a map( of \d+(x\d+)+)?$"
    with pytest.raises(UsageError) as told, explained_step_errors():
        layer.train()(torch.zeros(shape))
    assert re.search(said, told.value.message)
    assert "--batch-size 2" in told.value.hint


@pytest.mark.parametrize(
    "layer",
    [
        functools.partial(nn.Conv2d, 3, 4, 3),
        functools.partial(nn.MaxPool2d, 3),
        functools.partial(nn.ReflectionPad2d, 2),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_map_that_a_layer_has_no_room_for_is_named(layer, device):
    network = layer().to(device)
    with pytest.raises(UsageError, match="too small for the network"), explained_step_errors():
        network(torch.zeros(1, 3, 1, 1, device=device))


@pytest.mark.parametrize("error", [ValueError("no anchor"), RuntimeError("out of memory")])
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as passed, explained_step_errors():
        raise error
    assert passed.value is error


@pytest.fixture
def one_value(tiny_config):
    """A training of one image a step whose last maps have one cell, and norms that learn."""
    changes = {
        "train_dataloader.batch_size": 1,
        "model.neck.norm_cfg": {"type": "BN"},
        "train_dataloader.dataset.pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True},
            {"type": "Resize", "scale": (32, 32), "keep_ratio": False},
            {"type": "PackDetInputs"},
        ],
    }
    return load_config(tiny_config, changes)


@pytest.mark.parametrize("batch_size", [None, "auto"])
def test_a_training_says_so(one_value, tmp_path, batch_size):
    with pytest.raises(UsageError, match="one value of each channel, a map of 1x") as told:
        train(one_value, work_dir=tmp_path / "run", device="cpu", batch_size=batch_size)
    assert isinstance(told.value.__cause__, ValueError)
