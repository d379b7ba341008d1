"""Label errors: each kind by hand, the files for labelling tools, the page and its escaping."""

import copy
import json
import re
from collections import Counter

import cv2
import numpy as np
import pytest

from fldet.analysis.labels.analyze import analyze_labels
from fldet.analysis.labels.compute import calibrated, find_label_errors
from fldet.analysis.labels.result import KINDS, load
from fldet.errors import DataError
from fldet.evaluation.detected import Detected, read_detected
from fldet.evaluation.ground_truth import read_ground_truth

EVIL = "<b onclick=alert(1)>dog</b>&amp;'\""
CAT, DOG = 10, 20
IMAGES, PER_IMAGE, SIDE = 50, 6, 40


def clean():
    """Content without an error, and detections of all of it that are a few pixels off."""
    rng = np.random.default_rng(0)
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 400, "height": 100} for i in range(IMAGES)
        ],
        "categories": [{"id": CAT, "name": "cat"}, {"id": DOG, "name": EVIL}],
        "annotations": [
            {
                "id": 100 + PER_IMAGE * i + j,
                "image_id": i,
                "category_id": CAT if j % 2 else DOG,
                "bbox": [10.0 + 60 * j, 20.0, SIDE, SIDE],
            }
            for i in range(IMAGES)
            for j in range(PER_IMAGE)
        ],
    }
    detections = []
    for place, one in enumerate(content["annotations"]):
        x, y, w, h = one["bbox"]
        dx, dy = rng.uniform(-3, 3, 2).tolist()
        score = 0.7 + 0.004 * (place % 50)
        base = {"image_id": one["image_id"], "category_id": one["category_id"]}
        detections.append({**base, "bbox": [x + dx, y + dy, w, h], "score": score})
        # what is not sure of itself is wrong
        detections.append({**base, "bbox": [x, y + 45, 30, 30], "score": 0.1 + 0.001 * place})
    return content, detections


def detected(content, detections):
    return Detected(content, read_ground_truth(content), detections, "by hand")


def first(content, detections):
    return find_label_errors(detected(content, detections)).findings[0]


def test_nothing_likely_where_nothing_is_wrong():
    found = find_label_errors(detected(*clean()))
    assert found.annotations == IMAGES * PER_IMAGE
    assert not [one for one in found.findings if one.score >= 0.5]


def test_a_box_that_lacks_is_missing():
    content, detections = clean()
    gone = content["annotations"].pop(9)
    found = first(content, detections)
    assert (found.kind, found.image_id, found.annotation_ids) == ("missing", gone["image_id"], ())
    assert (found.label, found.other_label) == ("", "cat" if gone["category_id"] == CAT else EVIL)
    assert found.box_xywh is None
    assert found.other_xywh == pytest.approx(gone["bbox"], abs=3)
    assert found.score > 0.5


def test_a_box_without_a_detection_is_spurious():
    content, detections = clean()
    content["annotations"].append(
        {"id": 1, "image_id": 3, "category_id": CAT, "bbox": [375.0, 5.0, 20.0, 10.0]}
    )
    found = first(content, detections)
    assert (found.kind, found.annotation_ids, found.label) == ("spurious", (1,), "cat")
    assert found.other_xywh is None
    assert found.score > 0.5


def test_a_box_beside_its_object_is_moved():
    content, detections = clean()
    content["annotations"][9]["bbox"][0] += 15  # IoU 25/55
    found = first(content, detections)
    assert (found.kind, found.annotation_ids) == ("moved", (109,))
    assert found.other_xywh == pytest.approx([190, 20, SIDE, SIDE], abs=3)


def test_a_box_of_another_class_says_which_one_was_found():
    content, detections = clean()
    content["annotations"][9]["category_id"] = DOG
    found = first(content, detections)
    assert (found.kind, found.annotation_ids) == ("class", (109,))
    assert (found.label, found.other_label) == (EVIL, "cat")


