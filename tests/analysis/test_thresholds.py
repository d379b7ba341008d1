"""Thresholds of classes: worked by hand, out of folds, as a command, and used by a detector."""

import dataclasses
import json

import numpy as np
import pytest

from fldet.analysis.thresholds import compute
from fldet.analysis.thresholds.analyze import analyze_thresholds
from fldet.analysis.thresholds.compute import SHARED, Aim, find_thresholds
from fldet.analysis.thresholds.result import load
from fldet.data.folds.files import Folds, write_folds
from fldet.errors import DataError, UsageError
from fldet.evaluation.detected import Detected
from fldet.evaluation.ground_truth import read_ground_truth
from fldet.evaluation.thresholds import read_thresholds


def scene(rows, *, images=1, objects=4, names=("cat",), folds=None):
    """Detections as (score, right) or with image and class, over objects side by side.

    Each class has so many ``objects`` in each image; a tuple has a number for each class.
    """
    annotations, detections = [], []
    boxes = {}
    counts = objects if isinstance(objects, tuple) else (objects,) * len(names)
    for image in range(images):
        for label, count in enumerate(counts):
            boxes[image, label] = [[20.0 * i, 100.0 * label, 10.0, 10.0] for i in range(count)]
            annotations += [
                {"id": len(annotations) + i, "image_id": image, "category_id": label, "bbox": box}
                for i, box in enumerate(boxes[image, label], start=1)
            ]
    for score, right, *place in rows:
        image, label = place or (0, 0)
        box = boxes[image, label].pop() if right else [500.0, 500.0, 10.0, 10.0]
        one = {"image_id": image, "category_id": label, "bbox": box, "score": score}
        detections.append(one)
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }
    truth = read_ground_truth(content)
    return Detected(content, truth, detections, "by hand", folds or {})


# precision 1, 1, 2/3, 3/4, 3/5, 4/6; recall 1/4, 2/4, 2/4, 3/4, 3/4, 1; F1 2 tp / (n + 4)
ROWS = [(0.9, 1), (0.8, 1), (0.7, 0), (0.6, 1), (0.5, 0), (0.4, 1)]


@pytest.mark.parametrize(
    ("aim", "score", "figures", "remark"),
    [
        (Aim(), 0.4, (4 / 6, 1, 8 / 10), ""),
        (Aim("precision", 0.75), 0.55, (3 / 4, 3 / 4, 6 / 8), ""),
        (Aim("precision", 0.9), 0.75, (1, 2 / 4, 4 / 6), ""),
        (Aim("recall", 0.5), 0.75, (1, 2 / 4, 4 / 6), ""),
        (Aim("recall", 0.9), 0.4, (4 / 6, 1, 8 / 10), ""),
    ],
)
def test_the_score_that_serves_an_aim(aim, score, figures, remark):
    found = find_thresholds(scene(ROWS), aim).classes["cat"]
    assert found.score == pytest.approx(score)  # in the middle of two scores
    assert (found.precision, found.recall, found.f1) == pytest.approx(figures)
    assert (found.objects, found.detections, found.remark) == (4, 6, remark)
    assert found.low <= found.score <= found.high


@pytest.mark.parametrize(
    ("rows", "aim", "remark"),
    [
        ([(0.9, 0), (0.8, 1)], Aim("precision", 0.9), "precision 0.9 is not reached: 0.500"),
        ([(0.9, 1), (0.8, 0)], Aim("recall", 0.9), "recall 0.9 is not reached: 0.250"),
    ],
)
def test_what_cannot_be_reached_is_said(rows, aim, remark):
    assert find_thresholds(scene(rows), aim).classes["cat"].remark.startswith(remark)


