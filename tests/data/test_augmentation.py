"""The steps of the presets: what they do to any image and its boxes."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.datasets.transforms import PhotoMetricDistortion as MMDetPhotoMetricDistortion
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from fldet.config.augment import PRESETS, augmented
from fldet.data.sizes import seeded
from fldet.data.transforms import PhotoMetricDistortion, RandomCrop, RandomFlip, Resize

SCALE = (96, 64)
PLAIN = [
    {"type": "LoadAnnotations"},
    {"type": "Resize", "scale": SCALE, "keep_ratio": True},
    {"type": "fldet.RandomFlip", "prob": 0.5},
    {"type": "fldet.PackDetInputs", "meta_keys": ()},
]


@pytest.fixture(scope="module")
def pipelines():
    init_default_scope("mmdet")
    return {name: Compose(augmented(PLAIN, name)[1:]) for name in PRESETS}


def sample(image, boxes, labels=None, crowds=()):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {
        "img": image,
        "img_shape": image.shape[:2],
        "gt_bboxes": HorizontalBoxes(boxes),
        "gt_bboxes_labels": np.array(range(len(boxes)) if labels is None else labels, np.int64),
        "gt_ignore_flags": np.array([i in crowds for i in range(len(boxes))], bool),
    }


@st.composite
def boxes_in(draw):
    """A size (width, height), and boxes of a pixel or more that may reach over its edges."""
    width, height = draw(st.integers(1, 250)), draw(st.integers(1, 250))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x, y = draw(st.floats(-5, width - 1)), draw(st.floats(-5, height - 1))
        w, h = draw(st.floats(1, width + 9)), draw(st.floats(1, height + 9))
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        if x2 - x1 >= 1 and y2 - y1 >= 1:
            boxes.append([x, y, x + w, y + h])
    return (width, height), boxes


@pytest.mark.parametrize("preset", ["medium", "small"])
@settings(max_examples=150, deadline=None)
@given(data=boxes_in(), seed=st.integers(0, 99))
def test_boxes_stay_inside_and_have_a_size(pipelines, preset, data, seed):
    """Of images of a pixel's height, smaller than the crop, and without boxes too."""
    (width, height), boxes = data
    image = np.full((height, width, 3), 77, np.uint8)
    with seeded(seed):
        packed = pipelines[preset](sample(image, boxes))
    rows, columns = packed["inputs"].shape[1:]
    assert packed["inputs"].dtype == torch.uint8
    assert 1 <= min(rows, columns) <= max(rows, columns) <= 96
    assert min(rows, columns) <= 64
    truth = packed["data_samples"].gt_instances
    found = truth.bboxes.tensor
    assert len(found) == len(truth.labels) <= len(boxes)
    sides = found[:, 2:] - found[:, :2]
    assert (sides > 0.5).all()
    assert (found >= 0).all()
    assert (found <= torch.tensor([columns, rows] * 2)).all()


@pytest.mark.parametrize("seed", range(30))
def test_labels_go_with_boxes_and_boxes_with_pixels(pipelines, seed):
    image = np.zeros((160, 240, 3), np.uint8)
    corners = [(20 + 55 * column, 15 + 50 * row) for row in range(3) for column in range(4)]
    boxes = [[x, y, x + 30, y + 24] for x, y in corners]
    for label, (x, y) in enumerate(corners):
        image[y : y + 24, x : x + 30] = 20 * (label + 1)
    with seeded(seed):
        packed = pipelines["medium"](sample(image, boxes, crowds=(3,)))
    truth = packed["data_samples"]
    parts = (truth.gt_instances, truth.ignored_instances)
    assert {3} >= {*parts[1].labels.tolist()}
    assert len(parts[0]) > 0
    for part in parts:
        for (x1, y1, x2, y2), label in zip(part.bboxes.tensor.tolist(), part.labels, strict=True):
            pixel = packed["inputs"][0, int((y1 + y2) / 2), int((x1 + x2) / 2)]
            if min(x2 - x1, y2 - y1) > 4:
                assert abs(int(pixel) - 20 * (int(label) + 1)) <= 1


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (300, 20)], ids=str)
def test_a_crop_lies_as_its_image_and_holds_an_object(size):
    width, height = size
    crop = RandomCrop((64, 96))
    small = [width - 6, height - 4, width - 2, height - 1]
    boxes = [small, [0, 0, 100, 20]]
    corners = set()
    for seed in range(40):
        with seeded(seed):
            left = crop.transform(
                sample(np.zeros((height, width, 3), np.uint8), boxes, crowds=(1,))
            )
        expected = (min(height, 64), 96) if width > height else (96, 64)
        assert left["img"].shape[:2] == left["img_shape"] == expected
        assert 0 in left["gt_bboxes_labels"]
        corners.add(tuple(left["gt_bboxes"].tensor[0].tolist()))
    assert len(corners) > 1 or height < 64


def test_an_image_without_boxes_is_cropped_anywhere():
    crop = RandomCrop((96, 64))
    image = np.arange(200 * 300, dtype=np.int32).reshape(200, 300, 1)
    with seeded(0):
        corners = {int(crop.transform(sample(image, []))["img"][0, 0, 0]) for _ in range(99)}
    assert len(corners) > 90


def test_a_small_image_is_not_cropped():
    image = np.zeros((64, 96, 3), np.uint8)
    assert RandomCrop((96, 64)).transform(sample(image, []))["img"] is image


def test_a_thin_image_keeps_a_pixel():
    """MMDetection's Resize ends in OpenCV's code."""
    thin = Resize(scale=SCALE, keep_ratio=True)
    left = thin.transform(sample(np.full((1, 400, 3), 9, np.uint8), [[0, 0, 400, 1]]))
    assert left["img"].shape == (1, 96, 3)
    assert left["gt_bboxes"].tensor.tolist() == [[0, 0, 96, 1]]


@pytest.mark.parametrize("seed", range(8))
def test_colours_are_mmdetections_as_bytes(seed):
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    with seeded(seed):
        ours = PhotoMetricDistortion().transform({"img": photo.copy()})["img"]
    with seeded(seed):
        theirs = MMDetPhotoMetricDistortion().transform({"img": photo.copy()})["img"]
    np.testing.assert_array_equal(ours, np.rint(theirs.clip(0, 255)))
    assert ours.dtype == np.uint8
    assert ours.flags.c_contiguous


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_grey_images_stay_grey(value):
    """Black and white ones have no hue, and are no number in some of the formulas."""
    for seed in range(20):
        with seeded(seed):
            image = np.full((8, 8, 3), value, np.uint8)
            pixels = PhotoMetricDistortion(swap_channels=False).transform({"img": image})["img"]
        assert np.ptp(pixels.astype(int)) <= 1


def test_a_flip_after_a_crop_leaves_the_image_that_it_was_cut_from():
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    before = image.copy()
    with seeded(0):
        left = RandomCrop((96, 64)).transform(sample(image, []))
    cut = left["img"].copy()
    flipped = RandomFlip(prob=1.0).transform(left)["img"]
    np.testing.assert_array_equal(flipped, cv2.flip(cut, 1))
    np.testing.assert_array_equal(image, before)
