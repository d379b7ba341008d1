"""The lines ``augment`` and ``oversample`` in what is run, and in what reads it."""

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from fldet.anchors.boxes import collect_boxes
from fldet.config.augment import PRESETS
from fldet.config.load import format_config, load_config
from fldet.config.prepare import dataset_of, datasets_of, prepare_config
from fldet.data.sizes import _boxes_of, _moves_boxes, _transforms, largest_input, seeded
from fldet.errors import ConfigError
from fldet.registry import DATASETS

RESIZE = {"type": "Resize", "scale": (96, 64), "keep_ratio": True, "backend": "cv2"}
LOAD = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}]
FLIP, PACK = {"type": "fldet.RandomFlip", "prob": 0.5}, {"type": "fldet.PackDetInputs"}
STEPS = {
    "none": ["Resize"],
    "medium": ["RandomResize", "RandomCrop", "FilterAnnotations"],
    "small": ["RandomResize", "RandomCrop", "FilterAnnotations", "PhotoMetricDistortion"],
}


@pytest.fixture
def cfg(tiny_config):
    """The tiny config with a Resize in the training pipeline."""
    cfg = load_config(tiny_config)
    cfg.train_dataloader.dataset.pipeline = [*LOAD, RESIZE, FLIP, PACK]
    return cfg


def prepared(cfg, **lines):
    cfg.update(lines)
    return prepare_config(cfg, phases=("train", "val"))


def steps(pipeline):
    return [step["type"].rpartition(".")[2] for step in pipeline]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_steps_in_the_place_of_resize_once(cfg, preset, tmp_path):
    before = format_config(cfg)
    resolved = prepared(cfg, augment=preset)
    pipeline = resolved.train_dataloader.dataset.pipeline
    assert steps(pipeline) == [
        *("LoadImageFromFile", "LoadAnnotations", *STEPS[preset], "RandomFlip", "PackDetInputs")
    ]
    assert pipeline[2].scale == (96, 64)
    assert pipeline[2].backend == "cv2"
    assert steps(resolved.val_dataloader.dataset.pipeline)[1] == "Resize"
    saved = tmp_path / "saved.py"  # as a work dir has it
    saved.write_text(format_config(resolved))
    again = prepare_config(load_config(saved), phases=("train", "val"))
    assert again.train_dataloader.dataset.pipeline == pipeline
    cfg.augment = "none"
    assert format_config(cfg) == before


def test_a_config_that_is_only_tested_has_its_pipeline_as_it_was(tiny_config):
    """Which has no Resize, so that no preset fits it."""
    cfg = load_config(tiny_config, ["augment=small", "oversample=0.5"])
    resolved = prepare_config(cfg, phases=("test",))
    before = cfg.train_dataloader.dataset.pipeline
    assert steps(resolved.train_dataloader.dataset.pipeline) == steps(before)


def test_a_flip_comes_where_there_is_none(cfg):
    cfg.train_dataloader.dataset.pipeline = [*LOAD, RESIZE, PACK]
    assert "RandomFlip" in steps(prepared(cfg, augment="medium").train_dataloader.dataset.pipeline)


