"""The COCO figures and the results file."""

import copy
import gc
import json
import math

import numpy as np
import pytest
from coco_content import ONE_CAT, box, synthetic, truth

from fldet.errors import DataError
from fldet.evaluation.coco import evaluate_coco
from fldet.evaluation.detections import load_detections, save_detections
from fldet.evaluation.figures import COCO_FIGURES


def assert_same(a, b, tolerance=1e-12):
    assert a.summary == pytest.approx(b.summary, abs=tolerance, nan_ok=True)
    assert a.per_class == pytest.approx(b.per_class, abs=tolerance, nan_ok=True)
    assert (a.num_images, a.num_detections) == (b.num_images, b.num_detections)


# --- evaluate_coco -------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["all", "some images", "some classes"])
def test_the_two_engines_agree(val_file, part):
    content = json.loads(val_file.read_text())
    limits = {
        "all": {},
        "some images": {"image_ids": [one["id"] for one in content["images"]][::3]},
        "some classes": {"category_ids": [1, 90, 44]},
    }[part]
    detections = synthetic(val_file)
    results = [
        evaluate_coco(val_file, detections, engine=engine, **limits)
        for engine in ("hotcoco", "pycocotools")
    ]
    assert_same(*results)
    assert 0.1 < results[0].summary["AP"] < 0.9  # neither trivial
    assert [one.engine for one in results] == ["hotcoco", "pycocotools"]


def test_the_figures_are_those_of_plain_pycocotools(val_file, capsys):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    detections = synthetic(val_file, seed=1)
    coco = COCO(str(val_file))
    reference = COCOeval(coco, coco.loadRes(copy.deepcopy(detections)), "bbox")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    capsys.readouterr()
    figures = evaluate_coco(val_file, detections)
    expected = dict(zip(COCO_FIGURES, reference.stats, strict=True))
    assert figures.summary == pytest.approx(expected, abs=1e-12)


def test_ground_truth_given_back_scores_one(val_file):
    annotations = json.loads(val_file.read_text())["annotations"]
    found = [
        box(one["image_id"], one["category_id"], one["bbox"], 1.0)
        for one in annotations
        if not one["iscrowd"]
    ]
    figures = evaluate_coco(val_file, found)
    assert figures.summary["AP"] == pytest.approx(1.0)
    assert list(figures.per_class.values()) == pytest.approx([1.0] * 80)
    assert figures.num_images == 82
    assert figures.num_detections == len(found)


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
class TestEdges:
    def test_no_detections_give_zero_and_nan_without_truth(self, engine):
        figures = evaluate_coco(ONE_CAT, [], engine=engine)
        assert [figures.summary[key] for key in ("AP", "AP50", "AP_S", "AR100")] == [0.0] * 4
        assert math.isnan(figures.summary["AP_M"])
        assert math.isnan(figures.summary["AR_L"])
        assert figures.per_class == pytest.approx({"cat": 0.0, "dog": math.nan}, nan_ok=True)

    @pytest.mark.parametrize("detections", [[], [box(category_id=10)]], ids=["none", "one"])
    def test_no_ground_truth_gives_nan(self, engine, detections):
        figures = evaluate_coco(truth(), detections, engine=engine)
        assert all(math.isnan(value) for value in figures.summary.values())
        assert all(math.isnan(value) for value in figures.per_class.values())

    def test_no_images_give_nan(self, engine):
        figures = evaluate_coco(ONE_CAT, [box(category_id=10)], image_ids=[], engine=engine)
        assert math.isnan(figures.summary["AP"])
        assert (figures.num_images, figures.num_detections) == (0, 0)

    def test_only_the_chosen_images_count(self, engine):
        content = truth((1, 10, (0, 0, 9, 9), {}), (2, 10, (0, 0, 9, 9), {}))
        found = [box(1, 10, (0, 0, 9, 9)), box(2, 10, (50, 50, 9, 9))]
        ap = [
            evaluate_coco(content, found, image_ids=ids, engine=engine).summary["AP"]
            for ids in ([1], [2])
        ]
        assert ap == pytest.approx([1.0, 0.0])

    def test_names_as_image_ids(self, engine):
        content = {**ONE_CAT, "images": [{"id": "b"}, {"id": "a"}], "annotations": []}
        content["annotations"] = [{"image_id": "b", "category_id": 10, "bbox": [0, 0, 9, 9]}]
        figures = evaluate_coco(content, [box("b", 10, (0, 0, 9, 9))], engine=engine)
        assert figures.summary["AP"] == pytest.approx(1.0)

    def test_missing_area_and_iscrowd_are_filled_in(self, engine, bad_inputs):
        folder = bad_inputs / "annotations"
        full = json.loads((folder / "ok.json").read_text())
        found = [
            box(one["image_id"], one["category_id"], one["bbox"], 0.5)
            for one in full["annotations"]
        ]
        a = evaluate_coco(folder / "no_area_no_iscrowd.json", found[1:], engine=engine)
        b = evaluate_coco(folder / "ok.json", found[1:], engine=engine)
        assert_same(a, b)
        assert 0 < a.summary["AP"] < 1

    def test_an_annotation_with_the_id_zero_counts(self, engine):
        # Left as it is, both engines take it for "not matched": AP 0.
        content = copy.deepcopy(ONE_CAT)
        content["annotations"][0]["id"] = 0
        figures = evaluate_coco(content, [box(1, 10)], engine=engine)
        assert figures.summary["AP"] == pytest.approx(1.0)

    def test_inputs_stay_as_they_are_and_nothing_is_printed(self, engine, capfd):
        content, found = copy.deepcopy(ONE_CAT), [box(1, 10)]
        evaluate_coco(content, found, engine=engine)
        assert content == ONE_CAT
        assert found == [box(1, 10)]
        assert capfd.readouterr() == ("", "")


