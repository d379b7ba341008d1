import io
import os
import re
import socket
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, features

import fldet
from fldet.data.image_files import (
    MOST_PIXELS,
    Header,
    decode,
    image_size,
    inspect_image,
    is_complete,
    missing_files,
)
from fldet.data.images import LoadImage
from fldet.errors import BrokenImageError, DataError
from fldet.inference.sources import is_image
from fldet.pictures.boxes import read_image

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


@pytest.mark.skipif(os.name != "posix", reason="names that are no text, which POSIX has")
@pytest.mark.parametrize(
    "name",
    [b"d\xff.jpg", b"\xff", b"\xed\xa0\x80.png", "\u7bb1\U0001f600.jpg".encode(), b"\x1b\n.jpg"],
)
@pytest.mark.parametrize("data", [JPEG, PNG, b"junk"], ids=["jpeg", "png", "junk"])
def test_a_name_of_any_bytes(tmp_path, name, data):
    """OpenCV ended the process at half a character."""
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(data)
    for facts in (inspect_image(str(path)), inspect_image(str(path), deep=True)):
        assert (facts.width, bool(facts.fault)) == ((0, True) if data == b"junk" else (40, False))
    if data == b"junk":
        with pytest.raises(DataError):
            read_image(path)
    else:
        assert image_size(path) == (40, 20)
        assert read_image(path).shape == (20, 40, 3)
        assert LoadImage()({"img_path": str(path)})["img_shape"] == (20, 40)
        assert is_image(str(path)) is True


def test_names_go_to_opencv_in_one_place():
    """It ends the process where a name has half a character."""
    given = re.compile(r"(imread|haveImageReader|VideoCapture|imcount|VideoWriter)\w*\((?!\))")
    for file in Path(fldet.__file__).parent.rglob("*.py"):
        for line in file.read_text().splitlines():
            assert not given.search(line) or "(for_opencv(" in line, f"{file}: {line}"


def test_a_folder_and_a_forbidden_file_are_no_images(tmp_path):
    assert inspect_image(str(tmp_path)).fault == "image cannot be read"
    assert inspect_image(str(tmp_path / "gone")).detail == "No such file or directory"


def special_file(kind, path):
    """Makes something at a path that is no regular file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(os.path.relpath(path))
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "device"])
def test_what_is_no_regular_file_is_not_opened(tmp_path, kind, monkeypatch):
    """A pipe would be waited for, a device never ends."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.jpg"
    special_file(kind, path)
    assert inspect_image(str(path)).detail.startswith("it is a ")
    with pytest.raises(BrokenImageError, match=r"a\.jpg: it is a "):
        LoadImage()({"img_path": str(path)})
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"a\.jpg"):
            read(path)


TURNABLE = ["JPEG", "PNG", "WEBP", "TIFF", *(["AVIF"] if features.check("avif") else [])]


@pytest.mark.parametrize("kind", TURNABLE)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_read_upright_everywhere(tmp_path, kind, orientation):
    quarters = np.zeros((20, 40, 3), np.uint8)
    quarters[:10, :20], quarters[:10, 20:], quarters[10:, :20] = 250, 80, 160
    buffer = io.BytesIO()
    Image.fromarray(quarters).save(buffer, kind, exif=exif(orientation))
    data, path = buffer.getvalue(), tmp_path / "a.img"
    path.write_bytes(data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"), int)
    height, width = expected.shape[:2]
    facts = inspect_image(str(path))
    assert (facts.fault, facts.width, facts.height) == ("", width, height)
    assert facts.turned == (orientation >= 5)
    readers = (
        decode(data),
        read_image(path),
        LoadImage()({"img_path": str(path), "width": width, "height": height})["img"],
        LoadImage(imdecode_backend="pillow")({"img_path": str(path)})["img"],
    )
    for pixels in readers:
        assert np.abs(pixels.astype(int) - expected).max() < 60
    stored = LoadImage(color_type="color_ignore_orientation")({"img_path": str(path)})["img"]
    assert kind == "TIFF" or stored.shape == (20, 40, 3)


def test_orientation_behind_the_pixels_of_a_png(tmp_path):
    tags = exif(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = b"eXIf" + tags
    late = len(tags).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    path = tmp_path / "a.png"
    path.write_bytes(PNG[:-12] + late + PNG[-12:])
    assert decode(path.read_bytes()).shape == (40, 20, 3)
    facts = inspect_image(str(path))
    assert (facts.width, facts.height, facts.turned) == (20, 40, True)


@pytest.mark.parametrize(
    ("kind", "shares"), [("HDR", 4), ("AVIF", 4), ("WEBP", 1), ("", 1)], ids=str
)
def test_formats_whose_decoders_need_more_memory_may_have_fewer_pixels(kind, shares):
    most = MOST_PIXELS // shares
    assert Header(most, 1, kind).fault == ""
    assert "more than" in Header(most + 1, 1, kind).fault


def test_a_radiance_image_is_bounded_by_its_header(tmp_path):
    path = tmp_path / "a.hdr"
    pixels = bytes([128, 128, 128, 129]) * 9
    path.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 3 +X 3\n" + pixels)
    assert decode(path.read_bytes()).shape == (3, 3, 3)
    path.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 9000 +X 9000\n" + pixels)
    assert decode(path.read_bytes()) is None
    assert "more than" in inspect_image(str(path)).detail


def header_only(kind):
    """Returns a small file whose header says 60,000 x 60,000 pixels."""
    big, small = (60_000).to_bytes(4, "big"), (60_000).to_bytes(2, "big")
    if kind == "png":
        return PNG[:16] + big + big + PNG[24:]
    if kind == "jpeg":
        place = JPEG.index(b"\xff\xc0") + 5
        return JPEG[:place] + small + small + JPEG[place + 4 :]
    data, little = encoded("BMP"), (60_000).to_bytes(4, "little")
    return data[:18] + little + little + data[26:]


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp"])
@pytest.mark.parametrize("deep", [False, True])
def test_an_image_that_would_fill_the_memory_is_not_decoded(tmp_path, monkeypatch, kind, deep):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(header_only(kind))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    facts = inspect_image(str(path), deep)
    assert (facts.fault, facts.detail) == ("image too large", "it has more than 178956970 pixels")
    with pytest.raises(BrokenImageError, match="it has more than 178956970"):
        LoadImage()({"img_path": str(path)})
    with pytest.raises(DataError, match="it has more than 178956970"):
        read_image(path)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "JPEG", "GIF"])
def test_the_check_decodes_nothing_unless_asked(tmp_path, monkeypatch, kind):
    path = tmp_path / "a"
    path.write_bytes(encoded(kind))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    if kind != "GIF" or cv2.haveImageReader(str(path)):
        assert inspect_image(str(path)).width == 40


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
