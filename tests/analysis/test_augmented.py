"""Training images after the augmentation, with the cover of their boxes."""

import json

import numpy as np
import pytest

from fldet.analysis.dataset.augmented import augmented_images
from fldet.anchors.boxes import collect_boxes
from fldet.anchors.cover import match
from fldet.config.load import load_config
from fldet.errors import ConfigError, DataError


def test_images_come_out_of_the_pipeline_with_their_crowds(tiny_config):
    images, classes, rule = augmented_images(load_config(tiny_config))
    assert classes == ("circle", "square")
    assert rule.pos_iou_thr == 0.5
    assert sorted(image.name for image in images) == [f"{i}.png" for i in range(6)]
    assert sum(image.crowd.sum() for image in images) == 1
    assert sum(len(image.boxes) for image in images) == 10
    for image in images:
        assert image.image.shape == (64, 64, 3)
        for box, label in zip(image.boxes.astype(int), image.labels, strict=True):
            if classes[label] == "square" and len(image.boxes) == 2:  # flipped like the picture
                inside = image.image[box[1] : box[3], box[0] : box[2]]
                assert (inside == 255).mean() > 0.3


def test_cover_is_that_of_the_report_where_nothing_is_random(coco_mini):
    cfg = load_config("retinanet/r50_fpn_1x.py", [f"data_root={coco_mini}"])
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset.pipeline = [t for t in pipeline if "Flip" not in t["type"]]
    images, _, _ = augmented_images(cfg, count=3)
    known = collect_boxes(cfg)
    (cover,) = match(known)
    for image in images:
        for box, best in zip(image.boxes[~image.crowd], image.best_iou[~image.crowd], strict=True):
            rows = np.flatnonzero((known.boxes == box).all(axis=1))
            assert cover.best_iou[rows] == pytest.approx(best)
            assert len(rows)


def test_seed_and_global_random_numbers(tiny_config):
    before = np.random.get_state()[1].copy()
    first, again, other = (
        [image.name for image in augmented_images(load_config(tiny_config), count=3, seed=seed)[0]]
        for seed in (0, 0, 1)
    )
    assert first == again != other
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_images_that_cannot_be_read_are_passed_over(tiny_config, tiny_coco, tmp_path):
    cfg = load_config(tiny_config)
    content = json.loads((tiny_coco / "annotations/instances_train2017.json").read_text())
    for image in content["images"][1:]:
        image["file_name"] = "missing.png"
    (tmp_path / "some.json").write_text(json.dumps(content))
    cfg.train_dataloader.dataset.ann_file = str(tmp_path / "some.json")
    assert [image.name for image in augmented_images(cfg)[0]] == ["0.png"]
    content["images"] = content["images"][1:]
    (tmp_path / "some.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="no image of the training split can be read"):
        augmented_images(cfg)


def test_other_anchors_are_refused(tiny_config):
    cfg = load_config(tiny_config)
    cfg.model.train_cfg.assigner = {"type": "ATSSAssigner", "topk": 9}
    with pytest.raises(ConfigError, match="ATSSAssigner"):
        augmented_images(cfg)