def test_a_detection_in_a_crowd_is_no_mistake():
    content = truth((1, 10, (0, 0, 50, 50), {}), (1, 10, (60, 0, 40, 40), {"iscrowd": 1}))
    hit, in_crowd = box(1, 10, (0, 0, 50, 50), 0.8), box(1, 10, (65, 5, 9, 9), 0.9)
    assert evaluate_coco(content, [hit, in_crowd]).summary["AP"] == pytest.approx(1.0)
    elsewhere = box(1, 10, (200, 5, 9, 9), 0.9)
    assert evaluate_coco(content, [hit, elsewhere]).summary["AP"] == pytest.approx(0.5)


def test_counts_at_most_100_detections_per_image_and_class():
    found = [box(1, 10)] * 130 + [box(2, 10)] * 5 + [box(1, 20)] * 100
    assert evaluate_coco(ONE_CAT, found).num_detections == 205


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(val_file, enabled):
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        evaluate_coco(val_file, [])
        assert gc.isenabled() == enabled
        with pytest.raises(DataError):
            evaluate_coco(val_file, [{}])
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("not_there.json", "annotation file not found: .*not_there.json"),
        ("not_json.json", "not_json.json is not JSON: .* line [0-9]+"),
        ("no_categories_key.json", "no list 'categories'"),
        ("duplicate_image_ids.json", "two images have the id 1"),
        ("unknown_category_id.json", "annotation 3 has the category_id 99"),
        ("bbox_nan.json", "annotation 1 is malformed: .*nan"),
    ],
)
def test_bad_annotation_files(bad_inputs, file, message):
    with pytest.raises(DataError, match=message):
        evaluate_coco(bad_inputs / "annotations" / file, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [{"name": "x"}]}, r"images\[0\] has no 'id'"),
        ({"images": [{"id": 1}, {"id": 1.0}]}, "two images have the id 1.0"),
        ({"images": [{"id": [1]}]}, r"an image has the id \[1\]"),
        ({"categories": [{"id": "10", "name": "cat"}]}, "the id of a category is no whole number"),
        ({"categories": [{"id": 10, "name": "\ud800"}]}, "name of a category has characters"),
        ({"categories": [{"id": 1}]}, r"categories\[0\] has no 'name'"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "same id or name"),
        ({"annotations": [{"image_id": 1, "category_id": 10}]}, "annotation 0 has no 'bbox'"),
        ({"annotations": [[1, 2]]}, r"annotations\[0\] is not an object"),
        (
            {"annotations": [{"image_id": 1, "category_id": 10, "bbox": [1, 2, 3]}]},
            "annotation 0 is malformed",
        ),
    ],
)
def test_bad_annotation_content(change, message):
    with pytest.raises(DataError, match=message):
        evaluate_coco({**ONE_CAT, **change}, [])