def test_a_class_that_is_never_found_is_not_taken_for_a_wrong_one():
    content, detections = clean()
    content["categories"].append({"id": 30, "name": "fox"})
    foxes = [one for one in content["annotations"] if one["category_id"] == DOG][:60:3]
    for one in foxes:  # which the detector takes for dogs
        one["category_id"] = 30
    wrong = content["annotations"][-1]
    wrong["category_id"] = DOG  # for the only time of 130, a cat was found
    findings = find_label_errors(detected(content, detections)).findings
    assert (findings[0].kind, findings[0].annotation_ids) == ("class", (wrong["id"],))
    suspected = sorted(one.score for one in findings if one.label == "fox")
    assert suspected[len(foxes) // 2] < findings[0].score / 3


def test_two_boxes_of_one_object_are_doubled():
    content, detections = clean()
    twin = copy.deepcopy(content["annotations"][9])
    twin["id"] = 1
    twin["bbox"][0] += 3
    content["annotations"].append(twin)
    found = first(content, detections)
    assert (found.kind, found.annotation_ids, found.score) == ("doubled", (109, 1), 1.0)


def test_crowds_are_no_errors_and_what_lies_on_them_is_none():
    content, detections = clean()
    content["annotations"][9] |= {"iscrowd": 1}
    found = find_label_errors(detected(content, detections))
    assert not [one for one in found.findings if one.score >= 0.5]
    assert 109 not in [key for one in found.findings for key in one.annotation_ids]


def test_an_image_is_as_likely_wrong_as_one_of_its_findings():
    content, detections = clean()
    del content["annotations"][9]
    found = find_label_errors(detected(content, detections))
    assert len(found.images) == IMAGES
    worst = found.images[0]
    assert worst.image_id == found.findings[0].image_id == 1
    scores = [one.score for one in found.findings if one.image_id == 1]
    assert worst.score == pytest.approx(1 - np.prod([1 - score for score in scores]))
    assert worst.findings == len(scores)
    assert all(0 <= one.score <= 1 for one in (*found.findings, *found.images))


def test_probabilities_rise_with_the_score_and_sum_to_what_is_right():
    score = np.array([0.1, 0.9, 0.5, 0.4, 0.8])
    correct = np.array([False, True, False, True, True])
    p = calibrated(score, correct)
    # as if one more, with the best score, were wrong
    assert p.tolist() == pytest.approx([0, 2 / 3, 0.5, 0.5, 2 / 3])
    assert len(calibrated(np.zeros(0), np.zeros(0, bool))) == 0


def test_nothing_to_compare_is_an_error():
    content, _ = clean()
    with pytest.raises(DataError, match="no detection"):
        find_label_errors(detected(content, []))


@pytest.fixture
def files(tmp_path):
    """Two files with an error of each kind, and the images."""
    content, detections = clean()
    boxes = content["annotations"]
    boxes[20]["bbox"][0] += 15
    boxes[30]["category_id"] = DOG if boxes[30]["category_id"] == CAT else CAT
    boxes.append({**copy.deepcopy(boxes[40]), "id": 1})
    boxes.append({"id": 2, "image_id": 3, "category_id": CAT, "bbox": [375.0, 5.0, 20.0, 10.0]})
    del boxes[9]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(detections))
    (tmp_path / "images").mkdir()
    for one in content["images"][1:]:  # the first is gone
        picture = np.full((100, 400, 3), 128, np.uint8)
        cv2.imwrite(str(tmp_path / "images" / one["file_name"]), picture)
    return tmp_path


def test_the_command_writes_a_page_and_files_for_labelling_tools(fldet, files):
    done = fldet(
        *("analyze", "labels", "--detections", files / "results.json"),
        *("--annotations", files / "truth.json", "--images", files / "images"),
        *("--out-dir", files / "out", "--most", 30),
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^missing +1 ", done.stdout, re.MULTILINE)
    saved = load(files / "out" / "labels.json")
    assert {one.kind for one in saved.findings[:6]} == set(KINDS)
    page = (files / "out" / "labels.html").read_text()
    assert "default-src 'none'" in page
    assert EVIL not in page
    on_page = Counter(re.findall(r'data-kind="(\w+)"', page))
    assert sum(on_page.values()) + len(re.findall("not on the page", done.stderr)) <= 30
    assert on_page["missing"] == 1
    assert "data:image/jpeg" in page
    check_coco(files, saved)
    check_label_studio(files, saved)


def check_coco(files, saved):
    path = files / "out" / "coco.json"
    truth = read_ground_truth(path)  # a COCO file as any other
    content = json.loads(path.read_text())
    assert len(truth.annotations) == len(saved.findings)
    worst = content["annotations"][0]
    assert (worst["kind"], worst["score"]) == (saved.findings[0].kind, saved.findings[0].score)
    assert {one["kind"] for one in content["annotations"]} == set(KINDS)


def check_label_studio(files, saved):
    tasks = json.loads((files / "out" / "label_studio.json").read_text())
    assert sum(len(task["predictions"][0]["result"]) for task in tasks) == len(saved.findings)
    assert tasks[0]["data"]["image"] == saved.images[0].file
    missing = next(one for one in saved.findings if one.kind == "missing")
    values = [region["value"] for task in tasks for region in task["predictions"][0]["result"]]
    x, y, w, h = missing.other_xywh
    assert any(
        (one["x"], one["y"], one["width"], one["height"])
        == pytest.approx((x / 4, y, w / 4, h))  # percent of 400 x 100 pixels
        for one in values
    )
    assert all(0 <= one["x"] <= 100 and one["rotation"] == 0 for one in values)


def test_without_images_the_files_are_written_all_the_same(files, caplog):
    done = analyze_labels(
        detections=files / "results.json",
        annotations=files / "truth.json",
        images=files / "nowhere",
        out_dir=files / "out",
    )
    assert len(done.files) == 4
    assert "<li class=" not in (files / "out" / "labels.html").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": 1.5}, "has the score 1.5"),
        ({"image_id": 99}, "has the image_id 99"),
        ({"category_id": 5}, "has the category_id 5"),
    ],
)
def test_detections_must_fit_the_annotations(files, change, words):
    entries = json.loads((files / "results.json").read_text())
    entries[3] |= change
    (files / "results.json").write_text(json.dumps(entries))
    with pytest.raises(DataError, match=f"detection 3 {words}"):
        read_detected(None, files / "results.json", files / "truth.json")
