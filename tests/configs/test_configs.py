"""Every config in the repository loads, passes the checks, prints and builds, without data."""

from pathlib import Path

import pytest

import fldet
from fldet.config import format_config, load_config
from fldet.config_check import validate
from fldet.engine.build import build_model

CONFIGS = Path(fldet.__file__).parent.parent / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_loads_passes_the_checks_prints_and_builds(path):
    cfg = load_config(path)
    validate(cfg)
    assert "RetinaHead" in format_config(cfg)
    cfg.model.backbone.init_cfg = None  # pretrained weights would be downloaded
    model = build_model(cfg)
    assert model.bbox_head.num_classes == cfg.model.bbox_head.num_classes


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_header_names_its_command(path):
    text = path.read_text()
    relative = path.relative_to(CONFIGS.parent)
    assert f"fldet train {relative}" in text or f"fldet test {relative}" in text


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
