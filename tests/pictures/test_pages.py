"""What all pages have in common."""

import base64

import cv2
import numpy as np

from fldet.pictures.pages import as_jpeg, data_uri


def test_images_are_small_and_keep_their_shape():
    noise = np.random.default_rng(0).integers(0, 256, (1200, 800, 3), np.uint8)
    data = as_jpeg(noise, 480, 40_000)
    assert len(data) <= 40_000
    assert cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape == (480, 320, 3)
    small = cv2.imdecode(np.frombuffer(as_jpeg(noise[:10, :20], 480, 40_000), np.uint8), 1)
    assert small.shape == (10, 20, 3)
    kind, _, text = data_uri(data).partition(",")
    assert kind == "data:image/jpeg;base64"
    assert base64.b64decode(text) == data
