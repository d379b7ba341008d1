import math

import pytest

from fldet.config.bounds import out_of_bounds
from fldet.config.check import validate
from fldet.config.load import load_config
from fldet.errors import ConfigError

OURS = "shapes/retinanet_r18_shapes.py"
HEAD, ASSIGNER = "model.bbox_head", "model.train_cfg.assigner"
ANCHORS = f"{HEAD}.anchor_generator"
CANNOT_BE = {
    "train_cfg.max_iters": [
        10**400,
        2**63,
        1e300,
        0,
        -1,
        math.inf,
        math.nan,
        2.5,
        "many",
        True,
        [1],
    ],
    "train_cfg.val_interval": [0, -1, 0.5, "often", False],
    "train_cfg.val_begin": [-1, 0.5],
    "train_dataloader.batch_size": [10**400, 2**63, 0, -4, 2.0, "2", True, math.nan],
    "val_dataloader.batch_size": [0],
    "train_dataloader.num_workers": [-1, 1.5, "all"],
    "val_dataloader.num_workers": [-1],
    "train_dataloader.prefetch_factor": [0, -1],
    "default_hooks.logger.interval": [0, -1, 2.5],
    "default_hooks.checkpoint.interval": [-2, 0.5, "often"],
    "default_hooks.checkpoint.max_keep_ckpts": [-2, 1.5],
    "log_processor.window_size": [0, -1],
    "optim_wrapper.optimizer.lr": [10**400, -0.1, math.nan, math.inf, "high", True],
    "optim_wrapper.optimizer.weight_decay": [-0.1, math.nan],
    "optim_wrapper.optimizer.momentum": [-0.1, 1.1, math.nan],
    "optim_wrapper.accumulative_counts": [0, -1, 1.5],
    "optim_wrapper.clip_grad.max_norm": [0, -1, math.nan],
    "auto_scale_lr.base_batch_size": [0, -16, 10**400],
    "randomness.seed": [-1, 2**32, "x"],
    f"{HEAD}.num_classes": [0, -1, 2.5, "3"],
    f"{HEAD}.loss_cls.gamma": [-1, math.nan, math.inf, "2"],
    f"{HEAD}.loss_cls.class_weight": [[1.0, -1.0], [math.inf], [], "1", ["a"]],
    f"{HEAD}.loss_cls.loss_weight": [-1, math.nan],
    f"{HEAD}.loss_bbox.loss_weight": [-1, math.inf],
    f"{ASSIGNER}.pos_iou_thr": [1.5, -0.1, math.nan, "0.5"],
    f"{ASSIGNER}.neg_iou_thr": [1.5, (0.1, 1.5), ()],
    "model.test_cfg.score_thr": [-0.1, 1.1, math.nan],
    "model.test_cfg.nms.iou_threshold": [-0.1, 1.1],
    "model.test_cfg.max_per_img": [-2, 1.5],
    "model.test_cfg.nms_pre": [-2, "all"],
    f"{ANCHORS}.strides": [[8, 0], [8, -16], []],
    f"{ANCHORS}.ratios": [[0.5, 0], [-1]],
    f"{ANCHORS}.octave_base_scale": [0, -4],
    f"{ANCHORS}.scales_per_octave": [0, 1.5],
    "model.data_preprocessor.pad_size_divisor": [0, -32],
    "model.data_preprocessor.std": [[1, 0, 1]],
    "train_dataloader.dataset.pipeline.2.scale": [(0, 0), (128, -1), [(1, 1), (0, 1)], 0, "big"],
    "train_dataloader.dataset.max_broken_images": [-1, 0.5],
    "data_root": [2017, ["a"]],
    "train_dataloader": [5, "x", [{}], True],
    "val_cfg": [5, "ValLoop"],
    "model": [5, "RetinaNet", ["x"]],
    "default_hooks": [[{"type": "X"}], 5],
    "train_dataloader.dataset.metainfo": [5, "x.txt", [1]],
    "train_dataloader.dataset.data_prefix": [5, "train"],
    "train_dataloader.dataset.pipeline": [5, "x", True, 0],
    "custom_hooks": [5, "x", True],
    "val_evaluator": [5, "CocoMetric"],
    "val_dataloader.dataset.ann_file": [7],
    "val_dataloader.dataset.data_prefix.img": [2017],
}
CAN_BE = {
    "train_cfg.max_iters": [1, 1e5],
    "train_cfg.val_interval": [1, 10**9],
    "train_dataloader.num_workers": [0],
    "train_dataloader.prefetch_factor": [None, 2],
    "default_hooks.checkpoint.interval": [-1, 0],
    "optim_wrapper.optimizer.lr": [0, 1e-9],
    "optim_wrapper.clip_grad.max_norm": [math.inf],
    "model.test_cfg.max_per_img": [-1],
    "model.test_cfg.score_thr": [0, 1],
    f"{HEAD}.loss_cls.gamma": [0],
    f"{HEAD}.loss_cls.class_weight": [None, [0.5, 2]],
    f"{ASSIGNER}.neg_iou_thr": [(0.1, 0.5)],
    "train_dataloader.dataset.pipeline.2.scale": [[(64, 64), (96, 96)]],
    "data_root": ["", "2017"],
    "val_dataloader": [None, False, {}],
    "custom_hooks": [None, False, [], [{"type": "X"}]],
    "val_evaluator": [None, {"type": "X"}, [{"type": "X"}]],
    "train_dataloader.dataset.pipeline": [(), [{"type": "X"}, [{"type": "Y"}]]],
}
ROWS = [(key, value) for key, values in CANNOT_BE.items() for value in values]


