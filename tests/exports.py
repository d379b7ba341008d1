"""What tests of exported models share."""

import cv2
import numpy as np
import pytest


def needs_onnx():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install -r requirements/export.txt")


def write_noise(folder):
    """Writes six images, without even areas: there scores are equal, and NMS may keep either."""
    rng = np.random.default_rng(1)
    for number in range(6):
        image = rng.integers(0, 255, (64, 64 + 10 * (number % 2), 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder
