"""Near copies of real pictures are found, and pictures that differ are not."""

from itertools import islice

import cv2
import numpy as np
import pytest

from fldet.data.holdout.copies import group_copies, read_thumbnails, thumbnails


def resized(image):
    return cv2.resize(image, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)


def recompressed(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 15])[1], 1)


def cropped(image):
    """5 % off the left and 2 % off the upper side."""
    height, width = image.shape[:2]
    return image[round(0.02 * height) :, round(0.05 * width) :]


def trimmed(image):
    """4 % off all sides."""
    y, x = (round(0.04 * side) for side in image.shape[:2])
    return image[y:-y, x:-x]


def brightened(image):
    return cv2.convertScaleAbs(image, alpha=1.15, beta=25)


def all_of_it(image):
    return recompressed(resized(brightened(trimmed(image))))


CHANGES = (resized, recompressed, cropped, trimmed, brightened, all_of_it)


def pictures(folder):
    """Forty; two of the blood cells are near copies themselves."""
    files = (file for file in sorted(folder.rglob("*.jpg")) if file.stem != "BloodImage_00038")
    return list(islice(files, 40))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["bccd", "coco_mini"])
def test_changed_pictures_are_near_copies_of_their_own_only(name, change, request, tmp_path):
    files = pictures(request.getfixturevalue(name))
    copies = [tmp_path / f"{index}.png" for index in range(len(files))]
    for file, copy in zip(files, copies, strict=True):
        cv2.imwrite(str(copy), change(cv2.imread(str(file))))
    groups = group_copies(read_thumbnails([*files, *copies]))
    assert groups == [*range(len(files))] * 2


def test_copies_of_copies_are_of_one_group_whatever_the_order():
    rng = np.random.default_rng(0)
    ends = [cv2.resize(rng.integers(0, 255, (8, 8), np.uint8), (64, 64)) for _ in range(2)]
    chain = [np.uint8(ends[0] * (1 - t) + ends[1] * t) for t in np.linspace(0, 1, 25)]
    found = [thumbnails(image) for image in chain]
    assert group_copies([found[0], found[-1]]) == [0, 1]
    assert group_copies(found) == [0] * 25
    assert group_copies(found[::-1]) == [0] * 25


def test_more_images_than_are_compared_at_once():
    rng = np.random.default_rng(1)
    found = [thumbnails(rng.integers(0, 255, (16, 16), np.uint8)) for _ in range(1500)]
    assert group_copies([*found, *found]) == [*range(1500)] * 2


def test_images_of_one_colour_unreadable_ones_and_names_of_roboflow(tmp_path):
    for index, level in enumerate((10, 200)):
        cv2.imwrite(str(tmp_path / f"flat{index}.png"), np.full((30, 40), level, np.uint8))
    (tmp_path / "no.png").write_text("no image")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "whole.jpg").write_bytes(data)
    names = ["flat0.png", "flat1.png", "no.png", "cut.jpg", "missing.jpg", "whole.jpg"]
    found = read_thumbnails([tmp_path / name for name in names])
    assert [one is None for one in found] == [False, False, True, True, True, False]
    assert group_copies(found) == [0, 0, 2, 3, 4, 5]
    assert group_copies([None] * 3, ["a_jpg.rf.1.jpg", "b_jpg.rf.1.jpg", "a_jpg.rf.2.jpg"]) == [
        *(0, 1, 0)
    ]
