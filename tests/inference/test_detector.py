import copy
import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

import fldet
from fldet.checkpoints.files import read_checkpoint
from fldet.checkpoints.paths import best_checkpoint, resolve_checkpoint
from fldet.config.load import format_config
from fldet.engine.test import test as run_test
from fldet.errors import CheckpointError, ConfigError, DataError, UsageError
from fldet.inference.detector import Detector, with_score_thr


@pytest.fixture(scope="module")
def detector(tiny_run):
    return Detector.load(tiny_run[1], device="cpu")


@pytest.fixture(scope="module")
def images(tiny_coco):
    return sorted((tiny_coco / "val2017").glob("*.png"))


def same(one, other, *, box=0.0, score=0.0):
    return (
        np.array_equal(one.labels, other.labels)
        and np.allclose(one.boxes, other.boxes, rtol=0, atol=box)
        and np.allclose(one.scores, other.scores, rtol=0, atol=score)
    )


def test_importing_fldet_loads_nothing_and_the_name_is_there():
    code = (
        "import sys, fldet; assert 'Detector' in dir(fldet); "
        "print([m for m in ('torch', 'numpy', 'mmengine', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert fldet.Detector is Detector


def test_a_checkpoint_alone_gives_what_fldet_test_gives(tiny_run, images, tmp_path):
    cfg, work_dir = tiny_run
    out = tmp_path / "results.json"
    run_test(cfg, work_dir, work_dir=tmp_path / "test", out=out, device="cpu")
    ours = Detector.load(work_dir, device="cpu").predict(images, batch_size=1)
    truth = json.loads((tiny_images(cfg)).read_text())
    name_of = {one["id"]: one["name"] for one in truth["categories"]}
    id_of = {one["file_name"]: one["id"] for one in truth["images"]}
    expected = {key: [] for key in id_of.values()}
    for one in json.loads(out.read_text()):
        x, y, w, h = one["bbox"]
        row = (one["score"], name_of[one["category_id"]], x, y, x + w, y + h)
        expected[one["image_id"]].append(row)
    assert sum(map(len, expected.values())) > 20
    for path, found in zip(images, ours, strict=True):
        boxes = found.boxes.astype(float)
        rows = sorted(zip(found.scores.tolist(), found.names, *boxes.T, strict=True))
        wanted = sorted(expected[id_of[path.name]])
        assert [row[:2] for row in rows] == [row[:2] for row in wanted]
        np.testing.assert_allclose([r[2:] for r in rows], [w[2:] for w in wanted], atol=1e-9)


def tiny_images(cfg):
    return Path(cfg.data_root, "annotations", "instances_val2017.json")


def test_what_is_returned(detector, images):
    (found,) = detector.predict(images[0])
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (
        np.float32,
        np.float32,
        np.int64,
    )
    assert found.boxes.shape == (len(found), 4)
    assert (np.diff(found.scores) <= 0).all()
    assert found.names == tuple(("circle", "square")[i] for i in found.labels)
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= 64
    with pytest.raises(AttributeError):
        found.boxes = None


def test_paths_text_and_arrays_are_the_same(detector, images):
    by_path = detector.predict(images[0])[0]
    assert same(by_path, detector.predict(str(images[0]))[0])
    assert same(by_path, detector.predict(cv2.imread(str(images[0])))[0])
    stack = np.stack([cv2.imread(str(path)) for path in images[:2]])
    assert same(by_path, detector.predict(stack)[0], box=1e-4, score=1e-6)
    assert detector.predict([]) == []


def test_the_neighbours_in_a_batch_do_not_matter(detector, images):
    flat = np.zeros((40, 90, 3), np.uint8)
    mixed = [images[0], flat, images[1], flat, images[2]]
    together = detector.predict(mixed, batch_size=3)
    for one, found in zip(mixed, together, strict=True):
        assert same(found, detector.predict([one])[0], box=1e-3, score=1e-5)


def test_a_higher_threshold_only_leaves_boxes_out(detector, images):
    many = detector.predict(images[0], score_thr=0.0)[0]
    threshold = float(many.scores[5])
    few = detector.predict(images[0], score_thr=threshold)[0]
    assert 0 < len(few) <= 6 < len(many)
    assert np.array_equal(few.boxes, many.boxes[: len(few)])


def in_threads(detector, images, thresholds, hook_on):
    """Predicts with each threshold in a thread; no head begins before all networks have begun."""
    together = threading.Barrier(len(thresholds))
    handle = hook_on.register_forward_hook(lambda *_: together.wait(60) * 0 or None)
    try:
        with ThreadPoolExecutor(len(thresholds)) as pool:
            return list(pool.map(lambda low: detector.predict(images, low, 2), thresholds))
    finally:
        handle.remove()


@pytest.mark.parametrize("post_process", ["lean", "stock"])
def test_threads_that_share_a_detector_each_get_their_own_threshold(tiny_run, images, post_process):
    detector = Detector.load(tiny_run[1], device="cpu")
    detector.model.bbox_head.test_cfg.post_process = post_process
    before = copy.deepcopy(detector.model.bbox_head.test_cfg)
    middle = float(detector.predict(images[0], 0.0)[0].scores[20])
    thresholds = (0.0, middle, 0.9)
    wanted = [detector.predict(images[:4], low, 2) for low in thresholds]
    assert len({len(one[0]) for one in wanted}) == 3
    for _ in range(3):
        for found, expected in zip(
            in_threads(detector, images[:4], thresholds, detector.model.backbone),
            wanted,
            strict=True,
        ):
            assert all(map(same, found, expected))
    assert detector.model.bbox_head.test_cfg == before


def test_a_model_for_a_threshold_has_the_same_weights_and_leaves_the_other_as_it_is():
    head = nn.Linear(2, 2)
    head.test_cfg = ConfigDict(score_thr=0.05, nms={"type": "nms"})
    two_stages = nn.Module()
    two_stages.roi_head, two_stages.bbox_head, two_stages.neck = head, nn.Linear(1, 1), nn.ReLU()
    view = with_score_thr(two_stages, 0.7)
    assert (view.roi_head.test_cfg.score_thr, head.test_cfg.score_thr) == (0.7, 0.05)
    assert view.roi_head.test_cfg.nms == head.test_cfg.nms
    assert view.roi_head.weight is head.weight
    assert (view.bbox_head, view.neck) == (two_stages.bbox_head, two_stages.neck)
    assert two_stages.roi_head is head


def test_no_object_is_an_empty_result_not_an_error(detector, images):
    (found,) = detector.predict(images[0], score_thr=1.0)
    assert (found.boxes.shape, found.names, len(found)) == ((0, 4), (), 0)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\)"),
        (np.zeros((4, 4, 3)), "type float64"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        ("no/such.png", "no such image: no/such.png"),
    ],
    ids=["grey", "float", "empty", "missing"],
)
def test_what_is_no_image_is_refused(detector, image, words):
    with pytest.raises(DataError, match=words):
        detector.predict([image])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zero_bytes.jpg", "the file is empty"),
        ("text_not_image.jpg", "not an image"),
        ("truncated.jpg", "truncated after"),
    ],
)
def test_broken_files_are_named(detector, bad_inputs, name, words):
    with pytest.raises(DataError, match=f"{name}.*{words}"):
        detector.predict(bad_inputs / "images" / name)


