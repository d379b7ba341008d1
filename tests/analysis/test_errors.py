"""Kinds of mistakes and their cost: worked by hand, and against COCO's own evaluation."""

import dataclasses
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from fldet.analysis.errors.collect import TestedData
from fldet.analysis.errors.compute import find_errors
from fldet.analysis.errors.kinds import KINDS, MISSED, ap50_after, judge
from fldet.analysis.errors.pictures import hex_color, plot_errors
from fldet.analysis.errors.result import ap50_of, load, save
from fldet.analysis.errors.worst import draw_worst
from fldet.errors import DataError
from fldet.evaluation.coco import _choose_engine, _figures, _those_of, evaluate_coco
from fldet.evaluation.ground_truth import GroundTruth, read_ground_truth
from fldet.evaluation.matching import AREAS, assign, detection_table, object_table, overlaps
from fldet.pictures.colors import PALETTE

CAT, DOG = 10, 20
ENGINES = ("hotcoco", "pycocotools")


def truth_of(objects, *, images=(1,), categories=("cat", "dog")):
    """Objects as (category, x) or dicts; boxes of 10 x 10 pixels at (x, 0)."""
    annotations = [one if isinstance(one, dict) else entry(*one) for one in objects]
    for one in annotations:
        one.setdefault("area", one["bbox"][2] * one["bbox"][3])
        one.setdefault("iscrowd", 0)
    names = {10 * i: name for i, name in enumerate(categories, start=1)}
    return GroundTruth(tuple(images), names, tuple(annotations))


def entry(category, x, score=None, **more):
    one = {"image_id": 1, "category_id": category, "bbox": [x, 0.0, 10.0, 10.0], **more}
    return one if score is None else {**one, "score": score}


# Each kind of mistake once. A box 5 pixels off has an IoU of 1/3, one that is 1 pixel off of 9/11.
SCENE = truth_of([(CAT, 0), (CAT, 100), (DOG, 200), (CAT, 300), (DOG, 400), (CAT, 600)])
FOUND = [
    entry(CAT, 0, 0.95),
    entry(CAT, 1, 0.9),  # duplicate
    entry(DOG, 100, 0.85),  # classification
    entry(DOG, 205, 0.8),  # localisation
    entry(DOG, 305, 0.75),  # both; the cat there is missed
    entry(CAT, 500, 0.7),  # background
    entry(CAT, 600, 0.65),
    entry(DOG, 400, 0.6),
]
# COCO reads precision at 101 recalls; sums of these readings. Cats, 4: right, wrong, wrong, right:
# precision 1 at the 26 recalls up to 1/4, 1/2 at the 25 up to 2/4. Dogs, 2: right after three that
# are wrong, 1/4 at the 51 recalls up to 1/2.
CATS, DOGS = 26 + 25 / 2, 51 / 4
REPAIRED = {
    # cats: right, wrong, right, wrong, right; dogs: right after two that are wrong
    "classification": (26 + 25 * 2 / 3 + 25 * 3 / 5, 51 / 3),
    # dogs: wrong, right, wrong, right
    "localisation": (CATS, 101 / 2),
    "both": (CATS, 51 / 3),
    # cats: right, wrong, right
    "duplicate": (26 + 25 * 2 / 3, DOGS),
    "background": (26 + 25 * 2 / 3, DOGS),
    # 3 cats: 1 up to 1/3, 1/2 up to 2/3
    "missed": (34 + 33 / 2, DOGS),
}


def test_each_kind_once_and_what_it_costs():
    analysis = find_errors(TestedData(SCENE, FOUND))
    assert analysis.ap50 == pytest.approx((CATS + DOGS) / 2 / 101, abs=1e-12)
    assert tuple(analysis.kinds) == KINDS
    for name, kind in analysis.kinds.items():
        assert (kind.count, kind.confident) == (1, 1)
        gain = sum(REPAIRED[name]) / 2 / 101 - analysis.ap50
        assert kind.ap50_gain == pytest.approx(gain, abs=1e-12), name
    assert sum(one.cost for one in analysis.worst) == pytest.approx(
        sum(kind.ap50_gain for kind in analysis.kinds.values())
    )


