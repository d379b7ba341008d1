"""The pipelines against MMDetection's: equal pixels, boxes, labels and meta data."""

import copy
import random

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs as MMDetPackDetInputs
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from fldet.config.check import validate
from fldet.config.load import load_config
from fldet.data.coco import CocoDataset
from fldet.data.preprocessor import DetDataPreprocessor
from fldet.data.transforms import PackDetInputs, RandomFlip
from fldet.errors import ConfigError
from fldet.registry import MODELS

PACK = "PackDetInputs"
LOAD = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}]
EVERY_FLIP = {"prob": [0.3, 0.3, 0.3], "direction": ["horizontal", "vertical", "diagonal"]}
RESIZES = {
    "single scale": [{"type": "Resize", "scale": (333, 200), "keep_ratio": True}],
    "a range": [
        {"type": "RandomResize", "scale": [(333, 160), (333, 200)], "keep_ratio": True},
    ],
    "a choice": [
        {"type": "RandomChoiceResize", "scales": [(333, s) for s in (120, 160)], "keep_ratio": True}
    ],
    "none": [],
    "a crop": [  # no array of its own
        {"type": "RandomCrop", "crop_size": (100, 120), "allow_negative_crop": True}
    ],
}
OPTIONS = {
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "bgr_to_rgb": True,
    "pad_size_divisor": 32,
}


@pytest.fixture(autouse=True)
def scope():
    init_default_scope("mmdet")


@pytest.fixture(scope="module")
def real_images(coco_mini):
    """Eight photographs as a data set hands them to a pipeline, some with crowds."""
    dataset = CocoDataset(
        data_root=str(coco_mini),
        ann_file="annotations/instances_train2017.json",
        data_prefix={"img": "train2017"},
        pipeline=[],
    )
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    infos.sort(key=lambda info: -sum(box["ignore_flag"] for box in info["instances"]))
    return infos[:8]


def pipelines(resize, flip=EVERY_FLIP):
    """MMDetection's and ours."""
    return (
        Compose([*LOAD, *resize, {"type": f"{ours}RandomFlip", **flip}, {"type": f"{ours}{PACK}"}])
        for ours in ("", "fldet.")
    )


def run(pipeline, infos, seed=0):
    random.seed(seed)
    np.random.seed(seed)
    return [pipeline(copy.deepcopy(info)) for info in infos]


def tensors(instances):
    return {key: getattr(value, "tensor", value) for key, value in instances.items()}


def assert_equal_samples(ours, theirs):
    assert ours.metainfo == theirs.metainfo
    for part in ("gt_instances", "ignored_instances"):
        found, expected = tensors(getattr(ours, part)), tensors(getattr(theirs, part))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value)


@pytest.mark.parametrize("resize", RESIZES.values(), ids=RESIZES)
def test_samples_are_those_of_mmdet(real_images, resize):
    theirs, ours = (run(pipeline, real_images * 2) for pipeline in pipelines(resize))
    assert len({one["data_samples"].flip_direction for one in ours}) == 4
    assert any(len(one["data_samples"].ignored_instances) for one in ours)
    for found, expected in zip(ours, theirs, strict=True):
        assert torch.equal(found["inputs"], expected["inputs"])
        assert found["inputs"].dtype == torch.uint8
        assert found["inputs"].permute(1, 2, 0).is_contiguous()
        assert_equal_samples(found["data_samples"], expected["data_samples"])


@pytest.mark.parametrize(
    "image",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
        np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::-1],  # MMDetection's RandomFlip
        np.arange(24, dtype=np.float32).reshape(2, 4, 3)[1:, 1:],  # a crop
        np.arange(8, dtype=np.uint8).reshape(2, 4),  # grey
        np.arange(48, dtype=np.uint8).reshape(2, 4, 6),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["plain", "flipped view", "float crop", "grey", "six channels", "empty"],
)
def test_any_array_is_packed(image):
    results = {"img": image, "img_shape": image.shape[:2]}
    found = PackDetInputs().transform(results)["inputs"]
    assert torch.equal(found, MMDetPackDetInputs().transform(dict(results))["inputs"])
    assert results["img"] is image


def test_contiguous_images_are_not_copied():
    image = np.zeros((4, 5, 3), np.uint8)
    packed = PackDetInputs().transform({"img": image})["inputs"]
    image[1, 2, 0] = 7
    assert packed[0, 1, 2] == 7


