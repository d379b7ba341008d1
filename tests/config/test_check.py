from pathlib import Path

import pytest

from fldet.config.check import accepted_keywords, validate
from fldet.config.load import find_config, load_config
from fldet.errors import ConfigError

RETINANET = "mmdet::retinanet/retinanet_r18_fpn_1x_coco.py"
FOLDERS = ("retinanet", "faster_rcnn", "ssd", "fcos", "atss")
SHIPPED = [
    f"mmdet::{folder}/{file.name}"
    for folder in FOLDERS
    for file in sorted(find_config(RETINANET).parent.parent.joinpath(folder).glob("*.py"))
]


@pytest.mark.parametrize("name", SHIPPED)
def test_accepts_what_mmdet_ships(name):
    validate(load_config(name))


SEEDED = [
    # override, what the error says, what the row proves
    (
        "train_dataloadr={}",
        r"^train_dataloadr: nothing reads .*\ndid you mean train_dataloader",
        "top",
    ),
    ("modle={}", r"^modle: .*\ndid you mean model\?", "two letters swapped"),
    ("custom_hook=[]", r"did you mean custom_hooks", "a letter missing"),
    ("model.type=RetinaNett", r"^model\.type: 'RetinaNett'.*\ndid you mean RetinaNet", "detector"),
    ("model.bbox_head.type=retinaHead", r"did you mean RetinaHead", "lower case is no excuse"),
    (
        "model.bbox_head.loss_cls.type=FocalLos",
        r"^model\.bbox_head\.loss_cls\.type.*\n.*FocalLoss",
        "loss",
    ),
    ("model.bbox_head.loss_cls.type=fldet.FocalLos", "did you mean .*FocalLoss", "a name of ours"),
    (
        "model.bbox_head.loss_cls.type=nopackage.X",
        "neither the package 'nopackage' nor a plug-in .* is installed\nHint: fldet plugins",
        "package",
    ),
    ("model.backbone.type=.X", r"^model\.backbone\.type: '\.X' cannot be looked up", "no scope"),
    ("model.backbone.type=mmpretrain.X", "Hint: pip install mmpretrain", "a package of OpenMMLab"),
    (
        "model.backbone.type=json.X",
        "No module named 'json.registry'.*\n.*custom_imports",
        "no scope",
    ),
    ("model.bbox_head.anchor_generator.type=AnchorGen", "did you mean AnchorGenerator", "anchors"),
    ("model.train_cfg.assigner.type=MaxIoUAssign", "did you mean MaxIoUAssigner", "assigner"),
    (
        "model.test_cfg.nms.type=nmss",
        r"^model\.test_cfg\.nms\.type.*\ndid you mean .*nms",
        "mmcv op",
    ),
    ("model.backbone.norm_cfg.type=BNN", r"norm_cfg\.type: 'BNN'", "layer"),
    ("model.backbone.init_cfg.type=Pretraind", r"did you mean Pretrained\?", "initializer"),
    ("train_dataloader.dataset.type=CocoDatset", "did you mean CocoDataset", "data set"),
    ("train_dataloader.sampler.type=DefaultSamplr", r"did you mean DefaultSampler", "sampler"),
    (
        "train_dataloader.dataset.pipeline.2.type=Resiz",
        r"pipeline\.2\.type.*\n.*Resize",
        "transform",
    ),
    ("model.type=5", r"^model\.type is 5\nExpected: the name of a class", "a number as type"),
    ("model.backbone.type=[1]", r"^model\.backbone\.type is \[1\]", "a list as type"),
    ("val_evaluator.type=CocoMetrics", "did you mean CocoMetric", "metric"),
    ("default_hooks.timer.type=IterTimeHook", "did you mean IterTimerHook", "hook"),
    (
        "optim_wrapper.optimizer.type=SDG",
        r"optim_wrapper\.optimizer\.type: 'SDG'.*\n.*SGD",
        "optimizer",
    ),
    ("param_scheduler.0.type=LinearLr", r"param_scheduler\.0\.type.*\n.*LinearLR", "scheduler"),
    ("model.backbone.dept=18", r"^model\.backbone\.dept: ResNet .*\ndid you mean depth", "keyword"),
    ("model.backbone.zzz=18", r"one of: .*depth, ", "a keyword that is like no other"),
    ("model.bbox_head.feat_chanels=1", "did you mean feat_channels", "keyword of the base class"),
    ("train_dataloader.dataset.ann_fil=a", "did you mean ann_file", "keyword after two **kwargs"),
    ("train_dataloader.batch_sise=2", "DataLoader takes no 'batch_sise'", "dict without a type"),
    ("train_cfg.max_epoch=2", "EpochBasedTrainLoop .*\ndid you mean max_epochs", "loop"),
    ("optim_wrapper.clip_gard={}", "did you mean clip_grad", "optimizer wrapper"),
    ("param_scheduler.1.milestone=[1]", "did you mean milestones", "scheduler's keyword"),
]


