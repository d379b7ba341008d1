"""Every file of bad_inputs: what it is, what ``check_data`` says, what training does with it."""

import json

import numpy as np
import pytest

from fldet.data.check import check_data
from fldet.data.coco import CocoDataset
from fldet.data.images import LoadImage
from fldet.errors import BrokenImageError, DataError

PIPELINE = [LoadImage()]
FINE, SKIPPED = "read", "left out"

# name: (width, height) that training sees, what it does, words of the reason
IMAGES = {
    "ok_1.jpg": ((640, 480), FINE, ""),
    "ok_2.jpg": ((640, 480), FINE, ""),
    "truncated.jpg": ((640, 480), SKIPPED, "truncated after 8316 bytes"),
    "zero_bytes.jpg": ((640, 480), SKIPPED, "the file is empty"),
    "text_not_image.jpg": ((640, 480), SKIPPED, "not an image that can be decoded"),
    "grayscale.png": ((240, 180), FINE, ""),
    "rgba.png": ((240, 180), FINE, ""),
    "gray_16bit.png": ((240, 180), FINE, ""),
    "cmyk.jpg": ((320, 240), FINE, ""),
    "exif_orientation_6.jpg": ((640, 480), FINE, ""),  # upright, as its annotation says
    "one_pixel.png": ((1, 1), FINE, ""),
    "panorama_3000x40.jpg": ((3000, 40), FINE, ""),
    "blut_größe_血球_01.jpg": ((640, 480), FINE, ""),
    "name with spaces.jpg": ((640, 480), FINE, ""),
}

# name: kinds of problems that the check lists, with their number; what the start of a training says
# (None: nothing); words of it
ERROR, WARNING = "error", "warning"
ANNOTATIONS = {
    "ok": ({}, None, ""),
    "all_images": ({"image cannot be read": 2, "image truncated": 1}, None, ""),
    "not_json": ({"annotation file unreadable": 1}, ERROR, "is not JSON: .* at line 263"),
    "no_categories_key": ({"missing list": 1}, ERROR, "has no list 'categories'"),
    "unknown_category_id": ({"unknown category": 1}, WARNING, "unknown category: 1"),
    "bbox_negative_width": ({"box of negative size": 1}, WARNING, "box of negative size: 1"),
    "bbox_outside_image": ({"box outside the image": 1}, WARNING, "box outside the image: 1"),
    "bbox_partly_outside_image": ({"box partly outside the image": 1}, None, ""),
    "bbox_zero_area": ({"box of zero size": 1}, WARNING, "box of zero size: 1"),
    "bbox_nan": ({"box not finite": 1}, WARNING, "box not finite: 1"),
    "duplicate_image_ids": (
        {"unknown image": 18, "image id given twice": 1},
        ERROR,
        "two images have the id 1",
    ),
    "image_without_annotations": ({}, None, ""),
    "no_annotations_at_all": ({}, None, ""),
    "image_file_missing": ({"image file missing": 1}, WARNING, "does_not_exist.jpg"),
    "unicode_file_name": ({}, None, ""),
    "wrong_image_size": (
        {
            "box partly outside the image": 8,
            "box outside the image": 7,
            "image size differs from the annotation": 1,
        },
        WARNING,
        "box outside the image: 7",
    ),
    "no_area_no_iscrowd": ({}, None, ""),
    "no_width_height": (
        {"image without width": 2, "image without height": 2},
        ERROR,
        "image 1 has no 'width'",
    ),
}


def dataset(root, name, **options):
    return CocoDataset(
        data_root=str(root),
        ann_file=f"annotations/{name}.json",
        data_prefix={"img": "images"},
        pipeline=PIPELINE,
        **options,
    )


def test_the_tables_have_every_file(bad_inputs):
    assert {path.name for path in (bad_inputs / "images").iterdir()} == set(IMAGES)
    assert {path.stem for path in (bad_inputs / "annotations").iterdir()} == set(ANNOTATIONS)