@pytest.mark.parametrize(
    ("detection", "message"),
    [
        (box(image_id=7, category_id=10), "detection 1 has the image_id 7"),
        (box(category_id=3), "detection 1 has the category_id 3"),
        (box(bbox=(1, 2, 3)), "four numbers"),
        (box(bbox=(1, 2, -3, 4)), "negative size"),
        (box(bbox=(1, math.nan, 3, 4)), "not finite"),
        (box(score=math.inf), "not finite"),
        (box(score="0.5"), "not finite"),
        (box(score=10**400), "not finite"),
        (box(score=None), "not finite"),
        (box(bbox=(1, 2, 10**400, 4)), "not finite"),
        (box(bbox=(-(10**5000), 2, 3, 4)), "not finite"),
        (box(bbox=(1, 2, [3], 4)), "not finite"),
        (box(image_id=10**5000), "image_id a number of"),
        (box(category_id=-(10**5000)), "category_id a number of"),
        (box(category_id="cat"), "'category_id' is not an integer"),
        ({"image_id": 1, "category_id": 10, "segmentation": {}}, "no 'bbox'"),
        ([1, 2], "not an object"),
    ],
)
def test_bad_detections(detection, message):
    with pytest.raises(DataError, match=message):
        evaluate_coco(ONE_CAT, [box(1, 10), detection])


def test_unknown_image_and_category_to_evaluate():
    with pytest.raises(DataError, match="no image has the id 9"):
        evaluate_coco(ONE_CAT, [], image_ids=[1, 9])
    with pytest.raises(DataError, match="no category has the id 1"):
        evaluate_coco(ONE_CAT, [], category_ids=[1])


# --- the results file ----------------------------------------------------------------------------


def test_a_round_trip_through_the_file_changes_nothing(val_file, tmp_path):
    detections = synthetic(val_file)
    path = save_detections(tmp_path / "new" / "results.json", detections)
    loaded = load_detections(path)
    assert loaded == detections
    assert_same(evaluate_coco(val_file, loaded), evaluate_coco(val_file, detections), 0)
    assert [one.name for one in path.parent.iterdir()] == ["results.json"]


def test_the_reference_library_reads_the_file(val_file, tmp_path, capsys):
    from pycocotools.coco import COCO

    path = save_detections(tmp_path / "results.json", synthetic(val_file)[:50])
    assert len(COCO(str(val_file)).loadRes(str(path)).anns) == 50


def test_the_file_holds_four_plain_entries(tmp_path):
    found = {**box(1, 10), "score": np.float32(0.1), "bbox": [np.int64(1), 2, 3, 4], "area": 3}
    path = save_detections(tmp_path / "results.json", [found, box(2, 20)])
    first = json.loads(path.read_text())[0]
    assert first == {
        "image_id": 1,
        "category_id": 10,
        "bbox": [1, 2, 3, 4],
        "score": float(np.float32(0.1)),
    }


def test_no_detections_are_a_file_too(tmp_path):
    assert load_detections(save_detections(tmp_path / "results.json", [])) == []


def test_a_malformed_detection_is_not_written(tmp_path):
    with pytest.raises(DataError, match="not finite"):
        save_detections(tmp_path / "results.json", [box(score=math.nan)])
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is not JSON"),
        ("{}", "holds no list of detections"),
        ('[{"image_id": 1}]', "results.json: detection 0 is malformed, no 'category_id'"),
    ],
)
def test_bad_results_files(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_detections(path)