@pytest.mark.parametrize(("override", "match", "why"), SEEDED)
def test_finds_a_seeded_error(override, match, why):
    cfg = load_config(RETINANET, [f"+{override}"])
    with pytest.raises(ConfigError, match=match) as caught:
        validate(cfg)
    assert "also:" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("lr=0.1", "a variable"),
        ("model_path=x", "a variable named after a key"),
        ("img_scales=[1]", "a variable known from mmdet"),
        ("model.bbox_head.loss_cls.type=mmdet.FocalLoss", "prefix"),
        ("model.neck.type=mmdet.models.necks.FPN", "import path"),
        ("model.test_cfg.nms.type=soft_nms", "a function of mmcv"),
        ("model.test_cfg.plugin={'type': 'own_label'}", "only its class knows the label"),
        ("optim_wrapper.paramwise_cfg={}", "taken by the builder"),
        ("optim_wrapper.optimizer={'_delete_': True, 'type': 'Adam'}", "not in mmdet but in torch"),
        ("default_hooks.checkpoint.save_best=auto", "keyword"),
        ("default_hooks.timer.priority=LOW", "taken by the Runner"),
        ("val_cfg=None", "no validation"),
        ("model.train_cfg=None", "nothing to check"),
        ("train_dataloader.dataset.metainfo={'type': 'Any', 'x': 1}", "data, not code"),
    ],
)
def test_accepts(override, why):
    validate(load_config(RETINANET, [f"+{override}"]))


def test_names_in_another_default_scope():
    validate(load_config(RETINANET, {"default_scope": "mmengine"}))


def test_lists_all_problems():
    overrides = ["+model.backbone.dept=1", "+model.neck.type=FPNN", "+train_cfgg={}"]
    with pytest.raises(ConfigError) as caught:
        validate(load_config(RETINANET, overrides))
    assert caught.value.message == "train_cfgg: nothing reads this key"
    assert "also: model.backbone.dept: ResNet takes no 'dept' did" in caught.value.expected
    assert "also: model.neck.type: 'FPNN' is not registered" in caught.value.expected


def test_use_sigmoid_must_be_in_the_loss_config():
    loss = {"_delete_": True, "type": "FocalLoss"}
    cfg = load_config(RETINANET, {"model.bbox_head.loss_cls": loss})
    with pytest.raises(ConfigError, match=r"^model\.bbox_head\.loss_cls: use_sigmoid .*\n.*K \+ 1"):
        validate(cfg)


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        ({"type": "CrossEntropyLoss", "use_sigmoid": False}, "softmax on purpose"),
        ({"type": "FocalLoss", "use_sigmoid": True}, "said"),
    ],
)
def test_use_sigmoid_that_is_said_is_accepted(loss, why):
    override = {"model.bbox_head.loss_cls": {"_delete_": True, **loss}}
    validate(load_config(RETINANET, override))


# --- signatures ---


class Root:
    def __init__(self, a, b=1):
        pass


class Forwards(Root):
    def __init__(self, c, **kwargs):
        super().__init__(**kwargs)


class Takes(Root):
    def __init__(self, **kwargs):
        self.d = kwargs.pop("d", 1)
        super().__init__(**kwargs)


class Swallows(Root):
    def __init__(self, **kwargs):
        self.rest = kwargs


class Inherits(Forwards):
    pass


class Skips(Forwards):
    def __init__(self, e, **kwargs):
        super(Forwards, self).__init__(**kwargs)


class Open:
    def __init__(self, **kwargs):
        super().__init__(**kwargs)


def function(a, *, b=1):
    pass


@pytest.mark.parametrize(
    ("target", "accepted", "why"),
    [
        (Root, {"a", "b"}, "no **kwargs"),
        (Forwards, {"a", "b", "c"}, "handed on"),
        (Inherits, {"a", "b", "c"}, "no constructor of its own"),
        (Takes, {"a", "b", "d"}, "one taken out first"),
        (Skips, {"a", "b", "e"}, "super(Forwards, self) starts after Forwards"),
        (Swallows, None, "kept: anything goes"),
        (Open, None, "handed on to object: cannot tell"),
        (function, {"a", "b"}, "a function"),
        (dict, None, "written in C"),
    ],
)
def test_accepted_keywords(target, accepted, why):
    found = accepted_keywords(target)
    assert (found and found - {"self"}) == accepted


def test_shipped_configs_are_there():
    assert len(SHIPPED) > 80
    assert Path(find_config(SHIPPED[0])).is_file()
