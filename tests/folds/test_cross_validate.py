"""Cross-validations of a very small model: done, stopped, gone on with, read by others."""

import json
import math
from pathlib import Path

import pytest

from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.data.folds.files import ANNOTATIONS, DETECTIONS
from fldet.data.folds.split import SplitOptions, split_data
from fldet.data.formats.recognise import recognise
from fldet.engine.results import TestResult
from fldet.errors import CheckpointError, ConfigError, DataError, StoppedError, UsageError
from fldet.evaluation.ground_truth import load_truth, read_ground_truth, restrict
from fldet.evaluation.out_of_fold import read_out_of_fold, write_out_of_fold
from fldet.folds import Settings, cross_validate
from fldet.folds.plan import begin, truth_of_folds
from fldet.folds.result import fold_figure
from fldet.inference.detector import Detector
from fldet.inference.ensemble import Ensemble
from fldet.results import read_stored
from fldet.runs.place import Place

TWO = Settings(SplitOptions(folds=2, stratify=True), Place(device="cpu"))


@pytest.fixture
def config(tiny_config):
    """The tiny config, whose model finds something after four iterations."""
    return load_config(tiny_config, ["model.bbox_head.prior_prob=0.2"])


def test_stopped_gone_on_with_and_read(config, commands, tmp_path):
    done, process = commands
    work = tmp_path / "cv"
    process.stop_at = f"test {work / 'config.py'}"
    with pytest.raises(StoppedError, match="what was done is kept") as stopped:
        cross_validate(config, TWO, work)
    assert stopped.value.exit_code == 143
    assert not (work / DETECTIONS).exists()
    with pytest.raises(DataError, match="the cross-validation is not done"):
        read_out_of_fold(work)
    with pytest.raises(CheckpointError, match="and fold_2 has no checkpoint"):
        Detector.load(work, device="cpu")
    before = len(done)
    written = cross_validate(config, TWO, work)
    assert [word for word, _ in done[before:]] == ["train", "test"]
    assert [one.state for one in written.runs] == ["done", "done"]
    assert [one.name for one in written.files] == [
        *(ANNOTATIONS, DETECTIONS, "cross_validation.json"),
        *("cross_validation.png", "cross_validation.svg"),
    ]
    found = read_out_of_fold(work)
    assert sorted(found.fold_of_image.values()) == [1, 1, 1, 2, 2, 2]
    assert all(config.data_root in image["file_name"] for image in found.truth["images"])
    assert {one["image_id"] for one in found.detections} == found.fold_of_image.keys()
    # the figures of a fold are those of its test, and it was tested on that fold alone
    for index, number in enumerate(found.folds.numbers):
        path = work / f"fold_{number}" / "test" / "result.json"
        tested = read_stored(path, TestResult, "result", what="result")
        assert tested.figures.num_images == written.result.images[index] == 3
        for one in written.result.figures:
            value = 100 * tested.figures.summary[one.name]
            assert one.folds[index] == pytest.approx(value, nan_ok=True)
        checkpoint = work / f"fold_{number}" / "iter_4.pth"
        assert checkpoint.exists()
    # once more, nothing is left to do, and the same comes out
    before, texts = len(done), [path.read_bytes() for path in written.files]
    cross_validate(config, TWO, work)
    assert len(done) == before
    assert [path.read_bytes() for path in written.files] == texts
    for other, words in (
        (Settings(SplitOptions(folds=3, stratify=True)), "another division into folds"),
        (Settings(SplitOptions(folds=2)), "another division into folds"),
    ):
        with pytest.raises(UsageError, match=words):
            cross_validate(config, other, work)
    config.train_cfg.max_iters = 6
    with pytest.raises(UsageError, match="another config"):
        cross_validate(config, TWO, work)
    # the detectors of both folds as one
    ensemble = Detector.load(work, device="cpu")
    assert isinstance(ensemble, Ensemble)
    assert len(ensemble.members) == 2
    (merged,) = ensemble.predict(found.truth["images"][0]["file_name"], score_thr=0.01)
    assert len(merged)
    assert (merged.scores[:-1] >= merged.scores[1:]).all()


