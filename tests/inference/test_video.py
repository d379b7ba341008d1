"""A video of the pictures of another one."""

import cv2
import numpy as np
import pytest

from fldet.errors import DataError, UsageError
from fldet.inference.video import check_video, write_video


@pytest.fixture
def film(tmp_path):
    """Seven frames, each brighter than the one before, ten a second."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for index in range(7):
        writer.write(np.full((64, 96, 3), 30 * index, np.uint8))
    writer.release()
    return path


def frames_of(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def test_a_video_in_gives_a_video_out(fldet, tiny_run, film, tmp_path):
    out, video = tmp_path / "out", tmp_path / "found.mp4"
    command = ("predict", tiny_run[1], film, "--out", out, "--video", video, "--every", "2")
    done = fldet(*command, "--score-thr", "1", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert f"wrote {video}" in done.stderr
    frames, speed = frames_of(video)
    assert speed == pytest.approx(5)
    assert [frame.shape for frame in frames] == [(64, 96, 3)] * 4
    assert [round(frame.mean() / 60) for frame in frames] == [0, 1, 2, 3]


def test_without_any_picture_nothing_is_left(film, tmp_path):
    with pytest.raises(DataError, match="cannot write"):
        write_video(str(film), tmp_path / "none", tmp_path / "new" / "a.mp4")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("file", "source", "has_pictures", "words"),
    [
        ("a.avi", "film.avi", True, "another ending"),
        ("there.mp4", "film.avi", True, "exists"),
        ("a.mp4", "folder", True, "is no video"),
        ("a.mp4", "film.avi", False, "without pictures"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(
    film, tmp_path, file, source, has_pictures, words
):
    (tmp_path / "there.mp4").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=words):
        check_video(tmp_path / file, str(tmp_path / source), has_pictures=has_pictures)
