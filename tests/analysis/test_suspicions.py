"""What makes the figures of a data set doubtful."""

import json

import cv2
import numpy as np
import pytest

from fldet.analysis.dataset.inspect import inspect_data
from fldet.analysis.dataset.suspicions import near_copies_in, suspicions
from fldet.data.formats.recognise import recognise


def content(*images):
    """A COCO file of images, each a list of the classes of its boxes."""
    names = ("cat", "dog", "owl")
    return {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(len(images))],
        "annotations": [
            {"image_id": i, "category_id": names.index(name)}
            for i, image in enumerate(images)
            for name in image
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }


MANY = [["cat", "dog"]] * 40


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({"train": MANY, "val": MANY}, []),
        (
            {"train": [*MANY, ["owl", "owl"]]},
            ["classes that train hardly shows: 'owl', on 1 image"],
        ),
        (
            {"train": [*MANY, *[["owl"]] * 4], "val": [*MANY, ["owl"]]},
            ["classes that train hardly shows: 'owl', on 4 images"],
        ),
        ({"train": MANY, "val": [["cat"]] * 40}, ["classes of train that val lacks: 'dog'"]),
        (
            {"train": [["cat"]] * 40, "test": [["dog", "cat"], *MANY, ["owl"]]},
            ["classes of test that train lacks: 'dog', 'owl'"],
        ),
        (
            {"train": MANY, "val": [["cat", "dog"]] * 6},
            ["val has 6 images: chance decides its figures"],
        ),
        ({"train": MANY, "test": [[]] * 3}, []),  # a test without boxes has no figures
    ],
)
def test_by_annotations_alone(splits, expected):
    assert suspicions({split: content(*images) for split, images in splits.items()}) == expected


def test_a_crowd_is_no_example_of_its_class():
    crowd = content(*MANY, *[["owl"]] * 9)
    for one in crowd["annotations"]:
        one["iscrowd"] = int(one["category_id"] == 2)
    assert suspicions({"train": crowd}) == []
    crowd["annotations"][-1]["iscrowd"] = 0
    assert suspicions({"train": crowd}) == ["classes that train hardly shows: 'owl', on 1 image"]


@pytest.fixture
def copied(tmp_path):
    """A COCO data set whose images are noise, but for near copies of two of them."""
    rng = np.random.default_rng(0)
    noise = [cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (90, 60)) for _ in range(6)]
    brighter = [cv2.convertScaleAbs(one, alpha=0.8, beta=20) for one in noise]
    splits = {"train": [*noise[:4], brighter[0]], "val": [noise[4], brighter[1], noise[5]]}
    (tmp_path / "annotations").mkdir()
    for split, images in splits.items():
        (tmp_path / split).mkdir()
        for i, image in enumerate(images):
            cv2.imwrite(str(tmp_path / split / f"{i}.png"), image)
        file = content(*[["cat"]] * len(images))
        for i, one in enumerate(file["images"]):
            one.update(width=90, height=60)
            file["annotations"][i].update(id=i, bbox=[5, 5, 20, 20], area=400, iscrowd=0)
        path = tmp_path / "annotations" / f"{split}.json"
        path.write_text(json.dumps(file))
    return tmp_path


def test_near_copies_in_a_split_and_between_two(copied):
    found = recognise(copied)
    contents = {split: found.read(split) for split in found.splits}
    assert near_copies_in(found, contents) == [
        "near copies in train: 1 image, as '4.png' of '0.png'",
        "near copies of images of train in val: 1 image, as '1.png' of '1.png'; figures are too "
        "good",
    ]
    said = inspect_data(copied, copies=True).notes
    assert set(near_copies_in(found, contents)) < set(said)
    assert not set(near_copies_in(found, contents)) & set(inspect_data(copied).notes)