WRAPPERS = {
    "repeated": lambda one: {"type": "RepeatDataset", "times": 3, "dataset": one},
    "joined": lambda one: {"type": "ConcatDataset", "datasets": [one, one]},
    "balanced": lambda one: {"type": "ClassBalancedDataset", "oversample_thr": 1, "dataset": one},
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_the_lines_reach_into_wrappers(cfg, wrap):
    cfg.train_dataloader.dataset = wrap(cfg.train_dataloader.dataset)
    resolved = prepared(cfg, augment="small", oversample=0.9)
    init_default_scope("mmdet")
    plain = DATASETS.build(prepared(cfg, augment="none", oversample=None).train_dataloader.dataset)
    dataset = DATASETS.build(resolved.train_dataloader.dataset)
    assert len(dataset) > len(plain)
    assert [type(one).__name__ for one in _transforms(dataset)][2:6] == STEPS["small"]
    assert dataset[len(dataset) - 1]["inputs"].shape[1] <= 64
    assert len(collect_boxes(cfg).boxes) > 0


REFUSED = {
    "no Resize": [*LOAD, FLIP, PACK],
    "2 Resize": [*LOAD, RESIZE, RESIZE, PACK],
    "Resize that warps": [*LOAD, {**RESIZE, "keep_ratio": False}, PACK],
    r"no scale=\(WIDTH": [*LOAD, {"type": "Resize", "scale_factor": 0.5, "keep_ratio": True}, PACK],
    "RandomChoiceResize beside": [
        *(*LOAD, {"type": "RandomChoiceResize", "scales": [(64, 64)], "keep_ratio": True}, PACK)
    ],
    "PlaceOnGrey beside": [*LOAD, {"type": "fldet.PlaceOnGrey", "scale": (64, 64)}, PACK],
    "Expand, MinIoURandomCrop beside": [
        *(*LOAD, {"type": "Expand"}, {"type": "MinIoURandomCrop"}, RESIZE, PACK)
    ],
    "before Resize": [LOAD[0], RESIZE, LOAD[1], PACK],
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_preset_that_would_be_a_guess_is_refused(cfg, fault):
    cfg.train_dataloader.dataset.pipeline = REFUSED[fault]
    prepared(cfg)
    with pytest.raises(ConfigError, match=f"augment = 'medium': .*{fault}") as refused:
        prepared(cfg, augment="medium")
    assert "augment = 'none'" in refused.value.hint


def test_grey_images_have_no_colours_to_distort(cfg):
    cfg.train_dataloader.dataset.pipeline[0]["color_type"] = "grayscale"
    with pytest.raises(ConfigError, match="distorts colours"):
        prepared(cfg, augment="small")
    prepared(cfg, augment="medium")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("augment=smal", "augment is 'smal'"),
        ("augment=True", "augment is True"),
        ("oversample=0", "oversample is 0"),
        ("oversample=1.5", "oversample is 1.5"),
        ("oversample=True", "oversample is True"),
        ("oversample=nan", "oversample is 'nan'"),
        ("+oversampel=0.1", "did you mean oversample"),
        ("+augmnt=small", "did you mean augment"),
    ],
)
def test_values_that_cannot_be(tiny_config, line, said):
    with pytest.raises(ConfigError, match=said):
        prepare_config(load_config(tiny_config, [line]), phases=("train",))


# --- what reads the pipeline ---


@pytest.mark.parametrize("preset", PRESETS)
def test_no_image_is_larger_than_the_scale(coco_mini, preset):
    """So that batches, and the trial of --batch-size auto, are as without a preset."""
    options = [f"data_root={coco_mini}", f"augment={preset}"]
    cfg = prepare_config(load_config("retinanet/r50_fpn_1x.py", options), phases=("train",))
    init_default_scope("mmdet")
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert largest_input(cfg, dataset) == ((800, 1333), 51)
    with seeded(0):
        shapes = [tuple(sorted(dataset[index]["inputs"].shape[1:])) for index in range(12)]
    assert all(short <= 800 and long <= 1333 for short, long in shapes)
    assert len(set(shapes)) > 3


@pytest.mark.parametrize("preset", PRESETS)
def test_boxes_without_pixels_are_those_with_pixels(coco_mini, preset):
    """What ``fldet analyze anchors`` looks at against what training gets."""
    options = [f"data_root={coco_mini}", f"augment={preset}"]
    cfg = load_config("retinanet/r50_fpn_1x.py", options)
    cfg.train_dataloader.dataset.pipeline[3].prob = 0.0  # flips are left out there
    dataset = DATASETS.build(prepare_config(cfg, phases=("train",)).train_dataloader.dataset)
    followed = [one for one in _transforms(dataset) if _moves_boxes(one)]
    for index in range(20):
        with seeded(index):
            boxes, areas, (width, height) = _boxes_of(dataset.get_data_info(index), followed)
        with seeded(index):
            packed = dataset[index]
        assert packed["inputs"].shape[1:] == (height, width)
        truth = packed["data_samples"].gt_instances.bboxes.tensor.numpy()
        np.testing.assert_allclose(boxes, truth, atol=1e-3)
        assert len(areas) == len(boxes)


def test_data_sets_are_found_behind_oversample(cfg):
    cfg.oversample = 0.9
    kind, dataset = dataset_of(cfg, "train")
    assert kind.__name__ == "CocoDataset"
    assert len(kind.read(dataset)["images"]) == 6
    assert len(datasets_of(cfg, ["train"])) == 1
    assert collect_boxes(cfg).about["images"] == "all 11 images"  # of which five are there twice