@pytest.mark.parametrize(
    ("objects", "detection", "kind"),
    [
        ([(CAT, 0), (DOG, 7)], entry(CAT, 7, 0.5), "localisation"),  # before classification
        ([(DOG, 0), (CAT, 9)], entry(CAT, 0, 0.5), "classification"),  # own IoU 1/19 < 0.1
        ([(DOG, 0)], entry(CAT, 5, 0.5), "both"),
        ([(DOG, 0)], entry(CAT, 9, 0.5), "background"),
        ([(CAT, 0)], entry(CAT, 9, 0.5), "background"),
        ([], entry(CAT, 9, 0.5), "background"),
        ([entry(DOG, 0, iscrowd=1)], entry(CAT, 0, 0.5), "background"),  # no object
    ],
)
def test_kind_of_a_false_positive(objects, detection, kind):
    kinds = find_errors(TestedData(truth_of(objects), [detection])).kinds
    assert {name for name in KINDS if kinds[name].count and name != "missed"} == {kind}


def test_of_two_that_point_to_an_object_the_better_scored_is_repaired():
    truth = truth_of([(CAT, 0), (DOG, 100)])
    found = [entry(DOG, 0, 0.9), entry(DOG, 1, 0.8), entry(DOG, 100, 0.7)]
    analysis = find_errors(TestedData(truth, found))
    assert analysis.kinds["classification"].count == 2
    assert analysis.ap50 == pytest.approx(0.5 / 3)
    assert analysis.kinds["classification"].ap50_gain == pytest.approx(1 - 0.5 / 3)


def test_a_mistake_on_an_object_that_is_found_is_removed():
    analysis = find_errors(
        TestedData(truth_of([(CAT, 0)]), [entry(CAT, 0, 0.5), entry(CAT, 5, 0.9)])
    )
    assert analysis.ap50 == pytest.approx(0.5)
    assert analysis.kinds["localisation"].ap50_gain == pytest.approx(0.5)
    assert analysis.kinds["missed"].count == 0


# --- agreement with COCO -------------------------------------------------------------------------


def perturbed(truth, seed):
    """Truth that is moved, mislabelled, dropped and repeated; scores of two digits have ties."""
    rng = np.random.default_rng(seed)
    categories, found = list(truth.categories), []
    for one in truth.annotations:
        x, y, w, h = one["bbox"]
        for _ in range(rng.integers(0, 4)):
            dx, dy, dw, dh = rng.normal(0, rng.choice([0.02, 0.15, 0.4]), 4)
            wrong = rng.random() < 0.3
            found.append(
                {
                    "image_id": one["image_id"],
                    "category_id": int(rng.choice(categories)) if wrong else one["category_id"],
                    "bbox": [x + dx * w, y + dy * h, w * math.exp(dw), h * math.exp(dh)],
                    "score": round(float(rng.random()), 2),
                }
            )
    return found


def merged(truth, number):
    """The same with fewer classes, so that confusions are many."""
    return GroundTruth(
        truth.images,
        {key: str(key) for key in range(1, number + 1)},
        tuple({**one, "category_id": one["category_id"] % number + 1} for one in truth.annotations),
    )


@pytest.fixture(scope="module")
def mini(coco_mini):
    return read_ground_truth(coco_mini / "annotations" / "instances_val2017.json")


