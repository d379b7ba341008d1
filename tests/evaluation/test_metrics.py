"""The metric of the loops."""

import json
import math

import pytest
import torch
from coco_content import ONE_CAT, synthetic, truth
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook

from fldet.errors import DataError
from fldet.evaluation.coco import evaluate_coco
from fldet.evaluation.detections import load_detections
from fldet.evaluation.figures import COCO_FIGURES
from fldet.evaluation.metrics import CocoMetric
from fldet.registry import METRICS


def sample(image_id, boxes_xyxy=(), labels=(), scores=None):
    scores = [0.9] * len(labels) if scores is None else scores
    return {
        "img_id": image_id,
        "pred_instances": {
            "bboxes": torch.tensor(boxes_xyxy, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.long),
            "scores": torch.tensor(scores, dtype=torch.float32),
        },
    }


@pytest.fixture
def make_metric(tmp_path):
    def make(content=ONE_CAT, classes=("cat", "dog"), **options):
        path = tmp_path / "truth.json"
        path.write_text(json.dumps(content))
        metric = METRICS.build({"type": "fldet.CocoMetric", "ann_file": str(path), **options})
        metric.dataset_meta = {"classes": classes}
        return metric

    return make


def test_labels_become_category_ids_by_name(make_metric):
    metric = make_metric(classes=("dog", "cat"))  # not the order of the file
    metric.process({}, [sample(1, [[10, 10, 30, 30], [1, 2, 4, 8]], [1, 0])])
    figures = metric.evaluate(1)
    assert figures["coco/AP"] == pytest.approx(1.0)
    assert set(figures) == {f"coco/{name}" for name in COCO_FIGURES}
    assert [one["category_id"] for one in metric.detections] == [10, 20]
    assert metric.detections[1]["bbox"] == [1, 2, 3, 6]
    assert metric.figures.per_class == pytest.approx({"cat": 1.0, "dog": math.nan}, nan_ok=True)


def test_classes_that_the_data_set_leaves_out_are_not_evaluated(make_metric):
    content = truth((1, 10, (10, 10, 20, 20), {}), (1, 20, (50, 50, 20, 20), {}))
    metric = make_metric(content, classes=("dog",))
    metric.process({}, [sample(1, [[50, 50, 70, 70]], [0])])
    assert metric.evaluate(1)["coco/AP"] == pytest.approx(1.0)
    assert list(metric.figures.per_class) == ["dog"]


def test_only_images_seen_are_evaluated_and_each_once(make_metric):
    content = truth((1, 10, (0, 0, 9, 9), {}), (2, 10, (0, 0, 9, 9), {}))
    metric = make_metric(content)
    once = sample(1, [[0, 0, 9, 9]], [0])
    metric.process({}, [once, once])
    assert metric.evaluate(2)["coco/AP"] == pytest.approx(1.0)
    assert (metric.figures.num_images, metric.figures.num_detections) == (1, 1)


def test_each_evaluation_starts_afresh(make_metric):
    metric = make_metric()
    for boxes, labels, expected in [([], [], 0.0), ([[10, 10, 30, 30]], [0], 1.0)]:
        metric.process({}, [sample(1, boxes, labels)])
        assert metric.evaluate(1)["coco/AP"] == pytest.approx(expected)


def test_writes_the_outfile(make_metric, tmp_path):
    out = tmp_path / "deep" / "results.json"
    metric = make_metric(outfile=str(out))
    metric.process({}, [sample(1, [[10.1, 10, 30, 30.3]], [0], [0.1])])
    figures = metric.evaluate(1)
    loaded = load_detections(out)
    assert loaded == list(metric.detections)
    again = evaluate_coco(ONE_CAT, loaded, image_ids=[1])
    assert figures["coco/AP"] == again.summary["AP"]


def test_half_precision_predictions(make_metric):
    metric = make_metric()
    one = sample(1, [[10, 10, 30, 30]], [0])
    one["pred_instances"] = {
        key: value if key == "labels" else value.bfloat16()
        for key, value in one["pred_instances"].items()
    }
    metric.process({}, [one])
    assert metric.evaluate(1)["coco/AP"] == pytest.approx(1.0)


def test_undefined_figures_never_count_as_best(make_metric):
    metric = make_metric(truth())
    metric.process({}, [sample(1)])
    figures = metric.evaluate(1)
    assert math.isnan(figures["coco/AP"])
    better = CheckpointHook.rule_map["greater"]
    assert not better(figures["coco/AP"], CheckpointHook.init_value_map["greater"])


@pytest.mark.parametrize(
    ("options", "bad_sample", "message"),
    [
        ({"classes": ("cat", "dogs")}, sample(1), "class 'dogs'.*\n.*did you mean dog"),
        ({"classes": None}, sample(1), "no class names"),
        ({}, sample(1, [[0, 0, 1, 1]], [2]), "label 2, the data set has 2 classes"),
        ({"ann_file": None}, sample(1), "no annotation file"),
        ({"ann_file": "nowhere.json"}, sample(1), "not found: nowhere.json"),
    ],
)
def test_mistakes_show_at_the_first_batch(make_metric, options, bad_sample, message):
    with pytest.raises(DataError, match=message):
        make_metric(**options).process({}, [bad_sample])


def test_an_image_that_the_file_does_not_have(make_metric):
    metric = make_metric()
    metric.process({}, [sample(99)])
    with pytest.raises(DataError, match="no image has the id 99"):
        metric.evaluate(1)


def test_the_same_figures_as_mmdet_within_an_evaluator(val_file, capsys):
    from mmdet.evaluation import CocoMetric as Reference
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    content = json.loads(val_file.read_text())
    names = tuple(one["name"] for one in content["categories"])
    label = {one["id"]: index for index, one in enumerate(content["categories"])}
    found = {image["id"]: [] for image in content["images"]}
    for one in synthetic(val_file):
        found[one["image_id"]].append(one)
    samples = []
    for image in content["images"]:
        boxes = torch.tensor([one["bbox"] for one in found[image["id"]]])
        boxes[:, 2:] += boxes[:, :2]
        data = DetDataSample(
            metainfo={"img_id": image["id"], "ori_shape": (image["height"], image["width"])}
        )
        data.pred_instances = InstanceData(
            bboxes=boxes,
            scores=torch.tensor([one["score"] for one in found[image["id"]]]),
            labels=torch.tensor([label[one["category_id"]] for one in found[image["id"]]]),
        )
        samples.append(data)

    ours = CocoMetric(str(val_file))
    evaluator = Evaluator([ours, Reference(str(val_file), prefix="mmdet")])
    evaluator.dataset_meta = {"classes": names}
    evaluator.process(samples, {})
    figures = evaluator.evaluate(len(samples))
    for name, theirs in [("AP", "mAP"), ("AP50", "mAP_50"), ("AP_S", "mAP_s")]:
        assert round(figures[f"coco/{name}"], 3) == figures[f"mmdet/bbox_{theirs}"]
