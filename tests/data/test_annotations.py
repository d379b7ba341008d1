import json

import numpy as np
import pytest

from fldet.data.annotations import (
    MOST_CATEGORIES,
    box_of,
    category_ids,
    flag_of,
    has_image,
    id_of,
    image_path,
    name_fault,
    read_annotations,
    read_class_names,
)
from fldet.errors import DataError


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        *((no, False) for no in (None, 0, 0.0, -0.0, False, "0", " 0 ", "0.0", "", "false", "No")),
        *((yes, True) for yes in (1, 1.0, True, "1", "1.0", "TRUE", "yes", np.int64(1))),
        *((odd, None) for odd in (2, -1, 0.5, float("nan"), 10**400, "2", "maybe", [], [1], {})),
    ],
)
def test_flags_mean_what_they_say(value, meaning):
    """A text "0" is true to Python, and to COCO's own tools."""
    assert flag_of(value) is meaning


@pytest.mark.parametrize(
    ("value", "found"),
    [
        *((one, 1) for one in (1, 1.0, np.int64(1), np.float64(1))),
        *((text, text) for text in ("1", "", "a/b")),
        *((odd, None) for odd in (None, True, 1.5, float("nan"), float("inf"), 2**63, 1e300, [1])),
    ],
)
def test_ids_are_whole_numbers_or_texts(value, found):
    assert id_of(value) == found
    assert type(id_of(value)) is type(found)


@pytest.mark.parametrize(
    "box", [[1, 2, 3], ["1", 2, 3, 4], [1, 2, True, 4], "1234", None, [[1]] * 4]
)
def test_a_box_is_four_numbers(box):
    assert box_of({"bbox": box}) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *(
            (good, "")
            for good in ("x", "größe", "猫", "a b", "{{$HOME}}", "it's", "👩‍🔬", "x" * 200)
        ),
        *((bad, "cannot be shown") for bad in ("\ud800", "a\x1b[31m", "a\n", "\x07", "a\u202eb")),
        *((bad, "is empty") for bad in ("", " ", "\u3000")),
        ("x" * 10**6, "has 1000000 characters"),
        (7, "is no text"),
        (None, "is no text"),
    ],
)
def test_names_of_classes_can_be_shown(name, fault):
    assert name_fault(name).endswith(fault)
    assert bool(name_fault(name)) == bool(fault)
    if fault:
        with pytest.raises(DataError, match=r"^a: the name of a category") as error:
            category_ids([{"id": 1, "name": name}], "a")
        assert str(error.value).isprintable() or "\n" in str(error.value)
        assert len(str(error.value)) < 500
        str(error.value).encode()


def test_more_categories_than_a_model_can_have_are_refused():
    categories = [{"id": i, "name": str(i)} for i in range(MOST_CATEGORIES + 1)]
    assert len(category_ids(categories[1:], "a")) == MOST_CATEGORIES
    with pytest.raises(DataError, match="20001 categories"):
        category_ids(categories, "a")


@pytest.mark.parametrize("name", [r"day1\a.jpg", "day1/a.jpg", r".\day1\a.jpg", r"day1\\a.jpg"])
def test_backslashes_stand_between_folders(tmp_path, name):
    (tmp_path / "day1").mkdir()
    (tmp_path / "day1" / "a.jpg").touch()
    assert image_path(tmp_path, name, "") == tmp_path / "day1" / "a.jpg"
    assert has_image(tmp_path, name)


def test_a_file_that_has_backslashes_in_its_name_goes_first(tmp_path):
    """As archives of Windows are unpacked by some tools."""
    (tmp_path / r"day1\a.jpg").touch()
    assert image_path(tmp_path, r"day1\a.jpg", "") == tmp_path / r"day1\a.jpg"


@pytest.mark.parametrize(
    "name",
    [r"..\a.jpg", r"a\..\..\b.jpg", r"C:\a.jpg", r"\\host\a.jpg", "/a", "a" * 5000, "\ud800"],
)
def test_names_that_lead_elsewhere_are_refused_on_every_system(tmp_path, name):
    with pytest.raises(DataError, match="file_name that"):
        image_path(tmp_path, name, "")
    assert not has_image(tmp_path, name)


def test_class_names_are_those_that_the_whole_file_has(tmp_path):
    """Another list that is called so does not stand in for them, before or behind."""
    one, other = [{"id": 1, "name": "right"}], [{"id": 1, "name": "wrong"}]
    path = tmp_path / "a.json"
    image = {"id": 1, "file_name": "a.jpg"}
    for content in (
        {"info": {"categories": other}, "images": [image], "categories": one},
        {"categories": one, "images": [{**image, "categories": other}]},
        {"images": [{"id": i, "categories": other} for i in range(50)], "categories": one},
    ):
        path.write_text(json.dumps(content))
        assert read_class_names(path) == ("right",)


def test_a_file_of_test_images_has_no_annotations(tmp_path):
    path = tmp_path / "image_info_test.json"
    path.write_text(json.dumps({"images": [], "categories": [{"id": 1, "name": "x"}]}))
    assert read_annotations(path)["annotations"] == []
    path.write_text(json.dumps({"images": [], "annotations": None, "categories": []}))
    with pytest.raises(DataError, match="has no list 'annotations'"):
        read_annotations(path)
