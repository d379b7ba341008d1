"""Images to predict on."""

import shutil

import pytest


@pytest.fixture
def photos(tiny_coco, bad_inputs, tmp_path):
    """Six images, one of them in a folder below, and two broken files."""
    folder = tmp_path / "photos"
    shutil.copytree(tiny_coco / "val2017", folder)
    (folder / "sub").mkdir()
    shutil.move(folder / "5.png", folder / "sub" / "5.png")
    for name in ("zero_bytes.jpg", "text_not_image.jpg"):
        shutil.copy(bad_inputs / "images" / name, folder)
    return folder
