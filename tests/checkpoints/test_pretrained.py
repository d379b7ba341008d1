import logging
from urllib.error import URLError

import pytest
from mmengine.registry import init_default_scope
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from fldet.checkpoints import pretrained
from fldet.checkpoints.model import build_model, load_model
from fldet.checkpoints.pretrained import drop_pretrained, warn_of_frozen_random_weights
from fldet.config.load import CONFIGS, load_config
from fldet.errors import CheckpointError
from fldet.registry import MODELS


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
    cfg = load_config("retinanet/r50_fpn_1x.py")
    with pytest.raises(CheckpointError, match="no route") as caught:
        build_model(cfg)
    assert caught.value.hint.endswith(
        "none: model.backbone.init_cfg=None model.backbone.frozen_stages=-1 "
        "model.backbone.norm_eval=False"
    )
    changes = caught.value.hint.partition("none: ")[2].split()
    without = build_model(load_config("retinanet/r50_fpn_1x.py", changes))
    assert all(weight.requires_grad for weight in without.parameters())
    assert all(module.training for module in without.train().backbone.modules())


def test_offline_a_shared_head_is_done_without_too(monkeypatch):
    def no_network(address, map_location=None):
        raise URLError("no route to host")

    monkeypatch.setattr(mmengine_checkpoint, "load_from_http", no_network)
    name = "systems/faster_rcnn_r101_c4.py"
    small = ["model.backbone.depth=18", "model.roi_head.shared_head.depth=18"]
    with pytest.raises(CheckpointError, match="no route") as caught:
        build_model(load_config(name, small))
    changes = caught.value.hint.partition("none: ")[2].split()
    without = build_model(load_config(name, [*small, *changes]))
    assert all(weight.requires_grad for weight in without.parameters())
    assert all(module.training for module in without.train().modules())


CAFFE = "model.backbone.norm_cfg.requires_grad=False"
PRETRAINED = {"type": "Pretrained", "checkpoint": "weights.pth"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], "frozen_stages=-1 model.backbone.norm_eval=False"),
        (["model.backbone.norm_eval=False"], "model.backbone.frozen_stages=-1"),
        ([CAFFE], "norm_eval=False model.backbone.norm_cfg.requires_grad=True"),
        (["model.backbone.frozen_stages=0"], "frozen_stages=-1"),
        (["model.backbone.frozen_stages=-1"], ""),
        (["model.backbone.frozen_stages=-1", CAFFE], ""),  # ones and zeros, not random numbers
        ([f"model.backbone.init_cfg={PRETRAINED}"], ""),
        ([f"+model.init_cfg={PRETRAINED}"], ""),
        ([f"+model.init_cfg={[{'type': 'Normal', 'layer': 'Conv2d'}]}"], "frozen_stages=-1"),
    ],
)
def test_random_weights_that_stay_frozen_are_named(caplog, monkeypatch, changes, said):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    start = ["model.backbone.init_cfg=None", "model.backbone.depth=18"]
    start += ["model.neck.in_channels=[64,128,256,512]"]
    cfg = load_config("retinanet/r50_fpn_1x.py", [*start, *changes])
    init_default_scope("mmdet")
    warn_of_frozen_random_weights(cfg, MODELS.build(cfg.model))
    assert ("are random and frozen" in caplog.text) == bool(said)
    assert said in caplog.text


@pytest.mark.parametrize("path", sorted((CONFIGS / "systems").glob("*.py")), ids=lambda p: p.stem)
def test_a_model_without_a_checkpoint_needs_no_pretrained_weights_anywhere(path):
    cfg = load_config(path)
    drop_pretrained(cfg.model)
    assert "Pretrained" not in str(cfg.model.to_dict())


def test_a_shared_head_is_built_without_a_download(monkeypatch):
    def no_connection(*_):
        raise URLError("no network")

    monkeypatch.setattr(CheckpointLoader, "load_checkpoint", no_connection)
    cfg = load_config(
        "systems/shapes/faster_rcnn_r18_c4.py",
        {"model.roi_head.shared_head.init_cfg": {"type": "Pretrained", "checkpoint": "a.pth"}},
    )
    assert load_model(cfg, None).path is None
