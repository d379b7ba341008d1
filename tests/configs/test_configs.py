"""Every config in the repository loads, passes the checks, builds and takes a training step."""

from pathlib import Path

import pytest
import torch
from mmcv.transforms import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

import fldet
from fldet.config.load import format_config, load_config
from fldet.config.check import validate
from fldet.checkpoints.model import build_model
from fldet.registry import MODELS

CONFIGS = Path(fldet.__file__).parent.parent / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)
RETINANETS = [path for path in FILES if "systems" not in path.parts]


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(CONFIGS)))


@each(RETINANETS)
def test_loads_passes_the_checks_prints_and_builds(path):
    cfg = load_config(path)
    validate(cfg)
    assert "RetinaHead" in format_config(cfg)
    init_default_scope("mmdet")
    with torch.device("meta"):  # shapes without memory
        model = MODELS.build(cfg.model)
    assert model.bbox_head.num_classes == cfg.model.bbox_head.num_classes


def make_tiny(model):
    """Puts a small network in the place of a big one; head, losses and mining stay as they are."""
    model.backbone.update(type="ResNet", depth=18, base_channels=8)
    model.backbone.init_cfg = None  # nothing is downloaded
    for key in ("groups", "base_width"):
        model.backbone.pop(key, None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    model.bbox_head.update(num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1)
    if model.bbox_head.get("norm_cfg"):
        model.bbox_head.norm_cfg.num_groups = 2


@each(RETINANETS)
def test_takes_a_training_step_on_a_real_image(path, real_image):
    cfg = load_config(path)
    make_tiny(cfg.model)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    sample = Compose(cfg.train_dataloader.dataset.pipeline)(dict(real_image))
    assert len(sample["data_samples"].gt_instances) > 3
    before = {name: value.clone() for name, value in model.named_parameters()}
    losses = model.train_step(
        {"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]}, optimizer
    )
    assert {"loss", "loss_cls", "loss_bbox"} <= losses.keys()
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["loss_cls"] > 0
    assert losses["loss_bbox"] > 0
    moved = {n for n, value in model.named_parameters() if not torch.equal(value, before[n])}
    assert {"bbox_head.retina_cls.bias", "bbox_head.retina_reg.bias"} <= moved
    assert all(torch.isfinite(value).all() for value in model.parameters())


@each(FILES)
def test_header_names_its_command(path):
    text = path.read_text()
    relative = path.relative_to(CONFIGS.parent)
    assert f"fldet train {relative}" in text or f"fldet test {relative}" in text


def test_work_dirs_are_named_apart():
    stems = [path.stem for path in FILES]
    assert len(stems) == len(set(stems))


def test_the_papers_schedule():
    cfg = load_config("retinanet/r50_fpn_1x.py")
    assert cfg.train_cfg.max_iters == 90_000
    assert cfg.param_scheduler[1].milestones == [60_000, 80_000]
    assert cfg.optim_wrapper.optimizer == {
        "type": "SGD",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 1e-4,
    }
    assert cfg.auto_scale_lr.base_batch_size == 16


def test_one_and_a_half_times_the_schedule():
    cfg = load_config("retinanet/r101_fpn_1.5x.py")
    assert cfg.train_cfg.max_iters == 135_000
    assert cfg.param_scheduler[1].milestones == [90_000, 120_000]
    assert cfg.model.backbone.depth == 101
    scales = [step.scale for step in cfg.train_dataloader.dataset.pipeline if "scale" in step]
    assert scales == [[(1333, 640), (1333, 800)]]


def test_the_papers_model():
    model = load_config("retinanet/r50_fpn_1x.py").model
    assert model.neck.add_extra_convs == "on_input"  # P6 on C5
    assert model.neck.relu_before_extra_convs is True
    assert model.bbox_head.prior_prob == 0.01
    assert (model.bbox_head.loss_cls.alpha, model.bbox_head.loss_cls.gamma) == (0.25, 2.0)
    assert (model.train_cfg.assigner.pos_iou_thr, model.train_cfg.assigner.neg_iou_thr) == (0.5, 0.4)
    test = model.test_cfg
    assert (test.score_thr, test.nms_pre, test.nms.iou_threshold) == (0.05, 1000, 0.5)
