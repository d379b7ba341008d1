"""The canvas and the colours of YOLOv2's training, against arithmetic by hand and colorsys."""

import colorsys
import random

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from fldet.data.sizes import seeded
from fldet.data.transforms import DistortHSV, PlaceOnGrey, distort_hsv


def sample(width, height, boxes=((0, 0, 10, 20),)):
    """An image that is white inside of its first box and black outside."""
    image = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = boxes[0] if boxes else (0, 0, 0, 0)
    image[y1:y2, x1:x2] = 255
    return {
        "img": image,
        "gt_bboxes": HorizontalBoxes(torch.tensor(boxes).float().reshape(-1, 4)),
        "gt_bboxes_labels": np.arange(len(boxes)),
        "gt_ignore_flags": np.zeros(len(boxes), bool),
    }


@pytest.mark.parametrize(("width", "height"), [(100, 40), (40, 100), (64, 64), (33, 57), (1, 90)])
def test_the_box_goes_where_the_pixels_go(width, height):
    box = (0, height // 4, max(1, width // 2), height)
    shapes = set()
    with seeded(0):
        for _ in range(20):
            out = PlaceOnGrey((96, 96)).transform(sample(width, height, [box]))
            image, (x1, y1, x2, y2) = out["img"], out["gt_bboxes"].tensor[0].tolist()
            assert image.shape == (96, 96, 3)
            assert out["img_shape"] == (96, 96)
            inside = image[..., 0] == 255
            assert inside.sum() == pytest.approx((x2 - x1) * (y2 - y1), rel=0.1, abs=2 * 96)
            rows, columns = np.nonzero(inside)
            found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            assert found == pytest.approx((x1, y1, x2, y2), abs=1.5 + 96 / min(width, height))
            placed = image[..., 0] != 127
            size = np.ptp(np.nonzero(placed), axis=1) + 1
            assert 96 in size  # it touches two sides of the canvas
            shapes.add(tuple(size))
            stretched = (size[1] / size[0]) / (width / height)
            assert 0.7 / 1.3 * 0.9 < stretched < 1.3 / 0.7 * 1.1 or min(width, height) == 1
    assert len(shapes) > 1 or 1 in (width, height)


def test_without_jitter_the_ratio_stays_and_the_place_is_drawn():
    with seeded(3):
        outs = [PlaceOnGrey((64, 64), jitter=0.0).transform(sample(100, 50)) for _ in range(30)]
    assert {out["scale_factor"] for out in outs} == {(0.64, 0.64)}
    tops = {float(out["gt_bboxes"].tensor[0, 1]) for out in outs}
    assert min(tops) >= 0
    assert max(tops) <= 32
    assert len(tops) > 10


def test_no_boxes_and_a_canvas_that_is_no_square():
    out = PlaceOnGrey((90, 60), jitter=0.0).transform(sample(100, 20, []))
    assert out["img"].shape == (60, 90, 3)
    assert out["gt_bboxes"].tensor.shape == (0, 4)
    assert (out["img"][..., 0] != 127).sum() == 90 * 18


def test_boxes_change_places_with_their_labels():
    boxes = [(10 * i, 0, 10 * i + 5, 9) for i in range(1, 9)]
    orders = set()
    for seed in range(5):
        with seeded(seed):
            out = PlaceOnGrey((200, 200), jitter=0.0).transform(sample(100, 100, boxes))
        order = out["gt_bboxes_labels"].tolist()
        xs = out["gt_bboxes"].tensor[:, 0].tolist()
        assert xs == [20.0 * (label + 1) for label in order]
        orders.add(tuple(order))
    assert len(orders) > 1


@pytest.mark.parametrize("factors", [(0.07, 1.5, 1 / 1.5), (-0.1, 1 / 1.3, 1.4), (0, 1, 1)])
def test_colours_are_those_of_colorsys(factors):
    turn, saturation, exposure = factors
    rng = random.Random(0)
    pixels = [[rng.randrange(256) for _ in range(3)] for _ in range(300)] + [[0] * 3, [255] * 3]
    image = np.array(pixels, np.uint8).reshape(-1, 1, 3)
    wanted = []
    for b, g, r in pixels:
        h, s, v = colorsys.rgb_to_hsv(r / 255, g / 255, b / 255)
        rgb = colorsys.hsv_to_rgb((h + turn) % 1, s * saturation, v * exposure)
        wanted.append([255 * min(max(part, 0), 1) for part in rgb[::-1]])
    found = distort_hsv(image, *factors).reshape(-1, 3)
    assert np.abs(found - np.array(wanted)).max() < 0.52
    if factors == (0, 1, 1):
        assert found.tolist() == pixels


def test_factors_go_both_ways_and_follow_from_the_seed():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    means = []
    for seed in range(12):
        with seeded(seed):
            out = DistortHSV(hue=0.0, saturation=1.0, exposure=1.5).transform({"img": image})
        with seeded(seed):
            again = DistortHSV(hue=0.0, saturation=1.0, exposure=1.5).transform({"img": image})
        assert (out["img"] == again["img"]).all()
        means.append(out["img"].mean() / image.mean())
    assert min(means) < 0.9 < 1.1 < max(means)
    assert min(means) > 1 / 1.51


def test_refuses_what_is_no_range():
    with pytest.raises(ValueError, match="jitter"):
        PlaceOnGrey((64, 64), jitter=1.0)
    with pytest.raises(ValueError, match="at least 1"):
        DistortHSV(saturation=0.5)
