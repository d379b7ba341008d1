import json
import logging
from contextlib import nullcontext
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope

from fldet.config.load import load_config
from fldet.config.prepare import (
    our_datasets,
    prepare_config,
    scale_learning_rate,
    stated_classes,
)
from fldet.errors import ConfigError, DataError
from fldet.registry import DATASETS


def test_fills_in_paths_classes_and_the_test_loader(tiny_config, tiny_coco):
    cfg = prepare_config(load_config(tiny_config), phases=("train", "val", "test"))
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        assert cfg[loader].dataset.data_root == str(tiny_coco)
        assert cfg[loader].dataset.metainfo.classes == ("circle", "square")
    assert cfg.model.bbox_head.num_classes == 2
    expected = str(tiny_coco / "annotations" / "instances_val2017.json")
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == expected


@pytest.mark.parametrize(("use_sigmoid", "right"), [(True, 2), (False, 3)])
def test_so_are_the_weights_of_mmdetections_cross_entropy(tiny_config, use_sigmoid, right):
    """Over a softmax the background has one too."""
    cfg = load_config(tiny_config)
    for count in (right, right - 1, right + 1):
        weights = [1.0] * count
        cfg.model.bbox_head.loss_cls = dict(
            type="CrossEntropyLoss", use_sigmoid=use_sigmoid, class_weight=weights
        )
        with nullcontext() if count == right else pytest.raises(ConfigError, match="class_weight"):
            prepare_config(cfg, phases=("train",))


@pytest.mark.parametrize("key", ["alpha", "class_weight"])
def test_what_a_loss_has_of_each_class_is_of_all_classes(tiny_config, key):
    cfg = load_config(tiny_config)
    cfg.model.bbox_head.loss_cls[key] = [0.5, 0.25]
    prepare_config(cfg, phases=("train",))
    cfg.model.bbox_head.loss_cls[key] = [0.5, 0.25, 0.5]
    with pytest.raises(
        ConfigError, match=f"{key} of loss_cls has 3 values, the data has 2 classes"
    ):
        prepare_config(cfg, phases=("train",))
    cfg.model.bbox_head.loss_cls = {
        "type": "fldet.FocalLoss",
        "use_sigmoid": True,
        "class_weight": 2.0,
    }
    with pytest.raises(ConfigError, match="class_weight of loss_cls is one number"):
        prepare_config(cfg, phases=("train",))


def test_leaves_the_given_config_alone(tiny_config):
    cfg = load_config(tiny_config)
    before = cfg.to_dict()
    prepare_config(cfg, phases=("train",))
    assert cfg.to_dict() == before


def test_labels_are_those_of_the_checkpoint(tiny_config, caplog):
    """The order in the config does not matter, and other names are refused."""
    cfg = load_config(tiny_config)
    from_checkpoint = ("square", "circle")
    assert _classes(prepare_config(cfg, phases=(), classes=from_checkpoint)) == from_checkpoint
    cfg.classes = ("circle", "square")
    caplog.clear()
    with caplog.at_level("WARNING", "fldet"):
        prepared = prepare_config(cfg, phases=(), classes=from_checkpoint)
    assert _classes(prepared) == from_checkpoint
    assert caplog.messages == ["classes are in the order of the checkpoint: square, circle"]
    for others in (("square",), ("square", "disc"), ("square", "circle", "disc")):
        cfg.classes = others
        with pytest.raises(
            ConfigError, match=r"the config has the classes \('square',.*checkpoint"
        ):
            prepare_config(cfg, phases=(), classes=from_checkpoint)


def test_classes_of_a_data_set_count_for_all_and_for_the_model(tiny_config):
    """As configs of MMDetection have them; ``classes`` goes before."""
    cfg = load_config(tiny_config)
    cfg.train_dataloader.dataset.metainfo = dict(classes=("square",), palette=[(1, 2, 3)])
    prepared = prepare_config(cfg, phases=("train", "val"))
    assert prepared.model.bbox_head.num_classes == 1
    assert prepared.train_dataloader.dataset.metainfo.palette == [(1, 2, 3)]
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        assert prepared[loader].dataset.metainfo.classes == ("square",)
    cfg.classes = ("circle", "square")
    prepared = prepare_config(cfg, phases=("train", "val"))
    assert prepared.train_dataloader.dataset.metainfo.classes == ("circle", "square")
    assert prepared.model.bbox_head.num_classes == 2


