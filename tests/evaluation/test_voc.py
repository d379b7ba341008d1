"""The VOC figures: by hand, against MMDetection's, and as a metric of the loops."""

import math

import numpy as np
import pytest
import torch

from fldet.data.voc import VOCDataset
from fldet.errors import DataError
from fldet.evaluation.ground_truth import load_truth, read_ground_truth
from fldet.evaluation.metrics import CocoMetric, VOCMetric
from fldet.evaluation.voc import average_precisions


def box(image=1, bbox=(10, 10, 20, 20), score=0.9, category=1):
    return {"image_id": image, "category_id": category, "bbox": list(bbox), "score": score}


def truth(*entries, classes=("cat", "dog")):
    """Each entry: image, category, box (xywh), difficult."""
    return read_ground_truth(
        {
            "images": [{"id": 1}, {"id": 2}],
            "categories": [{"id": i, "name": name} for i, name in enumerate(classes, start=1)],
            "annotations": [
                {"id": i, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": d}
                for i, (image, category, bbox, d) in enumerate(entries, start=1)
            ],
        }
    )


def figures_of(known, found, **rule):
    """What the metric says of detections."""
    metric = VOCMetric(**rule)
    metric.truth = known
    metric.dataset_meta = {"classes": tuple(known.categories.values())}
    metric.process({}, list(samples(known, found)))
    metric.compute_metrics(metric.results)
    return metric.figures


A, B, C, FAR = (10, 10, 20, 20), (100, 10, 20, 20), (10, 100, 20, 20), (300, 300, 5, 5)


def test_by_hand():
    """Three cats and a difficult one; by score: right, wrong, ignored, right, twice, nothing.

    Without the ignored one the precisions are 1, 1/2, 2/3, 1/2 at recalls 1/3, 1/3, 2/3, 2/3.
    Area: 1/3 x 1 + 1/3 x 2/3 = 5/9. Eleven points: 0 to .3 have 1, .4 to .6 have 2/3, others 0.
    """
    known = truth((1, 1, A, 0), (1, 1, B, 0), (2, 1, A, 0), (1, 1, C, 1))
    found = [
        box(1, A, 0.9),
        box(1, FAR, 0.8),
        box(1, C, 0.7),
        box(2, A, 0.6),
        box(2, A, 0.5),
    ]
    figures = figures_of(known, found)
    assert figures.per_class["cat"] == pytest.approx(5 / 9)
    assert figures.per_class_11["cat"] == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)
    assert math.isnan(figures.per_class["dog"])
    assert figures.summary == {
        "mAP": figures.per_class["cat"],
        "mAP_11": figures.per_class_11["cat"],
    }
    assert (figures.num_images, figures.num_detections) == (2, 5)


@pytest.mark.parametrize(
    ("entries", "found", "expected"),
    [
        ([(1, 1, A, 0)], [], 0.0),  # nothing found
        ([], [box()], math.nan),  # nothing to find
        ([(1, 1, A, 1)], [box()], math.nan),  # only a difficult one
        ([(1, 1, A, 0)], [box(category=2)], 0.0),  # another class
        ([(1, 1, A, 0)], [box(image=2)], 0.0),  # another image
        ([(1, 1, A, 0), (1, 1, C, 1)], [box(bbox=C, score=1.0), box()], 1.0),  # ignored, then right
        ([(1, 1, A, 0)], [box(score=0.5), box(score=0.9)], 1.0),  # the second is wrong, too late
        ([(1, 1, A, 0), (2, 1, A, 0)], [box(), box(score=0.8), box(2, score=0.7)], 0.5 + 1 / 3),
    ],
)
def test_one_class(entries, found, expected):
    figures = figures_of(truth(*entries), found)
    assert figures.per_class["cat"] == pytest.approx(expected, nan_ok=True)


def test_the_nearest_box_decides_even_if_it_is_taken():
    """As in the development kit: the second detection overlaps the taken box most."""
    known = truth((1, 1, (0, 0, 20, 20), 0), (1, 1, (0, 6, 20, 20), 0))
    found = [box(bbox=(0, 0, 20, 20)), box(bbox=(0, 2, 20, 20), score=0.8)]
    assert figures_of(known, found).per_class["cat"] == pytest.approx(0.5)


