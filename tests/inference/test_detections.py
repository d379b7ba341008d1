"""What a person does with the objects found: go through them, draw, save, take elsewhere."""

import json
import sys

import cv2
import numpy as np
import pytest

from fldet.errors import DataError, UnavailableError, UsageError
from fldet.inference.detections import Detections, Predictions
from fldet.pictures.boxes import read_image


def found_in(image=None, count=3):
    """A cat, a dog, a cat ..., each of 10 x 20 px."""
    labels = np.arange(count) % 2
    x = 20.0 * np.arange(count)
    boxes = np.stack([x, np.full(count, 5.0), x + 10, np.full(count, 25.0)], axis=1)
    return Detections(
        boxes=boxes.astype(np.float32),
        scores=np.linspace(0.9, 0.5, count).astype(np.float32),
        labels=labels.astype(np.int64),
        names=tuple(("cat", "dog")[label] for label in labels),
        image=image,
        size=(80, 40),
        classes=("cat", "dog"),
    )


@pytest.fixture
def file(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 80, 3), 128, np.uint8))
    return str(tmp_path / "a.png")


def test_going_through_gives_name_score_and_box():
    first, second, _ = found_in()
    assert (first.name, first.box) == ("cat", (0.0, 5.0, 10.0, 25.0))
    assert first.score == pytest.approx(0.9)
    name, score, (x1, *_) = second
    assert (name, x1) == ("dog", 20.0)
    assert type(score) is float


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (slice(1, None), ("dog", "cat")),
        (slice(None, None, -1), ("cat", "dog", "cat")),
        (np.array([True, False, True]), ("cat", "cat")),
        ([2, 1], ("cat", "dog")),
        (np.array([], int), ()),
        ([], ()),
    ],
)
def test_a_part_of_the_objects(rows, names):
    part = found_in()[rows]
    assert part.names == names
    assert part.boxes.shape == (len(names), 4)
    assert (len(part.scores), len(part.labels)) == (len(names),) * 2
    assert part.size == (80, 40)


def test_one_object_by_its_number_and_none_beyond_the_last():
    found = found_in()
    assert found[-1] == list(found)[2]
    assert found[np.int64(1)].name == "dog"
    with pytest.raises(IndexError):
        found[3]


def test_only_some_classes():
    assert found_in().only("dog").names == ("dog",)
    assert found_in().only("cat", "dog").names == ("cat", "dog", "cat")
    assert len(found_in().only("bird")) == 0


def test_what_it_says_of_itself():
    assert repr(found_in("a.jpg")) == "<3 objects in a.jpg: cat 0.90, dog 0.70, cat 0.50>"
    assert repr(found_in(count=7)).endswith("2 more>")
    assert repr(found_in()[:0]) == "<0 objects>"
    assert repr(Predictions([found_in(), found_in()])) == "<2 images with 6 objects>"


def test_drawing_on_the_file_on_the_array_and_on_another(file):
    by_file = found_in(file).draw()
    array = cv2.imread(file)
    assert by_file.shape == (40, 80, 3)
    assert (by_file != array).any()
    assert np.array_equal(by_file, found_in(array).draw())
    assert np.array_equal(by_file, found_in().draw(file))
    bare = found_in(file).draw(hide_labels=True, hide_scores=True, line_width=3)
    assert (bare != by_file).any()
    with pytest.raises(UsageError, match="do not know their image"):
        found_in().draw()
    with pytest.raises(DataError, match=r"missing\.png"):
        found_in("missing.png").draw()


def test_saving_pictures(file, tmp_path):
    path = found_in(file).save(tmp_path / "new" / "b.png", hide_scores=True)
    assert np.array_equal(read_image(path), found_in(file).draw(hide_scores=True))
    paths = Predictions([found_in(file), found_in(cv2.imread(file))]).save(tmp_path / "many")
    assert [one.name for one in paths] == ["000000_a.jpg", "000001_image.jpg"]
    assert all(one.is_file() for one in paths)
    with pytest.raises(UsageError, match=r"'\.xyz'"):
        found_in(file).save(tmp_path / "c.xyz")


def test_as_plain_values_and_as_a_coco_list(file):
    values = json.loads(found_in(file).to_json())
    assert values == found_in(file).to_dict()
    assert (values["file"], values["width"], values["height"]) == (file, 80, 40)
    assert values["boxes"][1] == [20.0, 5.0, 30.0, 25.0]
    first, second, _ = found_in().to_coco(7)
    assert first == {
        "image_id": 7,
        "category_id": 1,
        "bbox": [0.0, 5.0, 10.0, 20.0],
        "score": pytest.approx(0.9),
    }
    assert second["category_id"] == 2
    assert found_in().to_coco(7, [30, 31])[1]["category_id"] == 31
    both = Predictions([found_in(), found_in(count=1)]).to_coco()
    assert [one["image_id"] for one in both] == [1, 1, 1, 2]


def test_supervision_takes_them_over():
    pytest.importorskip("supervision", reason="pip install supervision")
    taken = found_in().to_supervision()
    assert np.array_equal(taken.xyxy, found_in().boxes)
    assert taken.class_id.tolist() == [0, 1, 0]
    assert taken.data["class_name"].tolist() == ["cat", "dog", "cat"]
    assert len(found_in()[:0].to_supervision()) == 0


def test_without_supervision_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UnavailableError) as error:
        found_in().to_supervision()
    assert error.value.hint == "pip install supervision"


def test_in_a_notebook_there_is_the_picture_and_a_table_of_escaped_names(file):
    shown = found_in(file)._repr_html_()
    assert shown.startswith('<img src="data:image/jpeg;base64,')
    assert "<td>cat</td><td>0.90</td><td>0, 5, 10, 25</td>" in shown
    names = ("<script>", "b", "c")
    boxes, scores, labels = (getattr(found_in(), key) for key in ("boxes", "scores", "labels"))
    bare = Detections(boxes, scores, labels, names)._repr_html_()
    assert "&lt;script&gt;" in bare
    assert "<script>" not in bare
    assert "5 more" in found_in(count=25)._repr_html_()
    assert "3 more images" in Predictions([found_in()] * 15)._repr_html_()
