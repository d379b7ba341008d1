"""A config by epochs becomes one by iterations: the same rates, validations and checkpoints."""

import copy
import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from fldet.config.epochs import count_iterations
from fldet.config.load import load_config
from fldet.engine.train import train
from fldet.errors import ConfigError


def by_epoch(**changes):
    """Four epochs of seven images, two a step: four iterations each, as MMEngine counts them."""
    return Config(
        {
            "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 4, "val_interval": 2},
            "train_dataloader": {"batch_size": 2},
            "param_scheduler": [],
            "default_hooks": {
                "checkpoint": {"type": "CheckpointHook", "interval": 1},
                "logger": {"type": "LoggerHook"},
            },
            "log_processor": {"type": "LogProcessor", "by_epoch": True},
            **changes,
        }
    )


def converted(cfg, images=7, processes=1):
    cfg = copy.deepcopy(cfg)
    count_iterations(cfg, images=images, processes=processes)
    return cfg


def test_loop_checkpoints_and_log():
    cfg = converted(by_epoch())
    assert cfg.train_cfg == {"type": "IterBasedTrainLoop", "max_iters": 16, "val_interval": 8}
    assert (cfg.default_hooks.checkpoint.interval, cfg.default_hooks.checkpoint.by_epoch) == (
        4,
        False,
    )
    assert cfg.log_processor.by_epoch is False
    assert cfg.default_hooks.logger.log_metric_by_epoch is False


@pytest.mark.parametrize(
    ("loader", "images", "processes", "length"),
    [
        ({}, 7, 1, 4),
        ({}, 8, 1, 4),
        ({}, 7, 2, 2),  # four images for each process
        ({}, 1, 8, 1),
        ({"drop_last": True}, 7, 1, 3),
        ({"batch_sampler": {"drop_last": True}}, 1, 1, 1),
        ({"num_batch_per_epoch": 5}, 7, 1, 5),
    ],
)
def test_an_epoch_has_the_batches_of_the_loader(loader, images, processes, length):
    cfg = by_epoch(train_dataloader={"batch_size": 2, **loader})
    assert converted(cfg, images, processes).train_cfg.max_iters == 4 * length


def rates(scheduler, length, epochs):
    """The learning rate of each iteration, as MMEngine's hook steps the scheduler."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    built = PARAM_SCHEDULERS.build({"optimizer": optimizer, **scheduler})
    found = []
    for iteration in range(length * epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if not built.by_epoch or (iteration + 1) % length == 0:
            built.step()
    return found


@pytest.mark.parametrize(
    ("scheduler", "exact"),
    [
        ({"type": "MultiStepLR", "milestones": [2, 3], "gamma": 0.1, "begin": 0, "end": 4}, True),
        ({"type": "MultiStepLR", "milestones": [1], "by_epoch": True}, True),
        ({"type": "StepLR", "step_size": 2}, True),
        ({"type": "ConstantLR", "factor": 0.5, "begin": 0, "end": 3}, True),
        ({"type": "CosineAnnealingLR", "T_max": 4, "eta_min": 0.0}, False),
        ({"type": "ExponentialLR", "gamma": 0.3}, False),
        ({"type": "LinearLR", "start_factor": 0.1, "begin": 0, "end": 4}, False),
        ({"type": "PolyLR", "power": 2.0, "eta_min": 0.01, "begin": 0, "end": 4}, False),
    ],
)
def test_the_rate_is_that_of_the_epoch(scheduler, exact):
    """Where an epoch begins; throughout, where the schedule is one of steps."""
    cfg = converted(by_epoch(param_scheduler=[copy.deepcopy(scheduler)]))
    assert cfg.param_scheduler[0].by_epoch is False
    before, after = rates(scheduler, 4, 4), rates(cfg.param_scheduler[0], 4, 4)
    places = slice(None) if exact else slice(None, None, 4)
    assert after[places] == pytest.approx(before[places], abs=1e-7)
    assert len(set(before)) > 1


def test_mmengines_own_way_of_converting_is_kept():
    ramp = {"type": "LinearLR", "start_factor": 0.1, "begin": 0, "end": 2}
    cfg = converted(by_epoch(param_scheduler=[{**ramp, "convert_to_iter_based": True}]))
    assert cfg.param_scheduler == [{**ramp, "end": 8, "by_epoch": False}]


def test_a_schedule_by_iterations_stays():
    warm_up = {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 500}
    assert converted(by_epoch(param_scheduler=[warm_up])).param_scheduler == [warm_up]


def test_intervals_that_change():
    loop = {"max_epochs": 4, "val_interval": 2, "val_begin": 3, "dynamic_intervals": [(4, 1)]}
    cfg = converted(by_epoch(train_cfg=loop))
    assert (cfg.train_cfg.val_begin, cfg.train_cfg.val_interval) == (12, 8)
    assert cfg.train_cfg.dynamic_intervals == [(13, 4)]  # the first iteration of epoch 4


def test_a_config_by_iterations_is_left_alone(tiny_config):
    cfg = load_config(tiny_config)
    assert converted(cfg).to_dict() == cfg.to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"custom_hooks": [{"type": "YOLOXModeSwitchHook"}]}, "YOLOXModeSwitchHook counts epochs"),
        ({"custom_hooks": [{"type": "EMAHook", "begin_epoch": 3}]}, "begin_epoch"),
        ({"param_scheduler": [{"type": "ReduceOnPlateauLR"}]}, "ReduceOnPlateauLR counts epochs"),
    ],
)
def test_what_has_no_counterpart_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        converted(by_epoch(**changes))


def test_a_whole_config_of_mmdetection_trains(tiny_coco, tmp_path, caplog):
    """Faster R-CNN, 1x: two epochs of the five images with objects, two images a step."""
    theirs = load_config(
        "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
        {
            "data_root": str(tiny_coco),
            "model.backbone": {"depth": 18, "init_cfg": None},
            "+model.backbone.base_channels": 4,
            "model.neck": {"in_channels": [4, 8, 16, 32], "out_channels": 8},
            "model.rpn_head": {"in_channels": 8, "feat_channels": 8},
            "model.roi_head.bbox_roi_extractor.out_channels": 8,
            "model.roi_head.bbox_head": {"in_channels": 8, "fc_out_channels": 16},
            "train_cfg.max_epochs": 2,
            "train_dataloader": {"num_workers": 0, "persistent_workers": False},
            "val_dataloader": {"num_workers": 0, "persistent_workers": False},
            "train_dataloader.dataset.pipeline.2.scale": (96, 96),
            "val_dataloader.dataset.pipeline.1.scale": (96, 96),
            "val_evaluator.ann_file": f"{tiny_coco}/annotations/instances_val2017.json",
            "param_scheduler.1.milestones": [1],
        },
    )
    with caplog.at_level(logging.INFO, "fldet"):
        result = train(theirs, work_dir=tmp_path / "run", device="cpu")
    assert result.iterations == 6
    assert "5 images, 2 a step of each of 1 process: 3 iterations an epoch" in caplog.text
    assert "param_scheduler.1.milestones of MultiStepLR: 1 -> 3 iterations" in caplog.text
    assert "train_cfg.val_interval: 1 -> 3 iterations" in caplog.text
    assert {path.name for path in result.work_dir.glob("iter_*")} >= {"iter_3.pth", "iter_6.pth"}
    assert theirs.train_cfg.max_epochs == 2  # the caller's stays
