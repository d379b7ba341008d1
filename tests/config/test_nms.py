import numpy as np
import pytest

from fldet.config.load import load_config
from fldet.config.nms import suppress_across_classes
from fldet.engine.test import test as run_test
from fldet.errors import ConfigError, UsageError
from fldet.inference.detector import Detector
from fldet.inference.predict import predict

IOU = 0.5


def overlapping_pairs(found):
    """How many pairs of boxes, of any classes, have an IoU above the threshold."""
    low = np.maximum(found.boxes[:, None, :2], found.boxes[None, :, :2])
    high = np.minimum(found.boxes[:, None, 2:], found.boxes[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
    iou = shared / (areas[:, None] + areas[None] - shared)
    return int((np.triu(iou, 1) > IOU + 1e-3).sum())


def test_an_object_has_one_box_of_any_class(tiny_run, tiny_coco, tmp_path):
    cfg, work_dir = tiny_run
    image = tiny_coco / "val2017" / "0.png"
    plain = Detector.load(work_dir, device="cpu").predict(image)[0]
    across = Detector.load(work_dir, device="cpu", agnostic_nms=True).predict(image)[0]
    assert overlapping_pairs(plain) > 0 == overlapping_pairs(across)
    by_line = load_config(cfg.filename, ["+model.test_cfg.nms.class_agnostic=True"])
    the_same = Detector.load(work_dir, by_line, device="cpu").predict(image)[0]
    assert np.array_equal(across.boxes, the_same.boxes)
    options = {"device": "cpu", "score_thr": 0.05, "formats": ["jsonl"], "agnostic_nms": True}
    result = predict(work_dir, str(image), tmp_path / "out", **options)
    assert result.boxes == len(across)
    with pytest.raises(UsageError, match="another agnostic_nms"):
        predict(
            work_dir, str(image), tmp_path / "out", **options | {"agnostic_nms": False}, resume=True
        )


def test_a_test_counts_fewer_boxes(tiny_run, tmp_path):
    many = ["model.test_cfg.max_per_img=1000"]
    cfg, work_dir = load_config(tiny_run[0].filename, many), tiny_run[1]
    counts = [
        run_test(
            cfg,
            work_dir,
            work_dir=tmp_path / str(agnostic),
            max_images=2,
            agnostic_nms=agnostic,
            device="cpu",
        ).figures.num_detections
        for agnostic in (False, True)
    ]
    assert counts[0] > counts[1] > 0


def test_of_two_stages_it_is_the_suppression_of_the_second():
    model = {"test_cfg": {"rpn": {"nms": {}}, "rcnn": {"nms": {"type": "nms"}}}}
    suppress_across_classes(model)
    assert model["test_cfg"] == {
        "rpn": {"nms": {}},
        "rcnn": {"nms": {"type": "nms", "class_agnostic": True}},
    }


@pytest.mark.parametrize(
    ("test_cfg", "words"),
    [({}, "no nms"), ({"nms": {}, "nms_pre_per_class": 9}, "no nms|nms_pre_per_class")],
)
def test_models_without_such_a_suppression_are_refused(test_cfg, words):
    with pytest.raises(ConfigError, match=words):
        suppress_across_classes({"type": "SSD", "test_cfg": test_cfg})