@pytest.mark.parametrize("name", IMAGES)
def test_images(bad_inputs, name, caplog):
    """One image is read or left out by name, and no other image is lost."""
    data = dataset(bad_inputs, "all_images")
    index = next(i for i in range(14) if data.get_data_info(i)["img_path"].endswith(name))
    size, does, reason = IMAGES[name]
    with caplog.at_level("WARNING", "fldet"):
        sample = data[index]
    if does == FINE:
        assert (sample["img"].shape, sample["img"].dtype) == ((size[1], size[0], 3), np.uint8)
        assert sample["img_path"].endswith(name)
        assert caplog.messages == []
        return
    assert not sample["img_path"].endswith(name)
    message = f"broken image left out: {bad_inputs}/images/{name}: {reason}"
    assert caplog.messages[0] == message
    again = dataset(bad_inputs, "all_images", test_mode=True)
    with pytest.raises(BrokenImageError, match=f"{name}: {reason}"):
        again[index]


def test_an_image_is_read_as_it_looks(bad_inputs):
    """16 bits are scaled, not cut; a turned image is upright; CMYK is no negative."""
    data = dataset(bad_inputs, "all_images", test_mode=True)
    by_name = {
        data.get_data_info(i)["img_path"].split("/")[-1]: i
        for i in range(14)
        if IMAGES[data.get_data_info(i)["img_path"].split("/")[-1]][1] == FINE
    }
    images = {name: data[i]["img"].astype(float) for name, i in by_name.items()}
    assert np.abs(images["exif_orientation_6.jpg"] - images["ok_1.jpg"]).mean() < 5
    for name in ("gray_16bit.png", "grayscale.png"):
        assert (images[name] == images[name][..., :1]).all()
        assert 50 < images[name].mean() < 250
    assert 50 < images["cmyk.jpg"].mean() < 250


def test_pixels_as_they_are_stored_where_the_config_says_so(bad_inputs):
    path = str(bad_inputs / "images" / "exif_orientation_6.jpg")
    stored = LoadImage(color_type="color_ignore_orientation")
    assert stored({"img_path": path, "width": 480, "height": 640})["img"].shape == (640, 480, 3)
    with pytest.raises(BrokenImageError, match="has 640 x 480 pixels, its annotation says 480"):
        LoadImage()({"img_path": path, "width": 480, "height": 640})


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_annotations(bad_inputs, name, caplog):
    counts, does, words = ANNOTATIONS[name]
    found = check_data(bad_inputs / "annotations" / f"{name}.json", bad_inputs / "images")
    assert found.counts == counts
    assert sum(counts.values()) == len(found.problems)
    with caplog.at_level("WARNING", "fldet"):
        if does == ERROR:
            with pytest.raises(DataError, match=words):
                dataset(bad_inputs, name).check_files()
            return
        data = dataset(bad_inputs, name)
        data.check_files()
    assert len(data) == found.images
    assert len(caplog.messages) == (does == WARNING)
    assert words in "".join(caplog.messages)


def test_a_wrong_size_is_a_broken_image(bad_inputs):
    """Boxes in other pixels than the image's would teach nonsense."""
    data = dataset(bad_inputs, "wrong_image_size", test_mode=True)
    with pytest.raises(BrokenImageError, match="has 640 x 480 pixels, its annotation says 320"):
        data[1]


@pytest.mark.parametrize("name", ["../ok_1.jpg", "/etc/hosts", "a/../../ok_1.jpg", "", "a\0b", 7])
def test_a_file_name_stays_below_the_folder_of_images(bad_inputs, tmp_path, name):
    content = json.loads((bad_inputs / "annotations" / "ok.json").read_text())
    content["images"][1]["file_name"] = name
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"a\.json: image 2: file_name that"):
        dataset(tmp_path, "a")
    [problem] = check_data(path, bad_inputs / "images").problems
    assert problem.kind.startswith("file_name that")
    assert (problem.entry, problem.id, problem.field) == ("images[1]", 2, "file_name")