def test_a_turned_image_gives_boxes_of_the_upright_one(detector, bad_inputs):
    prepared = detector.prepare(bad_inputs / "images" / "exif_orientation_6.jpg")
    assert (prepared.width, prepared.height) == (640, 480)


def test_a_threshold_that_is_no_score(detector, images):
    with pytest.raises(UsageError, match=r"score_thr 1\.5"):
        detector.predict(images[0], score_thr=1.5)


def test_weights_alone_need_a_config(tiny_run, images, tmp_path):
    cfg, work_dir = tiny_run
    content = read_checkpoint(resolve_checkpoint(work_dir))
    bare = tmp_path / "bare.pth"
    torch.save({"state_dict": content["state_dict"]}, bare)
    with pytest.raises(CheckpointError, match="carries no config") as error:
        Detector.load(bare, device="cpu")
    assert "--config" in error.value.hint
    found = Detector.load(bare, cfg, device="cpu").predict(images[0])[0]
    whole = Detector.load(work_dir, device="cpu").predict(images[0])[0]
    assert same(found, whole)
    assert found.names == whole.names


def test_the_checkpoint_needs_none_of_the_files_that_it_was_trained_with(tiny_run, tmp_path):
    moved = tmp_path / "moved.pth"
    shutil.copy(resolve_checkpoint(tiny_run[1]), moved)
    content = torch.load(moved, weights_only=True, map_location="cpu")
    content["meta"]["cfg"] = content["meta"]["cfg"].replace(str(tiny_run[0].data_root), "/nowhere")
    torch.save(content, moved)
    assert Detector.load(moved, device="cpu").classes == ("circle", "square")


@pytest.mark.gpu
def test_on_a_gpu_the_same_boxes(tiny_run, images):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    here = Detector.load(tiny_run[1], device="cpu").predict(images, score_thr=0.25)
    there = Detector.load(tiny_run[1], device="cuda").predict(images, score_thr=0.25)
    assert [len(one) for one in here] == [len(one) for one in there]


@pytest.mark.parametrize("divisor", [None, 0, -32, 1.5, "32", True, [32]])
def test_a_divisor_that_is_none_is_refused_by_name(tiny_run, tmp_path, divisor):
    content = read_checkpoint(best_checkpoint(tiny_run[1]))
    cfg = Config.fromstring(content["meta"]["cfg"], ".py")
    cfg.model.data_preprocessor.pad_size_divisor = divisor
    content["meta"]["cfg"] = format_config(cfg)
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises((CheckpointError, ConfigError), match=r"pad_size_divisor|a\.pth"):
        Detector.load(tmp_path / "a.pth", device="cpu")


# --- thresholds of classes -----------------------------------------------------------------------


def test_thresholds_keep_what_reaches_that_of_its_class(tiny_run, images, tmp_path):
    everything = Detector.load(tiny_run[1], device="cpu").predict(images, 0.05, batch_size=1)
    scores = np.concatenate([one.scores for one in everything])
    by_class = {"circle": 0.05, "square": float(np.median(scores))}
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps({"scores": by_class}))
    strict = Detector.load(tiny_run[1], device="cpu", thresholds=path)
    found = strict.predict(images, batch_size=1)
    assert sum(map(len, found)) < len(scores)
    for one, every in zip(found, everything, strict=True):
        kept = every.scores >= [by_class[name] for name in every.names]
        assert same(one, every[kept])
        assert one.names == every[kept].names
    # a score of all classes comes before them
    for one, every in zip(strict.predict(images, 0.05, batch_size=1), everything, strict=True):
        assert same(one, every)


@pytest.mark.parametrize(
    ("scores", "words"),
    [({"circle": 0.5}, "no threshold of the class 'square'"), ({"cat": 0.5}, "the class 'cat'")],
)
def test_thresholds_of_other_classes_are_refused(tiny_run, scores, words):
    with pytest.raises(UsageError, match=words):
        Detector.load(tiny_run[1], device="cpu", thresholds=scores)
