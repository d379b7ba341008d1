import io
import os

import cv2
import numpy as np
import pytest

from fldet.engine.sources import check_source, find_items
from fldet.errors import DataError, UsageError


@pytest.fixture
def tree(tmp_path):
    for name in ("b.JPG", "a.png", "note.txt", "sub/c.jpg", "sub/deep/d.tif", "Z/a.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.symlink(tmp_path, tmp_path / "sub" / "loop")
    return tmp_path


def files(source, **options):
    return [item.file for item in find_items(str(source), **options)]


def test_a_folder_is_walked_in_order_and_links_to_folders_are_not(tree):
    names = ["a.png", "b.JPG", "Z/a.jpg", "sub/c.jpg", "sub/deep/d.tif"]
    assert files(tree) == [str(tree / name) for name in names]


def test_pictures_lie_as_the_files_do_and_do_not_collide(tree):
    (tree / "b.png").touch()
    pictures = [item.picture for item in find_items(str(tree))]
    assert pictures == [
        "a.png.jpg",
        "b.JPG",
        "b.png.jpg",
        "Z/a.jpg",
        "sub/c.jpg",
        "sub/deep/d.tif.jpg",
    ]


def test_a_glob_an_image_and_stdin(tree, monkeypatch):
    (tree / "sub" / "loop").unlink()  # the ** of Python's glob follows links
    assert files(tree / "**" / "*.jpg") == [str(tree / "Z/a.jpg"), str(tree / "sub/c.jpg")]
    assert files(tree / "a.png") == [str(tree / "a.png")]
    monkeypatch.setattr("sys.stdin", io.StringIO("x/a.jpg\n\n/../b c.png"))
    items = list(find_items("-"))
    assert [item.file for item in items] == ["x/a.jpg", "/../b c.png"]
    assert [item.picture for item in items] == ["x/a.jpg", "b c.png.jpg"]


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="nothing to predict on: no/such"):
        find_items("no/such")
    video = tmp_path / "broken.mp4"
    video.write_bytes(b"no video")
    with pytest.raises(DataError, match="cannot open the video"):
        find_items(str(video))


def test_stdin_is_for_one_process():
    check_source("-", 1)
    check_source("folder", 8)
    with pytest.raises(UsageError, match="2 processes cannot share"):
        check_source("-", 2)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no videos")
    for grey in range(0, 250, 25):
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    return path


def test_each_third_frame_of_a_video(video):
    seen = [
        (item.frame, item.picture, int(item.read().mean())) for item in find_items(str(video), 3)
    ]
    assert [one[:2] for one in seen] == [(n, f"film/{n:06d}.jpg") for n in (0, 3, 6, 9)]
    assert [one[2] for one in seen] == pytest.approx([0, 75, 150, 225], abs=3)