def test_one_pixel_more_decides_at_the_threshold():
    """Inclusive pixels: 10 x 10 in 10 x 20 is exactly half; with x2 - x1 it is 9 x 9 in 9 x 19."""
    known, found = truth((1, 1, (0, 0, 9, 19), 0)), [box(bbox=(0, 0, 9, 9))]
    assert figures_of(known, found).per_class["cat"] == 1.0
    assert figures_of(known, found, plus_one=False).per_class["cat"] == 0.0
    loose = {"iou_thr": 0.4, "plus_one": False}
    assert figures_of(known, found, **loose).per_class["cat"] == 1.0


@pytest.mark.parametrize("num_boxes", [3, 7, 10, 30])
def test_a_recall_reaches_its_point_exactly(num_boxes):
    """All right: precision 1 up to the recall reached, so eleven points count the tenths."""
    for hits in range(num_boxes + 1):
        area, eleven = average_precisions(np.ones(hits, bool), num_boxes)
        assert area == pytest.approx(hits / num_boxes)
        points = (10 * hits) // num_boxes + 1 if hits else 0
        assert eleven == pytest.approx(points / 11)


def test_an_unknown_image_is_named():
    metric = VOCMetric()
    metric.truth = truth((1, 1, A, 0))
    with pytest.raises(DataError, match="no image 9"):
        metric.result_of(9, {})


# --- real boxes ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def voc(voc_mini):
    return {
        "type": "fldet.VOCDataset",
        "data_root": str(voc_mini / "VOCdevkit" / "VOC2007"),
        "ann_file": "ImageSets/Main/test.txt",
        "data_prefix": {"img": "JPEGImages"},
    }


def noisy(known, seed=0):
    """Jittered truth, doubles, wrong classes and noise; all scores differ."""
    rng = np.random.default_rng(seed)
    found = []
    for one in known.annotations:
        for _ in range(rng.integers(0, 4)):
            x, y, w, h = one["bbox"]
            shift = rng.normal(0, 0.1, 2) * (w, h)
            bbox = (
                x + shift[0],
                y + shift[1],
                w * rng.uniform(0.8, 1.2),
                h * rng.uniform(0.8, 1.2),
            )
            wrong = rng.random() < 0.2
            category = int(rng.integers(1, 21)) if wrong else one["category_id"]
            found.append(box(one["image_id"], bbox, float(np.float32(rng.random())), category))
    return found


@pytest.mark.parametrize("plus_one", [True, False])
def test_agrees_with_mmdetection(voc, plus_one):
    """Area exactly; eleven points but for recalls that are a tenth, which they miss by rounding."""
    from mmdet.evaluation import eval_map

    known = load_truth("", None, voc)
    found = noisy(known)
    ours = figures_of(known, found, plus_one=plus_one)
    kwargs = {"use_legacy_coordinate": plus_one, "logger": "silent"}
    detections, annotations = as_mmdetection(known, found)
    mean, per_class = eval_map(detections, annotations, **kwargs)
    assert mean == pytest.approx(ours.summary["mAP"], abs=1e-6)
    assert 0.2 < mean < 0.9
    for name, theirs in zip(ours.per_class, per_class, strict=True):
        if theirs["num_gts"]:
            assert theirs["ap"] == pytest.approx(ours.per_class[name], abs=1e-6)
    _, eleven = eval_map(detections, annotations, eval_mode="11points", **kwargs)
    compared = 0
    for name, theirs in zip(ours.per_class, eleven, strict=True):
        count = theirs["num_gts"]
        if count and all(10 * hits % count for hits in range(1, count)):
            assert theirs["ap"] == pytest.approx(ours.per_class_11[name], abs=1e-6)
            compared += 1
    assert compared >= 5


def as_mmdetection(known, found):
    """Detections as lists by image and class, annotations by image."""
    detections, annotations = [], []
    for image in known.images:
        mine = [one for one in found if one["image_id"] == image]
        detections.append(
            [
                np.array(
                    [[*xyxy(one), one["score"]] for one in mine if one["category_id"] == category],
                    np.float64,
                ).reshape(-1, 5)
                for category in known.categories
            ]
        )
        entries = [one for one in known.annotations if one["image_id"] == image]
        parts = {}
        for suffix, crowd in (("", 0), ("_ignore", 1)):
            chosen = [one for one in entries if one["iscrowd"] == crowd]
            parts[f"bboxes{suffix}"] = np.array([xyxy(one) for one in chosen]).reshape(-1, 4)
            parts[f"labels{suffix}"] = np.array([one["category_id"] - 1 for one in chosen], int)
        annotations.append(parts)
    return detections, annotations


