"""The lines of predictions as images with boxes, and folders of images with labels."""

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fldet.inference.folder import read_lines

log = logging.getLogger("fldet")


@dataclass(frozen=True)
class Box:
    """An object that was found."""

    corners: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the file
    label: int
    name: str
    score: float

    @property
    def sides(self) -> tuple[float, float]:
        """Width and height in pixels."""
        x1, y1, x2, y2 = self.corners
        return x2 - x1, y2 - y1


@dataclass(frozen=True)
class Picture:
    """An image file and what was found in it."""

    file: Path  # absolute
    name: str  # below the folder that has all images, with forward slashes
    width: int  # pixels, as the next
    height: int
    boxes: tuple[Box, ...]


def pictures(lines: Sequence[Path]) -> Iterator[Picture]:
    """Yields the images of files of predictions; frames of videos, which are no files, are not."""
    root, frames = _common_folder(lines), 0
    for line in (line for path in lines for line in read_lines(path)):
        if "frame" in line:
            frames += 1
            continue
        file = Path(os.path.abspath(line["file"]))
        columns = (line["boxes"], line["labels"], line["names"], line["scores"])
        boxes = tuple(
            Box((box[0], box[1], box[2], box[3]), label, name, score)
            for box, label, name, score in zip(*columns, strict=True)
        )
        name = file.relative_to(root).as_posix()
        yield Picture(file, name, line["width"], line["height"], boxes)
    if frames:
        log.warning("%d frames of videos are left out: they are no image files", frames)


def _common_folder(lines: Sequence[Path]) -> Path:
    """Returns the deepest folder that has all images of files of predictions."""
    folder = ""
    for line in (line for path in lines for line in read_lines(path)):
        parent = os.path.dirname(os.path.abspath(line["file"]))
        if parent != folder and "frame" not in line:
            folder = os.path.commonpath([folder, parent]) if folder else parent
    return Path(folder or os.sep)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a folder to write into, which takes the place of the one at ``path`` when it is whole.

    A run that was killed leaves it under the name of a draft, which the next one removes.
    """
    draft = path.with_name(f".{path.name}.part")
    for left in (draft, path):
        if left.is_dir():
            shutil.rmtree(left)
    draft.mkdir()
    yield draft
    os.replace(draft, path)


def write_labelled(
    found: Iterable[Picture],
    images: Path,
    labels: Path,
    ending: str,
    text: Callable[[Picture], str],
) -> Iterator[str]:
    """Writes a text for each image, and the image as a hard link or a copy; yields its name.

    Symbolic links would neither go into an archive nor be followed by all tools. Folders are kept.
    Of two images that differ in their endings alone the second one gets its ending into its name,
    which is yielded without one.
    """
    for one in found:
        if not one.file.is_file():
            log.warning("left out, as it is not there any more: %s", one.file)
            continue
        name = Path(one.name)
        label = labels / name.with_suffix(ending)
        if label.exists():
            name = name.with_name(f"{name.stem}_{name.suffix[1:]}{name.suffix}")
            label = labels / name.with_suffix(ending)
        for path in (label, images / name):
            path.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(text(one), encoding="utf-8", errors="surrogateescape")
        try:
            os.link(one.file.resolve(), images / name)
        except OSError:  # another disk, or a file that is somebody else's
            shutil.copyfile(one.file, images / name)
        yield name.with_suffix("").as_posix()
