"""What people pass as images, of which a detector makes the same."""

import re

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fldet.errors import DataError
from fldet.inference.detections import Detections, Predictions
from fldet.inference.detector import Detector
from fldet.inference.images import given_images, is_one


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(3):
        pixels = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), pixels)
    return sorted(folder.glob("*.png"))


def bgr(given):
    return cv2.imread(given.content) if isinstance(given.content, str) else given.content


def of_kind(file, kind):
    pixels = cv2.imread(str(file))
    rgb = np.ascontiguousarray(pixels[:, :, ::-1])
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    return {
        "path": file,
        "text": str(file),
        "array": pixels,
        "pillow": Image.fromarray(rgb),
        "tensor": tensor,
        "floats": tensor / 255,
        "half": (tensor.double() / 255).requires_grad_(),
    }[kind]


@pytest.mark.parametrize("kind", ["path", "text", "array", "pillow", "tensor", "floats", "half"])
def test_every_kind_is_the_same_image_in_bgr_order(files, kind):
    image = of_kind(files[0], kind)
    assert is_one(image)
    (given,) = given_images(image)
    assert np.array_equal(bgr(given), cv2.imread(str(files[0])))
    two = list(given_images([image, of_kind(files[1], kind)]))
    assert np.array_equal(bgr(two[1]), cv2.imread(str(files[1])))
    assert not is_one([image])


def test_folders_patterns_and_batches_are_several(files):
    folder = files[0].parent
    for several in (folder, str(folder), f"{folder}/*.png", iter(files), tuple(files)):
        assert not is_one(several)
        assert [given.content for given in given_images(several)] == list(map(str, files))
    arrays = np.stack([cv2.imread(str(file)) for file in files])
    tensors = torch.from_numpy(arrays[..., ::-1].copy()).permute(0, 3, 1, 2)
    for batch in (arrays, tensors):
        assert np.array_equal(np.stack([bgr(given) for given in given_images(batch)]), arrays)
    assert list(given_images([])) == []


def test_frames_of_a_video_are_not_kept(tmp_path, files):
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (60, 40))
    for _ in range(3):
        writer.write(cv2.imread(str(files[0])))
    writer.release()
    frames = list(given_images(path))
    assert [(one.content.shape, one.kept) for one in frames] == [((40, 60, 3), None)] * 3


def test_a_turned_pillow_image_is_upright(bad_inputs):
    path = bad_inputs / "images" / "exif_orientation_6.jpg"
    (given,) = given_images(Image.open(path))
    assert given.content.shape == (480, 640, 3)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(1, 4, 4), r"shape \(1, 4, 4\)"),
        (torch.zeros(4, 4, 3), r"shape \(4, 4, 3\)"),
        (torch.full((3, 4, 4), 7.0), "floats from 0 to 1"),
        (torch.full((3, 4, 4), torch.nan), "floats from 0 to 1"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "int64"),
        (7, "a int is no image"),
        ([["a.jpg"]], "a list in a list"),
    ],
)
def test_what_is_no_image_is_refused(image, words):
    with pytest.raises(DataError) as error:
        list(given_images(image))
    assert re.search(words, str(error.value))


def test_a_detector_is_called_with_one_image_or_with_several(tiny_run, files):
    detector = Detector.load(tiny_run[1], device="cpu")
    one = detector(files[0], score_thr=0.05)
    assert isinstance(one, Detections)
    assert (one.image, one.size, one.classes) == (str(files[0]), (60, 40), ("circle", "square"))
    several = detector(files[0].parent, score_thr=0.05, batch_size=1)
    assert isinstance(several, Predictions)
    assert [found.image for found in several] == list(map(str, files))
    pillow = detector(Image.open(files[0]), score_thr=0.05)
    assert np.array_equal(one.boxes, pillow.boxes)
    assert pillow.draw().shape == (40, 60, 3)
    assert isinstance(detector([files[0]]), Predictions)
    assert repr(detector).startswith("<Detector of ")
    assert repr(detector).endswith("2 classes (circle, square), on cpu>")