@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 5, 1), (4, 5, 6), (4, 5)], ids=str)
def test_flips_in_place_whatever_the_channels(shape):
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    expected = image[:, ::-1].copy()
    results = RandomFlip(prob=1.0).transform({"img": image})
    np.testing.assert_array_equal(results["img"], expected)
    assert results["img"] is image


def batches(samples, size):
    return [pseudo_collate(samples[i : i + size]) for i in range(0, len(samples), size)]


@pytest.mark.parametrize("size", [1, 3], ids=["one image", "images to be padded"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"bgr_to_rgb": False}, {"mean": None, "std": None}, {"pad_value": 7}, {"std": [1] * 3}],
    ids=str,
)
def test_batches_are_those_of_mmdet_in_channels_last(real_images, size, changes):
    options = {**OPTIONS, **changes}
    theirs, ours = (run(pipeline, real_images[:3]) for pipeline in pipelines(RESIZES["a range"]))
    reference = MODELS.build({"type": "mmdet.DetDataPreprocessor", **options})
    preprocessor = DetDataPreprocessor(**options)
    for found, expected in zip(batches(ours, size), batches(theirs, size), strict=True):
        found, expected = preprocessor(found, training=True), reference(expected, training=True)
        assert torch.equal(found["inputs"], expected["inputs"])
        assert found["inputs"].is_contiguous(memory_format=torch.channels_last)
        for one, other in zip(found["data_samples"], expected["data_samples"], strict=True):
            assert_equal_samples(one, other)
            assert one.pad_shape == other.pad_shape


def test_batches_of_other_layouts():
    """Planes instead of pixels, one tensor instead of a list, no truth."""
    image = torch.randint(0, 256, (2, 3, 33, 40), dtype=torch.uint8)
    reference = MODELS.build({"type": "mmdet.DetDataPreprocessor", **OPTIONS})
    preprocessor = DetDataPreprocessor(**OPTIONS)
    for inputs in (image, list(image), list(image.float())):
        found = preprocessor({"inputs": inputs})
        assert torch.equal(found["inputs"], reference({"inputs": inputs})["inputs"])
        assert found["data_samples"] is None


def test_layout_survives_a_worker_and_reaches_the_network(tiny_config, tiny_coco):
    cfg = load_config(tiny_config)
    dataset = CocoDataset(
        data_root=str(tiny_coco),
        ann_file="annotations/instances_train2017.json",
        data_prefix={"img": "train2017"},
        pipeline=cfg.train_dataloader.dataset.pipeline,
    )
    loader = DataLoader(dataset, batch_size=3, num_workers=1, collate_fn=pseudo_collate)
    batch = next(iter(loader))
    assert all(image.permute(1, 2, 0).is_contiguous() for image in batch["inputs"])
    cfg.model.data_preprocessor.type = "fldet.DetDataPreprocessor"
    model = MODELS.build(cfg.model)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(**model.data_preprocessor(batch, training=True), mode="tensor")
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert not seen[0].is_contiguous()


@pytest.mark.gpu
def test_batch_is_channels_last_on_a_gpu(real_images):
    _, ours = pipelines(RESIZES["a range"])
    batch = pseudo_collate(run(ours, real_images[:3]))
    expected = DetDataPreprocessor(**OPTIONS)(copy.deepcopy(batch))["inputs"]
    batch["inputs"] = [image.pin_memory() for image in batch["inputs"]]
    assert all(image.permute(1, 2, 0).is_contiguous() for image in batch["inputs"])
    found = DetDataPreprocessor(**OPTIONS, non_blocking=True).cuda()(batch)["inputs"]
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.cpu(), expected)


def test_misspelt_steps_are_named_with_their_prefix(tiny_config):
    cfg = load_config(tiny_config)
    cfg.train_dataloader.dataset.pipeline[-1].type = "fldet.PackDetInput"
    with pytest.raises(ConfigError, match=r"'fldet\.PackDetInput' is not registered") as error:
        validate(cfg)
    assert "fldet.PackDetInputs" in str(error.value)
    cfg.train_dataloader.dataset.pipeline[-1] = {"type": "fldet.PackDetInputs", "meta_key": ()}
    with pytest.raises(ConfigError, match="PackDetInputs takes no 'meta_key'"):
        validate(cfg)