def _concat(*datasets, kind="ConcatDataset"):
    return dict(type=kind, datasets=list(datasets))


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        (lambda a, b: _concat(a, b), ("circle", "square", "zebra")),
        (lambda a, b: _concat(b, a), ("zebra", "circle", "square")),
        (
            lambda a, b: dict(type="RepeatDataset", times=2, dataset=_concat(b, a)),
            ("zebra", "circle", "square"),
        ),
        (
            lambda a, b: _concat(dict(type="RepeatDataset", times=2, dataset=b), a),
            ("zebra", "circle", "square"),
        ),
        (
            lambda a, b: _concat(a, {**b, "metainfo": dict(classes=("zebra", "circle"))}),
            ("circle", "square", "zebra"),
        ),
        (
            lambda a, b: _concat({**a, "metainfo": dict(classes=("square",))}, b),
            ("square", "zebra", "circle"),
        ),
    ],
)
def test_data_sets_together_have_the_classes_of_all(tiny_config, tmp_path, wrap, expected):
    """In the order in which they come, whatever wraps them."""
    cfg = load_config(tiny_config)
    first = dict(cfg.train_dataloader.dataset)
    content = json.loads(Path(cfg.data_root, first["ann_file"]).read_text())
    content["categories"] = [{"id": 7, "name": "circle"}, {"id": 3, "name": "zebra"}]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    cfg.train_dataloader.dataset = wrap(first, {**first, "ann_file": str(other)})
    prepared = prepare_config(cfg, phases=("train", "val"))
    assert prepared.model.bbox_head.num_classes == 3
    assert _classes(prepared) == expected
    init_default_scope("mmdet")
    dataset = DATASETS.build(prepared.train_dataloader.dataset)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    seen = {expected[one["bbox_label"]] for info in infos for one in info["instances"]}
    assert seen == {"circle", "square", "zebra"}


@pytest.mark.parametrize("name", ["", "\x1b", 7])
def test_names_in_the_config_are_names(tiny_config, name):
    cfg = load_config(tiny_config)
    cfg.classes = ("square", name)
    with pytest.raises(ConfigError, match="a name in classes"):
        prepare_config(cfg, phases=())


def _classes(cfg):
    return cfg.test_dataloader.dataset.metainfo.classes


def test_without_a_validation_loader_nothing_of_it_is_left(tiny_config):
    cfg = load_config(tiny_config, ["val_dataloader=None"])
    prepared = prepare_config(cfg, phases=("train",))
    left = [
        prepared.get(f"{phase}_{what}")
        for phase in ("val", "test")
        for what in ("cfg", "evaluator")
    ]
    assert left == [None] * 4


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("data_root=nowhere", DataError, "annotation file not found: nowhere/annotations/inst"),
        ("train_dataloader.dataset.data_prefix.img=no", DataError, "folder of images not found"),
        ("train_dataloader=None", ConfigError, "has no train_dataloader"),
        ("classes=square", ConfigError, "classes is the text 'square'"),
    ],
)
def test_what_is_missing_is_named(tiny_config, override, error, message):
    with pytest.raises(error, match=message):
        prepare_config(load_config(tiny_config, [override]), phases=("train",))


@pytest.mark.parametrize(
    "loader",
    [
        *(5, "x", [1], True),
        *({"dataset": one} for one in (5, "x", [1], {"type": 5}, {"type": None}, {"type": ["x"]})),
        {"dataset": {}},
        {"dataset": {"dataset": 5}},
        {"dataset": {"datasets": 5}},
        {"dataset": {"datasets": [{"type": "CocoDataset"}, 5]}},
        {"dataset": {"datasets": {"type": 7}}},
    ],
)
def test_a_loader_or_data_set_of_another_type_is_refused(loader):
    with pytest.raises(ConfigError, match=r"is (5|7|'x'|\[|True|None)"):
        our_datasets(loader)


@pytest.mark.parametrize("metainfo", [5, "x", [1], {"classes": [[1]]}, {"classes": ("a", None)}])
def test_classes_of_a_data_set_are_names(metainfo):
    with pytest.raises(ConfigError, match=r"metainfo of a data set|a name in classes is no text"):
        stated_classes({"type": "CocoDataset", "metainfo": metainfo})


@pytest.mark.parametrize("classes", [None, 5, "names.txt", (), {}])
def test_a_data_set_may_name_no_classes(classes):
    assert stated_classes({"metainfo": {"classes": classes}}) == ()


@pytest.mark.parametrize(
    ("batch", "processes", "accumulate", "rate"),
    [(2, 8, 1, 0.01), (2, 1, 1, 0.00125), (4, 1, 2, 0.005), (16, 2, 1, 0.02)],
)
def test_learning_rate_follows_the_images_per_step(tiny_config, batch, processes, accumulate, rate):
    cfg = load_config(tiny_config)
    cfg.train_dataloader.batch_size = batch
    cfg.optim_wrapper.accumulative_counts = accumulate
    scale_learning_rate(cfg, processes)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(rate)
    assert cfg.auto_scale_lr.enable is False  # MMEngine would scale once more


def test_learning_rate_stays_when_the_rule_is_off(tiny_config):
    cfg = load_config(tiny_config, ["auto_scale_lr.enable=False"])
    scale_learning_rate(cfg, 1)
    assert cfg.optim_wrapper.optimizer.lr == 0.01


def test_the_arithmetic_is_logged(tiny_config, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    caplog.set_level(logging.INFO, "fldet")
    scale_learning_rate(load_config(tiny_config), 4)
    assert "learning rate 0.01 x 8/16 = 0.005 (8 images per step: 4 processes x 2;" in caplog.text
