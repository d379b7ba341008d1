"""The report on anchors against boxes whose cover is known, and what its figure shows."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import cv2
import numpy as np
import pytest

from fldet.anchors.cover import AnchorScheme, AssignRule, BoxSet, best_ious
from fldet.anchors.pictures import plot, small_print
from fldet.anchors.report import (
    RATIO_SETS,
    Choice,
    _advice,
    compute,
    config_lines,
    scheme_text,
    search,
)
from fldet.results import to_jsonable

SQUARES = AnchorScheme((32, 64), (8, 16), 1, (1.0,))
ABOUT = {
    "config": "mine",
    "split": "train",
    "images": "all 2 images",
    "resizing": "none",
    "left_out": "RandomFlip",
}
COLORS = {"covered": (178, 114, 0), "between": (0, 159, 230), "background": (0, 94, 213)}  # BGR


def box_set(sides, *, areas=None, scheme=SQUARES, rule=AssignRule(), images=2):  # noqa: B008
    """Boxes of (width, height) around locations of the grid, all in the first image."""
    wh = np.array(sides, np.float32).reshape(-1, 2)
    centres = 64 * (1 + np.arange(len(wh), dtype=np.float32))[:, None] % 512
    areas = wh.prod(axis=1) if areas is None else np.array(areas, np.float32)
    return BoxSet(
        boxes=np.concatenate([centres - wh / 2, centres + wh / 2], axis=1),
        image_of=np.zeros(len(wh), np.int64),
        padded_wh=np.array([[640, 640]] * images),
        areas=areas,
        scheme=scheme,
        rule=rule,
        about=ABOUT,
    )


# Best IoU: 1 (an anchor), 1/2, 29^2/64^2... see the comments.
KNOWN = box_set([(32, 32), (32, 16), (32, 14), (32, 8), (16, 64)])
KNOWN_IOUS = [1, 0.5, 14 / 32, 8 / 32, 16 * 32 / (2 * 1024 - 512)]


def test_shares_below_both_thresholds():
    report = compute(KNOWN)
    best = best_ious(KNOWN.boxes, KNOWN.padded_wh[KNOWN.image_of], SQUARES)
    np.testing.assert_allclose(best, KNOWN_IOUS, rtol=1e-6)
    assert (report.images, report.boxes) == (2, 5)
    assert report.overall.below_positive == pytest.approx(3 / 5)  # one half is positive
    assert report.overall.below_background == pytest.approx(2 / 5)
    assert report.best_iou["median"] == pytest.approx(14 / 32)
    assert sum(report.histogram) == 5
    assert report.histogram[-1] == 1  # an IoU of 1 is in the last bin


def test_groups_take_their_lower_edge():
    boxes = box_set([(32, 32), (32, 16), (16, 64), (20, 100)], areas=[1023, 1024, 9215, 9216])
    report = compute(boxes)
    assert {group.name: group.boxes for group in report.by_size} == {
        "small": 1,
        "medium": 2,
        "large": 1,
    }
    counts = {group.name: group.boxes for group in report.by_ratio}
    assert counts == {
        "under 1/4": 0,
        "1/4 to 1/2": 0,
        "1/2 to 1": 1,
        "1 to 2": 1,
        "2 to 4": 0,
        "over 4": 2,
    }
    assert np.isnan(report.by_ratio[0].below_positive)


def test_a_box_without_width_is_counted():
    report = compute(box_set([(0, 20), (32, 32)]))
    assert report.overall.below_background == 0.5
    assert sum(group.boxes for group in report.by_ratio) == 2


def test_positives_are_per_image_and_level():
    report = compute(box_set([(32, 32)], images=2))
    # A square of 32 at a location: IoU with its neighbours at 8 px is 24/40 sideways, and
    # 24^2 / (2 * 32^2 - 24^2) = 0.39 across; 16 px away 1/3. With 64 px anchors at most 1/4.
    assert report.positives_per_level == (5 / 2, 0.0)
    assert report.positives_per_image["mean"] == 2.5
    assert (report.positives_per_image["min"], report.positives_per_image["max"]) == (0, 5)


@pytest.mark.parametrize("count", [1, 3, 6, 10, 20])
def test_the_search_finds_what_trying_all_schemes_finds(count):
    rng = np.random.default_rng(0)
    boxes = box_set(np.exp(rng.uniform(2.5, 4.5, (60, 2))))
    now, choices = search(boxes)
    assert now.covered == 1 - compute(boxes).overall.below_positive
    best = 0.0
    for num_scales in (1, 2, 3, 4):
        for ratios in RATIO_SETS:
            if num_scales * len(ratios) <= count:
                for step in range(-6, 7):
                    sizes = tuple(size * 2 ** (step / 6) for size in SQUARES.sizes)
                    scheme = AnchorScheme(sizes, SQUARES.strides, num_scales, ratios)
                    iou = best_ious(boxes.boxes, boxes.padded_wh[boxes.image_of], scheme)
                    best = max(best, float((iou >= 0.5).mean()))
    assert max(one.covered for one in choices if one.anchors <= count) == best
    assert [one.anchors for one in choices] == sorted({one.anchors for one in choices})
    assert [one.covered for one in choices] == sorted({one.covered for one in choices})


def choice(anchors, covered):
    return Choice(replace(SQUARES, num_scales=anchors), 1.0, anchors, covered)


@pytest.mark.parametrize(
    ("now", "shares", "same_cost", "thrifty"),
    [
        ((3, 0.8), {1: 0.5, 3: 0.9, 5: 0.95}, 3, 5),
        ((3, 0.8), {1: 0.9, 5: 0.902}, 1, None),  # one scheme is both
        ((3, 0.8), {1: 0.5, 3: 0.8, 5: 0.95}, None, 5),  # equal is no gain
        ((3, 0.96), {1: 0.5, 3: 0.8, 5: 0.95}, None, None),
        ((3, 0.8), {1: 0.949, 2: 0.95, 5: 0.951}, 2, 1),
    ],
)
def test_advice(now, shares, same_cost, thrifty):
    advice = _advice(choice(*now), [choice(*item) for item in shares.items()])
    assert tuple(one and one.anchors for one in advice) == (same_cost, thrifty)


def test_config_lines_are_a_config():
    namespace = {}
    scheme = AnchorScheme((17.96, 35.92), (8, 16), 3, (0.333, 1.0, 3.0))
    exec(config_lines(scheme), namespace)
    generator = namespace["model"]["bbox_head"]["anchor_generator"]
    assert generator == {"sizes": [17.96, 35.92], "num_scales": 3, "ratios": [0.333, 1.0, 3.0]}


def test_what_is_pasted_covers_what_is_promised(coco_mini):
    from fldet.anchors.boxes import collect_boxes
    from fldet.config.load import load_config

    boxes = collect_boxes(load_config("retinanet/r50_fpn_1x.py", [f"data_root={coco_mini}"]))
    report = compute(boxes)
    assert report.overall.below_positive == pytest.approx(86 / 834)  # counted with all anchors
    assert report.positives_per_image["mean"] == pytest.approx(18930 / 87)
    for advice, covered in ((report.same_cost, 767), (report.thrifty, 787)):
        again = compute(replace(boxes, scheme=advice.scheme))
        assert advice.covered == pytest.approx(covered / 834)
        assert again.overall.below_positive == pytest.approx(1 - advice.covered)


def test_text_is_narrow_and_names_thresholds():
    report = compute(KNOWN)
    text = str(report)
    assert max(map(len, text.splitlines())) <= 100
    assert "60.0 % of the boxes have no anchor with IoU >= 0.5, 40.0 % none with IoU >= 0.4" in text
    assert "only the rule that makes a box's best anchors positive trains those" in text
    assert "model = dict(bbox_head=dict(anchor_generator=dict(" in text
    strict = compute(replace(KNOWN, rule=AssignRule(match_low_quality=False)))
    assert "no anchor learns those" in str(strict)
    assert "no low-quality rule" in small_print(strict)


def test_nothing_to_gain_is_said():
    assert "nothing to gain" in str(compute(box_set([(32, 32), (64, 64)])))


def test_report_is_json():
    value = json.loads(json.dumps(to_jsonable(compute(KNOWN))))
    assert value["overall"]["below_background"] == pytest.approx(0.4)
    assert value["scheme"]["sizes"] == [32, 64]
    assert value["by_ratio"][-1]["below_positive"] == 1


def test_figure_shows_the_three_kinds_and_is_repeatable(tmp_path):
    report = compute(KNOWN)
    png, svg = plot(report, tmp_path / "new" / "a.png")
    picture = cv2.imread(str(png))
    assert picture.shape == (1050, 1400, 3)
    for color in COLORS.values():
        assert (np.abs(picture.astype(int) - color).max(axis=2) < 10).sum() > 500
    root = ET.parse(svg).getroot()
    texts = "".join(root.itertext())
    for words in ("60.0 % of 5 boxes", "IoU of a box with its best anchor", "not applied: Random"):
        assert words in texts
    assert scheme_text(SQUARES)[:11] in texts
    first = svg.read_bytes()
    plot(report, tmp_path / "new" / "a.png")
    assert svg.read_bytes() == first


def test_figure_of_covered_boxes_has_no_other_colour(tmp_path):
    report = compute(box_set([(32, 32), (64, 64)]))
    picture = cv2.imread(str(plot(report, tmp_path / "a.png")[0]))
    poor = np.abs(picture[:800].astype(int) - COLORS["background"]).max(axis=2) < 10
    assert poor.sum() == 0
