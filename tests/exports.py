"""What tests of exported models share."""

import hashlib
import shutil
from pprint import pformat

import cv2
import numpy as np
import pytest
import torch


def export_once(folder):
    """Returns what writes ONNX files as fldet does; equal networks are exported once, and copied.

    The exporter of torch takes half a minute for a tiny network.

    Args:
        folder: of the files that are copied, which test processes may share.
    """
    from fldet.files import atomic_path
    from fldet.inference import export  # after fldet.engine, which conftest imports first

    write = export._write_onnx

    def write_or_copy(network, description, path, opset):
        described = pformat(description)  # in the order of the keys
        key = hashlib.sha256(f"{torch.__version__}{network}{described}{opset}".encode())
        for name, value in network.state_dict().items():
            key.update(name.encode() + value.numpy().tobytes())
        kept = folder / f"{key.hexdigest()}.onnx"
        if not kept.exists():
            with atomic_path(kept) as temporary:
                write(network, description, temporary, opset)
        shutil.copyfile(kept, path)

    return write_or_copy


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
