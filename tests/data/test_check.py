import io
import json
import logging
from contextlib import nullcontext

import pytest
from PIL import Image

from fldet.data.check import check_data
from fldet.data.coco import CocoDataset
from fldet.data.images import BrokenImages, LoadImage
from fldet.errors import BrokenImageError, DataError

GOOD = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 20}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 10]}],
    "categories": [{"id": 1, "name": "x"}],
}


def write(folder, **changes):
    """Writes a good file with a good image, but for ``changes``; returns its path."""
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (40, 20)).save(folder / "images" / "a.jpg")
    path = folder / "a.json"
    path.write_text(json.dumps({**GOOD, **changes}))
    return path


def with_(entry, **changes):
    return {**entry, **changes}


IMAGE, ANNOTATION, CATEGORY = (GOOD[key][0] for key in ("images", "annotations", "categories"))
OTHER = with_(ANNOTATION, id=2)


@pytest.mark.parametrize(
    ("changes", "kinds", "trains"),
    [
        ({}, set(), True),
        ({"categories": [CATEGORY, with_(CATEGORY, id=2)]}, {"category name given twice"}, False),
        ({"categories": [CATEGORY, with_(CATEGORY, name="y")]}, {"category id given twice"}, False),
        ({"categories": [{"id": 1}]}, {"category without name"}, False),
        ({"categories": [CATEGORY, {"name": "y"}]}, {"category without id"}, False),
        ({"categories": []}, {"unknown category"}, False),
        (
            {"categories": [with_(CATEGORY, id="1")]},
            {"category id that is no number", "unknown category"},
            False,
        ),
        ({"categories": [with_(CATEGORY, id=1.0)]}, set(), True),
        (
            {"categories": [with_(CATEGORY, id=True)]},
            {"category without id", "unknown category"},
            False,
        ),
        (
            {"categories": [with_(CATEGORY, id=2**64)]},
            {"category without id", "unknown category"},
            False,
        ),
        ({"categories": [with_(CATEGORY, name=" ")]}, {"category name that is empty"}, False),
        (
            {"categories": [CATEGORY, with_(CATEGORY, id=2, name="X")]},
            {"category names that differ in case or spaces only"},
            True,
        ),
        ({"categories": [with_(CATEGORY, name=7)]}, {"category without name"}, False),
        ({"images": [with_(IMAGE, id=None)]}, {"image without id", "unknown image"}, False),
        ({"images": [with_(IMAGE, id=[1])]}, {"image without id", "unknown image"}, False),
        ({"images": [IMAGE, IMAGE]}, {"image id given twice", "image listed twice"}, False),
        ({"images": [IMAGE, with_(IMAGE, id="1")]}, {"image listed twice"}, True),
        (
            {"images": [IMAGE, with_(IMAGE, id=1.0)]},
            {"image id given twice", "image listed twice"},
            False,
        ),
        ({"images": [with_(IMAGE, width=40.5)]}, {"impossible image size"}, False),
        ({"images": [with_(IMAGE, width=10**400)]}, {"impossible image size"}, False),
        ({"images": [with_(IMAGE, id=1.0, width=40.0)]}, set(), True),
        ({"images": [with_(IMAGE, width=0)]}, {"impossible image size"}, False),
        ({"images": [with_(IMAGE, height="20")]}, {"impossible image size"}, False),
        ({"images": [{"id": 1, "width": 40, "height": 20}]}, {"image without file_name"}, False),
        ({"images": [IMAGE, 3]}, {"entry that is no object"}, False),
        ({"images": {}}, {"missing list", "unknown image"}, False),
        (
            {"annotations": [ANNOTATION, ANNOTATION]},
            {"annotation id given twice", "annotation given twice"},
            True,
        ),
        ({"annotations": [ANNOTATION, with_(OTHER, image_id=9)]}, {"unknown image"}, True),
        ({"annotations": [ANNOTATION, with_(OTHER, image_id="1")]}, {"unknown image"}, True),
        ({"annotations": [with_(ANNOTATION, image_id="1")]}, {"unknown image"}, False),
        ({"annotations": [with_(ANNOTATION, category_id="1")]}, {"unknown category"}, False),
        ({"annotations": [with_(ANNOTATION, category_id=1.0)]}, set(), True),
        (
            {"annotations": [with_(ANNOTATION, iscrowd=2)]},
            {"iscrowd that is neither 0 nor 1"},
            False,
        ),
        (
            {"annotations": [with_(ANNOTATION, ignore=[])]},
            {"ignore that is neither 0 nor 1"},
            False,
        ),
        ({"annotations": [with_(ANNOTATION, area="9")]}, {"area that is no size"}, True),
        ({"annotations": [with_(ANNOTATION, area=-9)]}, {"area that is no size"}, True),
        (
            {"annotations": [with_(ANNOTATION, bbox=[1, 2, True, 3])]},
            {"no box of four numbers"},
            False,
        ),
        ({"annotations": [with_(ANNOTATION, image_id={})]}, {"unknown image"}, False),
        ({"annotations": [with_(ANNOTATION, category_id=[])]}, {"unknown category"}, False),
        ({"annotations": [{"image_id": 1}]}, {"no box of four numbers", "unknown category"}, False),
        ({"annotations": [with_(ANNOTATION, bbox=[1, 2, 3])]}, {"no box of four numbers"}, False),
        ({"annotations": [with_(ANNOTATION, bbox=list("12"))]}, {"no box of four numbers"}, False),
        (
            {"annotations": [with_(ANNOTATION, bbox=["1", 2, 3, 4])]},
            {"no box of four numbers"},
            False,
        ),
        (
            {"annotations": [with_(ANNOTATION, bbox=[1, 2, 10**400, 3])]},
            {"no box of four numbers"},
            False,
        ),
        (
            {"annotations": [ANNOTATION, with_(OTHER, bbox=[1, 2, 1e999, 3])]},
            {"box not finite"},
            True,
        ),
        (
            {"annotations": [ANNOTATION, with_(OTHER, bbox=[1, 2, 1e300, 3])]},
            {"box not finite"},
            True,
        ),
        (
            {"annotations": [ANNOTATION, with_(OTHER, bbox=[1, 2, 0.5, 9])]},
            {"box thinner than a pixel"},
            True,
        ),
        (
            {"annotations": [with_(ANNOTATION, bbox=[0.1, 0.2, 0.5, 0.9])]},
            {"box thinner than a pixel"},
            False,
        ),
    ],
)
def test_entries(tmp_path, changes, kinds, trains):
    """The check lists it, and training stops with a DataError or leaves it out."""
    path = write(tmp_path, **changes)
    found = check_data(path, tmp_path / "images")
    assert set(found.counts) == kinds
    with nullcontext() if trains else pytest.raises(DataError, match=r"a\.json"):
        CocoDataset(
            data_root=str(tmp_path), ann_file="a.json", data_prefix={"img": "images"}, pipeline=[]
        )


def test_a_rotated_file_with_the_stored_size_is_explained(tmp_path):
    path = write(tmp_path, images=[with_(IMAGE, width=20, height=40)])
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.new("RGB", (20, 40)).save(tmp_path / "images" / "a.jpg", exif=tags)
    found = check_data(path, tmp_path / "images")
    assert found.images_turned == 1
    [problem] = found.problems
    assert problem.detail == (
        "annotation 20 x 40, file 40 x 20 when turned upright by its EXIF data, as training does"
    )


def test_without_sizes_boxes_are_compared_with_the_file(tmp_path):
    entry = {"id": 1, "file_name": "a.jpg"}
    box = with_(ANNOTATION, bbox=[100, 2, 3, 4])
    found = check_data(write(tmp_path, images=[entry], annotations=[box]), tmp_path / "images")
    assert found.counts["box outside the image"] == 1
    unseen = check_data(tmp_path / "a.json")
    assert (unseen.images_read, "box outside the image" in unseen.counts) == (0, False)


def test_processes_find_what_one_process_finds(bad_inputs):
    path, images = bad_inputs / "annotations" / "all_images.json", bad_inputs / "images"
    assert check_data(path, images, deep=True, workers=2) == check_data(path, images, deep=True)


def test_a_truncated_image_is_broken_for_any_decoder(tmp_path):
    buffer = io.BytesIO()
    Image.effect_noise((40, 20), 50).save(buffer, "JPEG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue()[:-2])
    for options in ({}, {"imdecode_backend": "pillow"}, {"color_type": "unchanged"}):
        with pytest.raises(BrokenImageError, match=r"a\.jpg: truncated after"):
            LoadImage(**options)({"img_path": str(tmp_path / "a.jpg")})


def test_a_decoder_that_raises_and_a_missing_file_are_named(tmp_path):
    (tmp_path / "a.jpg").write_text("text")
    with pytest.raises(BrokenImageError, match=r"a\.jpg: cannot be decoded: cannot identify"):
        LoadImage(imdecode_backend="pillow")({"img_path": str(tmp_path / "a.jpg")})
    with pytest.raises(BrokenImageError, match=r"gone\.jpg: No such file"):
        LoadImage(ignore_empty=True)({"img_path": str(tmp_path / "gone.jpg")})


@pytest.mark.parametrize("shared", [False, True])
def test_broken_images_are_counted_once_up_to_a_number(tmp_path, shared, caplog):
    file = tmp_path / "new" / "broken.txt" if shared else None
    accounts = [BrokenImages(2, file) for _ in range(2 if shared else 1)]
    with caplog.at_level(logging.WARNING, "fldet"):
        for name in ("a", "b", "a", "b"):
            for account in accounts:
                account.add(BrokenImageError(f"{name}:\nempty"))
    assert [account.lines() for account in accounts] == [["a: empty", "b: empty"]] * len(accounts)
    assert len(caplog.messages) == (0 if shared else 2)  # a loader process must not log
    with pytest.raises(DataError, match=r"broken training images: 3; the last: a: .*; c: gone"):
        accounts[-1].add(BrokenImageError("c: gone"))


def test_a_data_set_of_broken_images_ends(tmp_path):
    path = write(tmp_path, images=[with_(IMAGE, id=i, file_name=f"{i}.jpg") for i in (1, 2)])
    data = CocoDataset(
        ann_file=str(path),
        data_prefix={"img": str(tmp_path / "images")},
        pipeline=[LoadImage()],
    )
    with pytest.raises(DataError, match=r"all 2 images of .* are broken"):
        data[1]
    data.broken.limit = 0
    with pytest.raises(DataError, match=r"2 of 2 image files of .* are missing: .*1\.jpg, "):
        data.check_files()
