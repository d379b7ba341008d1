from urllib.error import URLError

import pytest
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from fldet.config import load_config
from fldet.engine import pretrained
from fldet.engine.build import build_model
from fldet.errors import CheckpointError


@pytest.fixture
def without_torchvision(monkeypatch):
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    asked = []

    def load_from_http(address, map_location=None):
        asked.append(address)
        return {}

    monkeypatch.setattr(mmengine_checkpoint, "load_from_http", load_from_http)
    return asked


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101", "resnext101_32x8d"])
def test_backbones_of_the_configs_have_an_address_without_torchvision(without_torchvision, name):
    CheckpointLoader.load_checkpoint(f"torchvision://{name}")
    assert f"/{name}-" in without_torchvision[0]


def test_an_unknown_name_is_answered_with_the_nearest(without_torchvision):
    with pytest.raises(CheckpointError, match=r"torchvision://resnet5(\n.*)*resnet50"):
        CheckpointLoader.load_checkpoint("torchvision://resnet5")


def test_offline_the_error_says_how_to_do_without(without_torchvision, monkeypatch):
    def no_network(address, map_location=None):
        raise URLError("no route to host")

    monkeypatch.setattr(mmengine_checkpoint, "load_from_http", no_network)
    with pytest.raises(CheckpointError, match=r"(?s)no route.*model.backbone.init_cfg=None"):
        build_model(load_config("retinanet/r50_fpn_1x.py"))
