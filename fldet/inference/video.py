"""A video of the pictures that were drawn of the frames of another one."""

import os
from pathlib import Path

import cv2

from fldet.data.image_files import for_opencv
from fldet.errors import DataError, UsageError
from fldet.files import atomic_path
from fldet.inference.sources import find_items, is_image
from fldet.pictures.boxes import read_image

ENDING = ".mp4"
_CODEC = "mp4v"  # OpenCV's own; H.264 needs a library that not every build has
_FRAMES_PER_SECOND = 25.0  # where a video does not say


def check_video(file: Path, source: str, *, has_pictures: bool) -> None:
    """Does nothing if a video can be made of what is drawn.

    Raises:
        UsageError: another ending, a source that is no video, no pictures, or the file exists.
    """
    if file.suffix != ENDING:
        raise UsageError(f"--video {file} has another ending", expected=f"a name with {ENDING}")
    if file.exists():
        raise UsageError(f"{file} exists", expected="a new file: --video FILE")
    if not os.path.isfile(source) or is_image(source):
        raise UsageError(f"--video: {source} is no video", expected="a video as the source")
    if not has_pictures:
        raise UsageError("--video without pictures", expected="--format pictures too")


def write_video(source: str, pictures: Path, file: Path, every: int = 1) -> Path:
    """Writes the pictures of a video's frames as a video of the same speed; returns the path.

    Frames whose picture is missing are left out.

    Args:
        source: the video that was predicted on.
        pictures: the folder that its pictures are in.
        file: what to write, ``.mp4``.
        every: the pictures are of each so many-th frame.

    Raises:
        DataError: there is no picture, or OpenCV cannot write videos.
    """
    capture = cv2.VideoCapture(for_opencv(source))
    speed = capture.get(cv2.CAP_PROP_FPS) or _FRAMES_PER_SECOND
    capture.release()
    writer: cv2.VideoWriter | None = None
    size = (0, 0)
    with atomic_path(file) as temporary:
        draft = temporary.with_name(f"{temporary.name}{ENDING}")  # which says the format
        try:
            for item in find_items(source, every):
                path = pictures / item.picture
                if not path.is_file():
                    continue
                picture = read_image(path)
                if writer is None:
                    size = (picture.shape[1], picture.shape[0])
                    codec = cv2.VideoWriter.fourcc(*_CODEC)
                    writer = cv2.VideoWriter(for_opencv(str(draft)), codec, speed / every, size)
                writer.write(picture)
            if writer is None or not writer.isOpened():
                raise DataError(f"cannot write {file}", expected=f"frames, and the codec {_CODEC}")
            writer.release()
            draft.replace(temporary)
        finally:
            draft.unlink(missing_ok=True)
    return file
