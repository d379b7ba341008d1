"""The closed list has all of MMDetection's detectors of boxes, and nothing that reads files."""

import inspect
import re
import sys
from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config

from fldet.checkpoints.stored_config import checked, find_pipeline
from fldet.checkpoints.stored_names import DENIED, PLACES, may_stand, place_of
from fldet.config.names import registries
from fldet.errors import CheckpointError

CONFIGS = Path(mmdet.__path__[0], ".mim", "configs")

# Of other tasks than finding boxes in one image, or with parts that are read by name.
NOT_STORED = {"bytetrack", "deepsort", "ocsort", "qdtrack", "reid", "strongsort", "sort"} | {
    *("mask2former_vis", "masktrack_rcnn", "clrnet"),  # videos, lanes
    *("glip", "grounding_dino", "mm_grounding_dino", "ld", "lad", "soft_teacher"),
    *("convnext", "timm_example", "misc"),  # need a package besides
}


@pytest.mark.parametrize(
    "folder",
    [path for path in sorted(CONFIGS.iterdir()) if path.name not in {*NOT_STORED, "_base_"}],
    ids=lambda path: path.name,
)
def test_a_detector_of_mmdetection_may_be_stored(folder):
    for path in sorted(folder.glob("*.py"))[:2]:
        cfg = Config.fromfile(path)
        if "model" not in cfg:
            continue
        parts = {"model": {k: v for k, v in cfg.model.to_dict().items() if k != "train_cfg"}}
        pipeline = [
            step for step in find_pipeline(cfg.to_dict()) or () if "Panoptic" not in str(step)
        ]
        if not any("Proposal" in str(step) for step in pipeline):
            parts["pipeline"] = pipeline
        assert checked(parts, path)["model"]["type"] == cfg.model.type


# What a constructor may not do with an argument that a file chooses.
RISKY = re.compile(
    r"\beval\(|\bexec\(|import_module|__import__|torch\.load|load_checkpoint\(|from_pretrained|"
    r"Config\.fromfile|\bopen\(|pickle|os\.system|subprocess|mmengine\.load|getattr\(albu"
)
# Looked at one by one.
HARMLESS = {
    # in ``init_weights``, by ``init_cfg``: neither reaches a detector with weights
    *("mmcv.cnn.vgg", "mmdet.models.backbones.detectors_resnet"),
    *("mmdet.models.backbones.pvt", "mmdet.models.backbones.swin"),
    # of these the list of names takes others: not Albu, whose arguments name what it builds
    "mmdet.datasets.transforms.transforms",
    # opens the image
    "fldet.data.images",
}


def allowed_classes():
    for place in PLACES:
        if not place.registry:
            continue
        todo = [registries()[place.registry].root]
        while todo:
            tree = todo.pop()
            todo += tree.children.values()
            for name, cls in tree.module_dict.items():
                written = f"{tree.scope}.{name}"
                if may_stand(written, place, "mmdet"):
                    yield place, written, cls


def test_no_class_on_the_list_reads_files_or_runs_what_an_argument_names():
    modules = {}
    for _, name, cls in allowed_classes():
        for one in cls.__mro__:
            if one.__module__.partition(".")[0] in ("mmdet", "mmcv", "fldet"):
                modules.setdefault(one.__module__, name)
    sources = {
        name: Path(str(sys.modules[name].__file__)).read_text(encoding="utf-8") for name in modules
    }
    found = {name for name, text in sources.items() if RISKY.search(text.replace(".eval()", ""))}
    assert len(sources) > 150
    assert found == HARMLESS


def test_the_list_is_of_classes_that_are_registered():
    classes = list(allowed_classes())
    assert len({name for _, name, _ in classes}) > 250
    assert all(inspect.isclass(cls) for _, _, cls in classes)
    assert {place.what for place, _, _ in classes} == {p.what for p in PLACES if p.registry}


def test_those_that_are_denied_are_still_there():
    models = registries()["MODELS"].module_dict
    assert models.keys() >= DENIED


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("mmengine.call_command", "backbone"),  # a function that a module has
        ("call_command", "backbone"),
        ("mmengine.rmtree", "pipeline"),
        ("mmengine.load", "pipeline"),
        ("mmengine.model.BaseModel", "model"),  # a path, not a name in a registry
        ("torch.nn.Linear", "neck"),
        ("os.system", "norm_cfg"),
        ("os", "backbone"),  # a module
        ("evilmod", "pipeline"),
        ("MaxIoUAssigner", "backbone"),  # registered, for another place
        ("ResNet", "loss_cls"),
        ("fldet.RetinaHead", "neck"),
        ("fldet.CheckpointHook", "bbox_head"),
        ("CocoMetric", "bbox_head"),
        ("Albu", "pipeline"),  # builds what its own arguments name
        ("TransformBroadcaster", "pipeline"),
        ("LoadProposals", "pipeline"),
        ("Detectron2Wrapper", "model"),
        ("GLIP", "model"),
        ("BertModel", "language_model"),
        ("mmcv.Resize", "pipeline"),  # no registry has this scope
        ("nms.__class__", "nms"),  # evaluated by MMCV
        ("__import__('os').system('true')", "nms"),
        ("mmdet.nms", "nms"),
        ("NMSop", "nms"),
        ("load_ext", "roi_layer"),  # any name of mmcv.ops
        ("", "backbone"),
        (".", "backbone"),
        ("mmdet.", "backbone"),
        ("mmdet..ResNet", "backbone"),
        ("ResNet ", "backbone"),
        ("ResNet\n", "backbone"),
        ("example.Thing", "backbone"),
    ],
)
def test_what_may_not_stand_there(name, key):
    place = place_of(key)
    assert place is None or not may_stand(name, place, "mmdet")


@pytest.mark.parametrize(
    ("name", "key", "scope"),
    [
        ("ResNet", "backbone", "mmdet"),
        ("mmdet.ResNet", "backbone", "fldet"),
        ("RetinaHead", "bbox_head", "fldet"),
        ("fldet.RetinaHead", "bbox_head", "mmdet"),
        ("fldet.FasterRCNN", "model", "mmdet"),
        ("fldet.RoIHead", "roi_head", "mmdet"),
        ("fldet.ResLayer", "shared_head", "mmdet"),
        ("BN", "norm_cfg", "mmdet"),
        ("mmengine.BN", "norm_cfg", "mmdet"),
        ("fldet.CropRoIExtractor", "bbox_roi_extractor", "mmdet"),
        ("fldet.InceptionResNetV2SharedHead", "shared_head", "mmdet"),
        ("soft_nms", "nms", "mmdet"),
        ("LoadImageFromFile", "pipeline", "mmdet"),
        ("fldet.PackDetInputs", "pipeline", "mmdet"),
    ],
)
def test_what_may(name, key, scope):
    assert may_stand(name, place_of(key), scope)


@pytest.mark.parametrize("key", ["teacher", "reid", "tracker", "hooks", "visualizer", "optimizer"])
def test_other_places_have_nothing_with_a_type(key):
    assert place_of(key) is None
    with pytest.raises(CheckpointError, match=rf"'ResNet'.* as model\.{key}"):
        checked({"model": {"type": "RetinaNet", key: {"type": "ResNet"}}}, Path("x.pth"))