def xyxy(one):
    x, y, w, h = one["bbox"]
    return [x, y, x + w, y + h]


def samples(known, found):
    """What a loop gives the metric."""
    for image in known.images:
        mine = [one for one in found if one["image_id"] == image]
        yield {
            "img_id": image,
            "pred_instances": {
                "bboxes": torch.tensor([xyxy(one) for one in mine], dtype=torch.float64).view(
                    -1, 4
                ),
                "scores": torch.tensor([one["score"] for one in mine]),
                "labels": torch.tensor([one["category_id"] - 1 for one in mine], dtype=torch.long),
            },
        }


def metric_on(voc, classes=None, kind=VOCMetric):
    metric = kind(dataset=voc)
    metric.dataset_meta = {"classes": classes or VOCDataset.class_names(voc)}
    return metric


def test_the_metric_reads_the_truth_of_a_data_set_and_names_its_figures(voc):
    known = load_truth("", None, voc)
    found = noisy(known)
    metric = metric_on(voc)
    for sample in samples(known, found):
        metric.process({}, [sample])
    figures = metric.evaluate(len(known.images))
    expected = figures_of(known, found)
    assert metric.figures == expected
    assert figures == {f"voc/{name}": value for name, value in expected.summary.items()}


def test_several_processes_send_marks_and_an_image_twice(voc):
    """Two halves, padded with an image that both saw, as a distributed sampler does."""
    known = load_truth("", None, voc)
    found = noisy(known)
    whole = list(samples(known, found))
    metric, second = metric_on(voc), metric_on(voc)
    metric.process({}, whole[::2])
    second.process({}, [*whole[1::2], whole[0]])
    summary = metric.compute_metrics(metric.results + second.results)
    assert summary == figures_of(known, found).summary
    sizes = [
        one.scores.nbytes + one.marks.nbytes + one.categories.nbytes for _, one in metric.results
    ]
    assert sum(sizes) == 13 * sum(len(one.scores) for _, one in metric.results)


def test_only_the_images_seen_and_the_classes_of_the_data_count(voc):
    known = load_truth("", None, voc)
    metric = metric_on(voc, classes=("person",))
    person = next(i for i, name in known.categories.items() if name == "person")
    image = next(a["image_id"] for a in known.annotations if a["category_id"] == person)
    boxes = [
        xyxy(one)
        for one in known.annotations
        if (one["image_id"], one["category_id"]) == (image, person) and not one["iscrowd"]
    ]
    found = {
        "bboxes": torch.tensor(boxes),
        "scores": torch.ones(len(boxes)),
        "labels": torch.zeros(len(boxes), dtype=torch.long),
    }
    metric.process({}, [{"img_id": image, "pred_instances": found}])
    assert metric.evaluate(1)["voc/mAP"] == 1.0
    assert list(metric.figures.per_class) == ["person"]
    with pytest.raises(DataError, match="no image 999"):
        metric.process({}, [{"img_id": 999, "pred_instances": found}])


def test_coco_figures_on_voc_ignore_difficult_objects(voc):
    """All boxes that are not difficult, found exactly, and one difficult one: nothing is wrong."""
    known = load_truth("", None, voc)
    found = [
        box(one["image_id"], one["bbox"], 0.5, one["category_id"])
        for one in known.annotations
        if not one["iscrowd"]
    ]
    hard = next(one for one in known.annotations if one["iscrowd"])
    found.append(box(hard["image_id"], hard["bbox"], 0.9, hard["category_id"]))
    metric = metric_on(voc, kind=CocoMetric)
    for sample in samples(known, found):
        metric.process({}, [sample])
    assert metric.evaluate(len(known.images))["coco/AP"] == pytest.approx(1.0)


def test_without_truth():
    with pytest.raises(DataError, match="VOCMetric has no annotation file"):
        _ = VOCMetric().truth