@pytest.fixture(scope="module")
def ours():
    return load_config(OURS)


def found(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    ((name, below),) = value.items()
    return list(out_of_bounds(below, (name,)))


@pytest.mark.parametrize("key", ["custom_hooks", "train_dataloader.dataset.pipeline"])
@pytest.mark.parametrize("value", [5, "x", 0])
def test_what_is_in_a_list_of_dicts_is_one(key, value):
    ((message, expected, _),) = found(key, [{}, value])
    assert (message, expected) == (f"{key}.1 is {value!r}", "a list of dicts")


@pytest.mark.parametrize(("key", "value"), ROWS)
def test_a_number_that_cannot_be_is_named_with_its_place(key, value):
    ((message, expected, _),) = found(key, value)
    assert message.startswith(f"{key} is ")
    assert expected


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in CAN_BE.items() for v in values])
def test_a_number_that_can_be(key, value):
    assert found(key, value) == []


def test_a_place_in_other_detectors_may_hold_a_dict():
    assert found("model.bbox_head.loss_cls.gamma", {"type": "x"}) == []


def test_a_config_is_checked_before_anything_is_built(ours):
    override = {"+train_cfg.val_interval": 0, "+optim_wrapper.optimizer.lr": -1}
    with pytest.raises(ConfigError, match=r"lr is -1\n.*\nalso: train_cfg.val_interval is 0"):
        validate(load_config(OURS, override))


@pytest.mark.parametrize(
    "loader",
    [
        {"num_workers": 0},
        {"dataset": None},
        {"dataset": {}},
        {"dataset": "coco"},
        {"dataset": {"ann_file": "x.json"}},
        {"dataset": {"type": "ConcatDataset", "datasets": [{"ann_file": "x.json"}]}},
        {"dataset": {"type": "RepeatDataset", "times": 2, "dataset": {"ann_file": "x"}}},
    ],
)
@pytest.mark.parametrize("name", ["test_dataloader", "val_dataloader"])
def test_a_loader_without_a_data_set_is_named(name, loader):
    with pytest.raises(ConfigError, match=rf"{name}(\.dataset)* has no (data set|type)"):
        validate(load_config(OURS, {f"+{name}": {"_delete_": True, **loader}}))


@pytest.mark.parametrize("loader", [None, {}])
def test_no_loader_is_fine(loader):
    validate(load_config(OURS, {"+test_dataloader": loader}))