def test_a_fold_that_fails_is_named_and_the_others_go_on(
    fldet, commands, tiny_coco, tiny_config, tmp_path
):
    """The folds are of the user, who has listed an image twice in the training of the second."""
    del commands
    work, folder = tmp_path / "cv", tmp_path / "folds"
    file = tiny_coco / "annotations" / "instances_train2017.json"
    split_data(file, SplitOptions(folds=2), folder, tiny_coco / "train2017")
    (folder / "fold_2.json").write_text('["no_such_image.png"]')
    done = fldet(
        *("cross-validate", tiny_config, "--folds", folder, "--work-dir", work, "--device", "cpu")
    )
    assert done.returncode == 1, done.stderr
    assert "cv/fold_2 failed" in done.stdout
    assert "none of the images that" in done.stdout
    assert (work / "fold_1" / "test" / DETECTIONS).exists()
    assert not (work / DETECTIONS).exists()


def test_what_cannot_be(config, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine.txt").touch()
    with pytest.raises(UsageError, match=r"files that are of no cross-validation: mine\.txt"):
        cross_validate(config, TWO, tmp_path / "work")
    with pytest.raises(DataError, match="too few for 7 folds"):
        cross_validate(config, Settings(SplitOptions(folds=7)), tmp_path / "seven")
    with pytest.raises(UsageError, match="unknown executor 'cloud'"):
        cross_validate(config, Settings(place=Place("cloud")), tmp_path / "cloud")
    with pytest.raises(DataError, match=r"has no folds\.json"):
        cross_validate(config, Settings(tmp_path / "none"), tmp_path / "none_given")
    config.val_evaluator = {"type": "fldet.VOCMetric"}
    with pytest.raises(ConfigError, match=r"needs one fldet\.CocoMetric"):
        cross_validate(config, TWO, tmp_path / "voc")


@pytest.mark.parametrize(
    ("values", "mean", "deviation"),
    [
        ((10.0, 20.0, 30.0), 20.0, 10.0),
        ((10.0, math.nan, 30.0), 20.0, math.sqrt(200)),  # a fold without the class
        ((10.0, math.nan), 10.0, math.nan),
        ((math.nan, math.nan), math.nan, math.nan),
    ],
)
def test_mean_and_deviation_of_the_folds_that_have_a_figure(values, mean, deviation):
    found = fold_figure("AP", values, 1.0)
    assert (found.mean, found.deviation) == pytest.approx((mean, deviation), nan_ok=True)


def test_files_that_do_not_fit_are_refused(tmp_path):
    image = {"id": 1, "file_name": "/a.jpg", "width": 9, "height": 9, "fold": 1}
    truth = {"images": [image], "annotations": [], "categories": [{"id": 2, "name": "cell"}]}
    one = {"image_id": 1, "category_id": 2, "bbox": [0, 0, 2, 2], "score": 0.5}
    with pytest.raises(DataError, match="has the image_id 3"):
        write_out_of_fold(tmp_path, truth, [{**one, "image_id": 3}])
    write_out_of_fold(tmp_path, truth, [one])
    folds = {"count": 2, "seed": 0, "stratified": False, "group_by": "", "images": 1, "groups": 1}
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    for number in (1, 2):
        (tmp_path / f"fold_{number}.json").write_text("[]")
    found = read_out_of_fold(tmp_path)
    assert (found.fold_of_image, found.detections) == ({1: 1}, [one])
    image["fold"] = 3
    (tmp_path / ANNOTATIONS).write_text(json.dumps(truth))
    with pytest.raises(DataError, match="the fold of an image is 3"):
        read_out_of_fold(tmp_path)


@pytest.mark.parametrize("kind", ["voc", "yolo"])
def test_truth_of_other_formats_has_the_ids_of_the_tests(
    kind, tiny_config, voc_mini, bccd_yolo, tmp_path
):
    root = voc_mini / "VOCdevkit" / "VOC2007" if kind == "voc" else bccd_yolo
    found = recognise(root)
    config = load_config(tiny_config)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.dataset = {**found.options("train"), "pipeline": loader.dataset.pipeline}
    begun = begin(config, SplitOptions(folds=2, stratify=True), tmp_path / "cv")
    truth = truth_of_folds(begun)
    assert all(Path(image["file_name"]).is_file() for image in truth["images"])
    for number in (1, 2):
        cfg = load_config(begun.config, {"fold": number})
        metric = prepare_config(cfg, phases=("test",)).test_evaluator
        of_fold = load_truth("CocoMetric", None, metric.dataset)
        ids = {image["id"] for image in truth["images"] if image["fold"] == number}
        assert ids == set(of_fold.images)
        whole = read_ground_truth(truth)
        assert whole.categories == of_fold.categories
        assert restrict(whole, ids, None).annotations == of_fold.annotations
