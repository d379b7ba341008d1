"""Detectors, tests and predictions that look at each picture several times."""

import json

import cv2
import numpy as np
import pytest

from fldet.data.slicing.views import Views
from fldet.engine.test import test as run_test
from fldet.errors import UsageError
from fldet.inference.detections import Detections
from fldet.inference.detector import Detector
from fldet.inference.views import DetectorOfViews


@pytest.fixture(scope="module")
def detector(tiny_run):
    return Detector.load(tiny_run[1], device="cpu")


@pytest.fixture(scope="module")
def picture(tiny_coco):
    """Four images of 64 pixels side by side in two rows."""
    tiles = [cv2.imread(str(tiny_coco / "val2017" / f"{number}.png")) for number in range(4)]
    return np.concatenate([np.concatenate(tiles[:2], 1), np.concatenate(tiles[2:], 1)])


def same(one, other, *, box=0.0, score=0.0):
    return (
        np.array_equal(one.labels, other.labels)
        and np.allclose(one.boxes, other.boxes, rtol=0, atol=box)
        and np.allclose(one.scores, other.scores, rtol=0, atol=score)
    )


def test_a_picture_no_larger_than_a_slice_is_looked_at_as_without(detector, picture):
    (found,) = detector.with_views(128, whole=True).predict(picture)
    assert same(found, detector.predict(picture)[0], box=1e-3, score=1e-5)


def test_a_slice_is_prepared_as_a_picture_of_its_own(detector, picture):
    prepared = detector.with_views(64, overlap=0.25).prepare(picture)
    assert [view.region for view, _ in prepared.views][:3] == [
        *((0, 0, 64, 64), (32, 0, 96, 64), (64, 0, 128, 64))
    ]
    alone = detector.prepare(np.ascontiguousarray(picture[:64, 32:96]))
    assert (prepared.views[1][1].inputs == alone.inputs).all()
    assert (prepared.width, prepared.height) == (128, 128)


def test_slices_of_several_pictures_share_batches(detector, picture, monkeypatch):
    sizes = []
    detect = Detector._detect_batch
    monkeypatch.setattr(
        Detector, "_detect_batch", lambda s, b, t: sizes.append(len(b)) or detect(s, b, t)
    )
    monkeypatch.setattr("fldet.inference.views.BATCH_ON_CPU", 8)
    together = detector.with_views(64, overlap=0.25).predict([picture, picture[:64]], batch_size=8)
    assert sizes == [8, 4]  # nine slices and three
    alone = detector.with_views(64, overlap=0.25).predict(picture[:64], batch_size=1)
    assert same(together[1], alone[0], box=1e-3, score=1e-5)


def test_a_mirrored_view_finds_mirrored_objects_where_they_are(detector, picture, monkeypatch):
    """With a network that finds the brightest square, in whatever view it is."""

    def brightest(self, batch, score_thr):
        found = []
        for one in batch:
            ys, xs = np.nonzero(one.inputs[0].numpy() > 250)
            scale = one.inputs.shape[2] / one.width
            box = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]) / scale
            found.append(Detections(box, np.array([0.9]), np.array([0]), ("circle",)))
        return found

    monkeypatch.setattr(Detector, "_detect_batch", brightest)
    image = np.zeros((60, 90, 3), np.uint8)
    image[12:30, 9:33] = 255
    views = detector.with_views(flip=True, scales=(0.5, 2))
    (found,) = views.predict(image)
    np.testing.assert_allclose(found.boxes, [[9, 12, 33, 30]], atol=1.1)
    inputs = [
        (view.flipped, tuple(one.inputs.shape[1:])) for view, one in views.prepare(image).views
    ]
    assert inputs == [
        *((False, (64, 96)), (True, (64, 96)), (False, (32, 48)), (True, (32, 48))),
        *((False, (128, 192)), (True, (128, 192))),
    ]


def test_a_higher_threshold_only_leaves_boxes_out(detector, picture):
    views = detector.with_views(64, whole=True, flip=True)
    many = views.predict(picture, score_thr=0.05)[0]
    threshold = float(many.scores[5])
    few = views.predict(picture, score_thr=threshold)[0]
    assert 0 < len(few) <= 6 < len(many)
    assert np.array_equal(few.boxes, many.boxes[: len(few)])


@pytest.mark.parametrize(
    "options",
    [["--slice", "48", "--overlap", "0.25", "--whole"], ["--tta", "flip", "--tta", "1.5"]],
    ids=["slices", "tta"],
)
def test_the_command_the_test_and_the_detector_give_the_same(
    fldet, tiny_run, tiny_coco, tmp_path, options
):
    cfg, work_dir = tiny_run
    out, config = tmp_path / "found", tmp_path / "tiny.py"
    cfg.dump(config)
    folder = tiny_coco / "val2017"
    options = [*options, "--quiet"]
    command = ["predict", work_dir, folder, "--out", out, "--score-thr", 0.05, "--batch-size", 1]
    command += options
    done = fldet(*command)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    done = fldet(
        *("test", config, work_dir, "--work-dir", tmp_path / "test", "--precision", "fp32"),
        *options,
        *("--show-dir", tmp_path / "drawn", "--out", tmp_path / "test.json"),
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "drawn").iterdir())) == 6
    tested = json.loads((tmp_path / "test.json").read_text())
    assert len(tested) == sum(len(line["boxes"]) for line in lines) > 20
    scores = sorted(one["score"] for one in tested)
    np.testing.assert_allclose(
        scores, sorted(s for line in lines for s in line["scores"]), atol=1e-5
    )
    views = Views(48, 0.25, whole=True) if "--slice" in options else Views(flip=True, scales=(1.5,))
    detector = DetectorOfViews(Detector.load(work_dir, device="cpu"), views)
    for line in lines:
        (found,) = detector.predict(line["file"], batch_size=1)
        np.testing.assert_allclose(found.boxes, line["boxes"], atol=1e-4)
    again = fldet(*command[:-1], "--resume", "--overlap", 0.3)
    assert again.returncode == 2
    assert "views" in again.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 8}, "slices of 8 pixels"),
        ({"size": 64, "overlap": 0.0}, "overlap by 0.0"),
        ({"size": 64, "overlap": float("nan")}, "overlap by nan"),
        ({"whole": True}, "no slices"),
        ({"scales": (0.0,)}, "a scale of 0.0"),
    ],
)
def test_views_that_cannot_be(detector, options, said):
    with pytest.raises(UsageError, match=said):
        detector.with_views(**options)


def test_a_comparison_with_mmdetection_has_no_views(tiny_run, tmp_path):
    cfg, work_dir = tiny_run
    with pytest.raises(UsageError, match="looks at each image once"):
        run_test(cfg, work_dir, work_dir=tmp_path, compare=True, views=Views(64))