@pytest.mark.parametrize(("times", "score"), [(1, 0.35), (20, 0.1)])
def test_a_class_of_few_objects_leans_on_the_others(times, score):
    """By itself F1 of "few" is largest at 0.1, with one hit of two or with twenty of forty."""
    many = [(0.9, 1)] * 10 + [(0.3, 0)] * 90
    few = [(0.6, 0, 0, 1), (0.1, 1, 0, 1)] * times
    found = find_thresholds(
        scene([*many, *few], objects=(10, 2 * times), names=("many", "few")), Aim()
    )
    assert found.classes["few"].score == pytest.approx(score)
    assert found.classes["many"].score == pytest.approx(0.6)


def test_equal_scores_cannot_be_parted():
    found = find_thresholds(scene([(0.5, 1), (0.5, 0), (0.5, 1)]), Aim("precision", 0.9))
    assert found.classes["cat"].precision == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("rows", "score"),
    [
        ([(0.9, 0), (0.7, 0), (0.3, 0)], 0.8),  # all are wrong: as few as possible
        ([(0.9, 1), (0.8, 0), (0.7, 0), (0.6, 0), (0.5, 0), (0.4, 1)], 0.85),  # F1 2/5 = 4/10
    ],
)
def test_of_equally_good_thresholds_the_highest_is_taken(rows, score):
    """Also where it is one for all classes, as a class without objects shows."""
    rows = [(*row, 0, 0) for row in rows]
    found = find_thresholds(scene([*rows, (0.2, 0, 0, 1)], objects=(4, 0), names="ab"), Aim())
    assert found.classes["a"].score == found.classes["b"].score == pytest.approx(score)


def test_the_iou_counts():
    shifted = scene([(0.9, 1)])
    shifted.detections[0]["bbox"][0] += 3  # IoU 7/13
    assert find_thresholds(shifted, Aim()).classes["cat"].recall == 0.25
    assert find_thresholds(shifted, Aim(), iou=0.6).classes["cat"].recall == 0


def test_a_class_without_objects_or_detections_gets_the_threshold_of_all():
    detected = scene([*ROWS, (0.3, 0, 0, 1)], names=("cat", "dog", "cow"))
    detected = Detected(
        detected.content,
        read_ground_truth(
            {
                **detected.content,
                "annotations": [
                    one for one in detected.content["annotations"] if one["category_id"] != 1
                ],
            }
        ),
        detected.detections,
        "by hand",
    )
    found = find_thresholds(detected, Aim())
    assert found.classes["dog"].remark.startswith("no objects")
    assert found.classes["cow"].remark.startswith("no detections")
    assert found.classes["dog"].score == found.classes["cow"].score == found.single


def test_folds_give_the_interval_and_what_held_out_images_say():
    """Two classes with scores of their own: no single threshold serves both."""
    rng = np.random.default_rng(0)
    rows = []
    for image in range(8):
        for label, height in ((0, 0.8), (1, 0.3)):
            rows += [(height + 0.1 * rng.random(), 1, image, label) for _ in range(4)]
            rows += [(height - 0.05 - 0.1 * rng.random(), 0, image, label) for _ in range(9)]
    folds = {image: 1 + image % 2 for image in range(8)}
    found = find_thresholds(scene(rows, images=8, names=("cat", "dog"), folds=folds), Aim())
    assert 0.75 < found.classes["cat"].low <= found.classes["cat"].high < 0.81
    assert 0.25 < found.classes["dog"].low <= found.classes["dog"].high < 0.31
    assert found.held_out.per_class > 0.98 > 0.85 > found.held_out.single


def alike(seed):
    """Three classes of few objects in three folds, whose scores mean the same by chance alone."""
    rng = np.random.default_rng(seed)
    rows = []
    for image in range(9):
        for label in range(3):
            rows += [(0.2 + 0.6 * rng.random(), 1, image, label) for _ in range(2)]
            rows += [(0.6 * rng.random(), 0, image, label) for _ in range(3)]
    folds = {image: 1 + image % 3 for image in range(9)}
    return scene(rows, images=9, objects=3, names=("cat", "dog", "cow"), folds=folds)