CROWDED = truth_of(
    [(CAT, 0), entry(CAT, 50, iscrowd=1), entry(CAT, 51), (DOG, 100), entry(DOG, 300, area=2000.0)]
)
HAND_MADE = {
    "each kind": (SCENE, FOUND),
    "ties": (SCENE, [{**one, "score": 0.5} for one in FOUND]),
    "nothing found": (SCENE, []),
    "crowd": (CROWDED, [entry(CAT, 50, 0.9), entry(CAT, 52, 0.9), entry(CAT, 55, 0.8)]),
    "another size": (CROWDED, [entry(DOG, 300, 0.9), entry(DOG, 100, 0.8), entry(CAT, 0, 0.7)]),
    "over 100": (
        SCENE,
        [entry(CAT, 1000 + i, 0.9) for i in range(99)]
        + [entry(CAT, 0, 0.8), entry(CAT, 100, 0.7), entry(DOG, 200, 0.7)],
    ),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", HAND_MADE)
def test_ap50_of_hand_made_scenes_is_that_of_coco(name, engine):
    truth, found = HAND_MADE[name]
    coco = evaluate_coco(truth, found, engine=engine).summary["AP50"]
    assert find_errors(TestedData(truth, found)).ap50 == pytest.approx(coco, abs=1e-12)


@pytest.mark.parametrize("number", [80, 6])
@pytest.mark.parametrize("seed", range(3))
def test_ap50_and_every_curve_of_real_truth_are_those_of_coco(mini, seed, number):
    truth = mini if number == 80 else merged(mini, number)
    found = perturbed(truth, seed)
    assert sum(one["iscrowd"] for one in truth.annotations) == 11
    for engine in ENGINES:
        _, judge_by = _choose_engine(engine)
        _, precision = _figures(judge_by, truth, _those_of(truth, found))
        analysis = find_errors(TestedData(truth, found))
        assert analysis.ap50 == pytest.approx(precision[0, :, :, 0, -1].mean(), abs=1e-12)
        for index, area in enumerate(AREAS):
            for label, curve in enumerate(analysis.curves[area]):
                expected = precision[0, :, label, index, -1]
                np.testing.assert_allclose(curve or [-1] * 101, expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_all_repaired_is_perfect_and_each_alone_gains(mini, seed):
    truth = merged(mini, 6)
    judged = judged_of(truth, perturbed(truth, seed))
    before = ap50_after(judged, ())
    alone = [ap50_after(judged, (kind,)) for kind in range(len(KINDS))]
    assert all(before <= value <= 1 for value in alone)
    assert ap50_after(judged, range(len(KINDS))) == pytest.approx(1, abs=1e-12)
    assert ap50_after(judged, (0, 1)) >= max(alone[:2])


@pytest.mark.parametrize("name", HAND_MADE)
def test_all_repaired_is_perfect_in_hand_made_scenes(name):
    judged = judged_of(*HAND_MADE[name])
    assert ap50_after(judged, range(len(KINDS))) == pytest.approx(1, abs=1e-12)


def judged_of(truth, found):
    categories = tuple(truth.categories)
    return judge(
        detection_table(found, truth.images, categories),
        object_table(truth.annotations, truth.images, categories),
    )


def test_every_wrong_detection_has_one_kind_and_every_lost_object_one_reason(mini):
    judged = judged_of(mini, perturbed(mini, 0))
    wrong = judged.matches.counted & ~judged.matches.correct
    np.testing.assert_array_equal(judged.kind >= 0, wrong)
    assert not (judged.kind == MISSED).any()
    found = np.unique(judged.matches.found[judged.matches.correct])
    assert len(found) == judged.matches.correct.sum()
    assert (judged.object_kind[found] == -1).all()
    lost = judged.matches.counts.copy()
    lost[found] = False
    np.testing.assert_array_equal(judged.object_kind >= 0, lost)


# --- edges ---------------------------------------------------------------------------------------


def test_nothing_found_costs_all_that_is_missed(tmp_path):
    analysis = find_errors(TestedData(SCENE, []))
    assert analysis.ap50 == 0
    assert analysis.kinds["missed"] == type(analysis.kinds["missed"])(6, 6, 1.0)
    assert math.isnan(analysis.calibration.expected_error)
    assert analysis.confusion == ((0, 0, 4), (0, 0, 2), (0, 0, 0))
    assert len(plot_errors(analysis, tmp_path)) == 8


@pytest.mark.parametrize("name", ["$\\frac$", "a$", "箱子", "\ud800", "\x1b[31m\n", "x" * 300])
def test_a_class_may_have_any_name(tmp_path, name):
    analysis = find_errors(TestedData(SCENE, [entry(CAT, 0, 0.9)]))
    analysis = dataclasses.replace(analysis, classes=(name, name), results=f"{name}.json")
    assert len(plot_errors(analysis, tmp_path)) == 8


def test_without_objects_there_is_no_ap(tmp_path):
    analysis = find_errors(TestedData(truth_of([]), [entry(CAT, 0, 0.9)]))
    assert math.isnan(analysis.ap50)
    assert analysis.kinds["background"].count == 1
    assert math.isnan(analysis.kinds["background"].ap50_gain)
    assert analysis.confusion[-1] == (1, 0, 0)
    assert math.isnan(ap50_of(analysis.curves["all"]))
    assert analysis.worst == ()
    assert len(plot_errors(analysis, tmp_path)) == 8


def test_without_images_and_classes(tmp_path):
    analysis = find_errors(TestedData(GroundTruth((), {}, ()), []))
    assert (analysis.images, analysis.confusion) == (0, ((0,),))
    assert len(plot_errors(analysis, tmp_path)) == 8


def test_detections_on_a_crowd_are_neither_right_nor_wrong():
    truth = truth_of([entry(CAT, 0, iscrowd=1), (CAT, 100)])
    analysis = find_errors(TestedData(truth, [entry(CAT, x, 0.9) for x in (0, 1, 2, 100)]))
    assert analysis.ap50 == 1
    assert all(kind.count == 0 for kind in analysis.kinds.values())
    assert analysis.objects == 1
    assert sum(analysis.calibration.counts) == 1
    assert analysis.confusion == ((1, 0, 0), (0, 0, 0), (0, 0, 0))


def test_score_outside_0_to_1():
    with pytest.raises(DataError, match=r"detection 1 has the score 3\.5") as caught:
        find_errors(TestedData(SCENE, [entry(CAT, 0, 0.5), entry(CAT, 0, 3.5)]))
    assert "[0, 1]" in caught.value.expected


def test_overlap_with_a_crowd_is_the_share_of_the_box():
    boxes = np.array([[0.0, 0, 10, 10], [5, 0, 10, 10], [50, 50, 0, 0]])
    iou = overlaps(boxes, boxes[:2], np.array([False, True]))
    np.testing.assert_allclose(iou, [[1, 1 / 2], [1 / 3, 1], [0, 0]])


@pytest.mark.parametrize(
    ("iou", "counts", "crowd", "taken", "reason"),
    [
        ([[0.6, 0.9]], [1, 1], [0, 0], [1], "the largest overlap"),
        ([[0.6, 0.9], [0.6, 0.95]], [1, 1], [0, 0], [1, 0], "first come, first served"),
        ([[0.6, 0.9]], [1, 0], [0, 1], [0], "what counts comes before a crowd"),
        ([[0.7], [0.6]], [0], [1], [0, 0], "a crowd is never used up"),
        ([[0.8, 0.8]], [1, 1], [0, 0], [1], "the last among equals"),
        ([[0.5], [0.499]], [1], [0], [0, -1], "from 0.5 on"),
    ],
)
def test_assign(iou, counts, crowd, taken, reason):
    got = assign(np.array(iou), np.array(counts, bool), np.array(crowd, bool))
    assert got.tolist() == taken, reason


# --- confusions and calibration ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score_thr", "matrix"),
    [
        (0.3, ((2, 1, 1), (0, 1, 1), (2, 2, 0))),
        (0.8, ((1, 1, 2), (0, 0, 2), (1, 1, 0))),
        (1.0, ((0, 0, 4), (0, 0, 2), (0, 0, 0))),
    ],
)
def test_confusions_by_hand(score_thr, matrix):
    assert find_errors(TestedData(SCENE, FOUND), score_thr=score_thr).confusion == matrix


def test_confusions_hold_every_object_and_detection_once(mini):
    found = perturbed(mini, 1)
    analysis = find_errors(TestedData(mini, found), score_thr=0.4)
    judged = judged_of(mini, found)
    matrix = np.array(analysis.confusion)
    per_class = np.bincount(judged.objects.label[judged.matches.counts], minlength=80)
    np.testing.assert_array_equal(matrix[:-1].sum(axis=1), per_class)
    shown = judged.matches.counted & (judged.detections.score >= 0.4)
    per_class = np.bincount(judged.detections.label[shown], minlength=80)
    np.testing.assert_array_equal(matrix[:, :-1].sum(axis=0), per_class)
    assert matrix.diagonal().sum() == (judged.matches.correct & shown).sum()


def test_calibration_by_hand():
    calibration = find_errors(TestedData(SCENE, FOUND)).calibration
    assert calibration.counts == (0, 0, 0, 0, 0, 0, 2, 2, 2, 2)
    np.testing.assert_allclose(calibration.precision[6:], [1, 0, 0, 0.5])
    np.testing.assert_allclose(calibration.mean_score[6:], [0.625, 0.725, 0.825, 0.925])
    gaps = 2 * (0.375 + 0.725 + 0.825 + 0.425)
    assert calibration.expected_error == pytest.approx(gaps / 8)


# --- worst images, file, pictures ----------------------------------------------------------------


def two_images():
    """The first image has no mistake, the second a box on the background and a missed object."""
    objects = [entry(CAT, 0), entry(CAT, 0, image_id=2), entry(DOG, 100, image_id=2)]
    found = [
        entry(CAT, 0, 0.9),
        entry(CAT, 0, 0.2, image_id=2),
        entry(CAT, 60, 0.8, image_id=2),
        entry(CAT, 30, 0.1, image_id=2),
    ]
    return truth_of(objects, images=(1, 2)), found


def test_worst_images_hold_what_is_drawn():
    (worst,) = find_errors(TestedData(*two_images(), {2: "b.png"})).worst
    assert (worst.image_id, worst.file_name) == (2, "b.png")
    assert [(box.state, box.score) for box in worst.objects] == [("correct", 0.2), ("missed", None)]
    assert [(box.state, box.score) for box in worst.detections] == [("background", 0.8)]
    assert find_errors(TestedData(*two_images()), num_worst=0).worst == ()


def test_worst_image_shows_mistakes_in_their_colours(tmp_path):
    cv2.imwrite(str(tmp_path / "b.png"), np.full((50, 150, 3), 128, np.uint8))
    analysis = find_errors(TestedData(*two_images(), {2: "b.png"}))
    (path,) = draw_worst(analysis, tmp_path, tmp_path / "out")
    picture = cv2.imread(str(path))
    picture = picture[: -3 * 28]  # without the legend
    left, right = np.array_split(picture, 2, axis=1)

    def drawn(pane, place):
        return int((abs(pane.astype(int) - PALETTE[place]) < 50).all(axis=2).sum())  # of a JPEG

    orange, green, blue = 0, 2, 4
    assert [drawn(left, color) > 100 for color in (orange, green, blue)] == [False, True, True]
    assert [drawn(right, color) > 100 for color in (orange, green, blue)] == [True, False, False]


def test_images_that_cannot_be_read_are_passed_over(tmp_path):
    for names in ({}, {2: "none.png"}):
        assert draw_worst(find_errors(TestedData(*two_images(), names)), tmp_path, tmp_path) == []


def test_file_gives_the_same_back(mini, tmp_path):
    for truth, found in ((mini, perturbed(mini, 0)), (truth_of([]), []), two_images()):
        files = tmp_path, Path("a.json"), Path("b.json")
        analysis = find_errors(TestedData(truth, found, {}, *files))
        again = load(save(analysis, tmp_path / "errors.json"))
        assert repr(again) == repr(analysis)  # NaN included


@pytest.mark.parametrize(
    "content", [[], {}, {"analysis": "errors", "schema": 1}, {"analysis": "x", "schema": 1}, 3]
)
def test_files_of_another_kind(tmp_path, content):
    path = tmp_path / "errors.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no analysis of errors") as caught:
        load(path)
    assert caught.value.hint


def test_pictures_are_repeatable_and_coloured_by_kind(mini, tmp_path):
    analysis = find_errors(TestedData(mini, perturbed(mini, 0)))
    first, second = (
        {path.name: path.read_bytes() for path in plot_errors(analysis, tmp_path / name)}
        for name in ("a", "b")
    )
    assert first == second
    assert set(first) == {
        f"errors_{name}.{ending}"
        for name in ("kinds", "confusion", "curves", "calibration")
        for ending in ("png", "svg")
    }
    svg = first["errors_kinds.svg"].decode()
    assert all(hex_color(kind) in svg for kind in KINDS)
    assert len({hex_color(kind) for kind in (*KINDS, "correct")}) == 7
