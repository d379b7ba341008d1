import io
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from fldet.image_files import decode, inspect_image, is_complete, missing_files

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8)


def encoded(kind, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


JPEG, PNG, WEBP = encoded("JPEG"), encoded("PNG"), encoded("WEBP")
# A segment whose content ends like a file: the thumbnail of a camera.
THUMBNAIL = b"\xff\xe1" + (2 + len(JPEG)).to_bytes(2, "big") + JPEG


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (JPEG, True),
        (encoded("JPEG", progressive=True), True),
        (JPEG[:-2], False),
        (JPEG[: len(JPEG) // 2], False),
        (JPEG + bytes(5000), True),  # a camera's trailer
        (JPEG[:2] + THUMBNAIL + JPEG[2:] + b"video", True),
        (JPEG[:2] + THUMBNAIL + JPEG[2:-200], False),  # the end in it is the thumbnail's
        (PNG, True),
        (PNG[:-12], False),
        (PNG[:200], False),
        (PNG + b"text behind", True),
        (WEBP, True),
        (WEBP[:-1], False),
        (b"", True),  # no JPEG, PNG or WebP: not for this function to say
        (b"\xff\xd8\xff", False),
    ],
)
def test_the_end_of_a_file_is_noticed(data, whole):
    assert is_complete(data) == whole


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (JPEG, (40, 20)),
        (encoded("JPEG", exif=exif(6)), (20, 40)),
        (encoded("JPEG", exif=exif(3)), (40, 20)),  # upside down: the size stays
        (encoded("JPEG", mode="CMYK"), (40, 20)),
        (encoded("PNG", mode="L"), (40, 20)),
        (encoded("PNG", mode="P"), (40, 20)),
        (encoded("PNG", mode="1"), (40, 20)),
        (encoded("PNG", mode="RGBA", exif=exif(6)), None),  # OpenCV's version decides
        (WEBP, (40, 20)),
        (encoded("WEBP", exif=exif(6)), None),
        (encoded("TIFF", exif=exif(6)), None),
        (encoded("BMP"), (40, 20)),
        (encoded("PPM"), (40, 20)),
    ],
)
def test_the_header_gives_the_size_that_decoding_gives(tmp_path, data, size):
    path = tmp_path / "größe ok.img"
    path.write_bytes(data)
    facts, decoded = inspect_image(str(path)), inspect_image(str(path), deep=True)
    height, width = decode(data).shape[:2]
    assert facts.fault == decoded.fault == ""
    assert (facts.width, facts.height) == (decoded.width, decoded.height) == (width, height)
    assert size is None or (width, height) == size


@pytest.mark.skipif(not hasattr(cv2, "imdecodeanimation"), reason="this OpenCV reads no GIF")
def test_gif_is_read(tmp_path):
    (tmp_path / "a.gif").write_bytes(encoded("GIF"))
    assert inspect_image(str(tmp_path / "a.gif")).fault == ""


@pytest.mark.parametrize(
    ("data", "fault", "words"),
    [
        (b"", "image cannot be read", "empty"),
        (b"hello" * 9, "image cannot be read", "looks like text"),
        (bytes(range(128, 200)), "image cannot be read", "starts with 80 81"),
        (JPEG[:300], "image truncated", "300 bytes"),
        (PNG[:20], "image truncated", "20 bytes"),
        (encoded("PDF"), "image cannot be read", "cannot decode"),
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_what_is_wrong_is_said(tmp_path, capfd, data, fault, words, deep):
    (tmp_path / "a").write_bytes(data)
    facts = inspect_image(str(tmp_path / "a"), deep)
    assert facts.fault == fault
    assert words in facts.detail
    assert capfd.readouterr() == ("", "")  # OpenCV's own lines go nowhere


def test_damage_in_the_middle_is_only_seen_by_decoding(tmp_path):
    data = encoded("JPEG", quality=95)
    data = data[: len(data) * 6 // 10] + data[len(data) * 8 // 10 :]
    (tmp_path / "a.jpg").write_bytes(data)
    assert inspect_image(str(tmp_path / "a.jpg")).fault == ""
    facts = inspect_image(str(tmp_path / "a.jpg"), deep=True)
    assert (facts.fault, facts.width) == ("image damaged", 40)
    assert "Corrupt JPEG data" in facts.detail


def test_a_folder_and_a_forbidden_file_are_no_images(tmp_path):
    assert inspect_image(str(tmp_path)).fault == "image cannot be read"
    assert inspect_image(str(tmp_path / "gone")).detail == "No such file or directory"


def test_missing_files_by_one_listing_of_each_folder(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    for name in ("a/1.jpg", "a/2.jpg", "3.jpg"):
        (tmp_path / name).touch()
    names = ("a/1.jpg", "a/2.jpg", "3.jpg", "a/4.jpg", "gone/5.jpg")
    listed, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
    missing = missing_files(tmp_path / name for name in names)
    assert missing == [str(tmp_path / "a/4.jpg"), str(tmp_path / "gone/5.jpg")]
    assert len(listed) == 3