def test_classes_share_a_threshold_where_that_served_the_folds_better():
    found = [find_thresholds(alike(seed), Aim()) for seed in range(12)]
    shared = [one for one in found if one.classes["cat"].remark == SHARED]
    assert 0 < len(shared) < len(found)
    for one in shared:
        assert {each.score for each in one.classes.values()} == {one.single}
        assert {each.remark for each in one.classes.values()} == {SHARED}
        low, high = one.classes["cat"].low, one.classes["cat"].high
        assert low <= high
        assert (low, high) == (one.classes["dog"].low, one.classes["dog"].high)
    by_hand = shared[0].classes["cat"]
    scores, right = zip(
        *(
            (row["score"], row["bbox"][0] != 500.0)
            for row in alike(found.index(shared[0])).detections
            if row["category_id"] == 0
        ),
        strict=True,
    )
    kept = np.array(scores) >= by_hand.score
    assert by_hand.precision == pytest.approx(np.array(right)[kept].mean())
    assert by_hand.recall == pytest.approx(np.array(right)[kept].sum() / by_hand.objects)


def test_on_average_the_choice_is_better_than_thresholds_of_the_classes(monkeypatch):
    scenes = [alike(seed) for seed in range(12)]
    chosen = [find_thresholds(one, Aim()).held_out.per_class for one in scenes]
    monkeypatch.setattr(compute, "_is_better_by_class", lambda *_: True)
    own = [find_thresholds(one, Aim()).held_out.per_class for one in scenes]
    assert np.mean(chosen) > np.mean(own)


def test_two_folds_have_nothing_to_choose_the_way_by():
    """Each could ask one other alone; so the held-out figure is that of their own thresholds."""
    detected = alike(0)
    folds = {image: 1 + image % 2 for image in range(9)}
    found = find_thresholds(dataclasses.replace(detected, fold_of_image=folds), Aim())
    assert found.held_out.per_class != found.held_out.single


def test_nothing_to_choose_from_is_an_error():
    with pytest.raises(DataError, match="objects and detections"):
        find_thresholds(scene([]), Aim())


def written(tmp_path, detected, folds=2):
    content = dict(detected.content)
    for place, one in enumerate(content["images"]):
        one |= {"fold": 1 + place % folds, "file_name": str(tmp_path / one["file_name"])}
    tmp_path.mkdir(parents=True, exist_ok=True)
    number = len(content["images"])
    write_folds(Folds(folds, 0, False, "", number, number), tmp_path)
    for fold in range(1, folds + 1):
        (tmp_path / f"fold_{fold}.json").write_text("[]")
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "detections.json").write_text(json.dumps(detected.detections))
    return tmp_path


def test_the_command_reads_a_folder_or_two_files_and_writes_what_is_read_back(fldet, tmp_path):
    rows = [(score, right, image, 0) for image in range(2) for score, right in ROWS]
    folder = written(tmp_path / "folds", scene(rows, images=2))
    done = fldet("analyze", "thresholds", folder, "--out-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "largest F1 at IoU 0.5" in done.stdout
    assert "thresholds of each fold alone" in done.stdout
    path = tmp_path / "out" / "thresholds.json"
    assert {one.name for one in (tmp_path / "out").iterdir()} == {
        *("thresholds.json", "thresholds.png", "thresholds.svg")
    }
    assert read_thresholds(path).scores == {"cat": pytest.approx(0.4)}
    assert load(path).classes["cat"].objects == 8
    files = {"detections": folder / "detections.json", "annotations": folder / "annotations.json"}
    of_files = analyze_thresholds(**files, out_dir=tmp_path / "again").result
    assert of_files.classes["cat"].score == pytest.approx(0.4)
    assert "samples" in of_files.interval
    assert of_files.held_out is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"at": "f2"}, "one aim"),
        ({"precision": 0.9, "recall": 0.9}, "one aim"),
        ({"precision": 1.5}, "--precision 1.5"),
        ({"iou": 0.0}, "--iou 0"),
        ({}, "either FOLDS_DIR"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        analyze_thresholds(None, **options, out_dir=tmp_path)
