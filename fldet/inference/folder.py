"""The folder that predictions are written into: claimed, gone on with, finished."""

import contextlib
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b, sha256
from itertools import chain, count, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from fldet.checkpoints.paths import checkpoints_of
from fldet.engine.lock import locked
from fldet.errors import DataError, UsageError, shorten
from fldet.files import MIB, MOST_OF_TEXT, atomic_file, read_json, write_atomically
from fldet.inference.detections import Detections
from fldet.inference.image_detector import ImageDetector, PreparedImage
from fldet.inference.sources import SETTINGS, Item
from fldet.numeric import are_numbers

log = logging.getLogger("fldet")

DATASETS = ("coco-dataset", "yolo", "voc", "label-studio", "csv")  # see fldet.inference.writers
FORMATS = ("pictures", "coco", "jsonl", *DATASETS)

MOST_OF_LINE = 64 * MIB  # bytes that a line of predictions may have
DEFAULT_OUT = "predictions"
GO_ON = "go on with the same command and --resume"
PICTURES = "pictures"
FOLDERS = (PICTURES, "yolo", "voc")

# What a run writes into its folder, and under which names until it is whole.
_FILES = re.compile(
    r"predict\.json|results\.json|images\.json|(predictions|skipped)(\.(\d+)-of-\d+)?\.jsonl|"
    r"dataset\.json|label_studio\.json|label_studio\.xml|boxes\.csv"
)
_DRAFTS = re.compile(r"\.(.+\.(?:jpg|json|jsonl|xml|csv))\.(?:part|[a-z0-9_]{8})", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1

    def name(self, stem: str) -> str:
        """Returns the name of this process's own file."""
        shard = "" if self.count == 1 else f".{self.rank}-of-{self.count}"
        return f"{stem}{shard}.jsonl"


def _already_there(out: Path, source: str = "SOURCE") -> UsageError:
    return UsageError(
        f"{out} already holds predictions",
        expected="another folder, --resume to go on, or --overwrite to remove them",
        hint=f"fldet predict CHECKPOINT {source} --out {out} --resume",
    )


@dataclass(frozen=True)
class Line:
    """What a line of ``predictions.jsonl`` holds; those of videos have a ``frame`` besides."""

    file: str
    width: int  # of the file, in pixels, as the boxes are
    height: int
    boxes: list[list[float]]  # xyxy
    labels: list[int]
    scores: list[float]
    names: list[str]  # of the classes


@dataclass(frozen=True)
class Found:
    """An image on its way from the network to the files."""

    item: Item
    image: PreparedImage | DataError  # an error: it could not be read
    found: Detections | None = None
    picture: Future[DataError | None] | None = None  # while it is drawn

    def fault_of_picture(self) -> DataError | None:
        """Waits for the picture; returns why there is none."""
        return self.picture.result() if self.picture else None


def as_line(item: Item, image: PreparedImage, found: Detections) -> str:
    """Returns the line of an image; nothing is rounded, boxes are xyxy in pixels of the file."""
    line = Line(
        file=item.file,
        width=image.width,
        height=image.height,
        boxes=found.boxes.tolist(),
        labels=found.labels.tolist(),
        scores=found.scores.tolist(),
        names=list(found.names),
    )
    return json.dumps({**_identity(item), **vars(line)}) + "\n"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines of a file of predictions; what is none, as half a line, is left out."""
    yield from filter(None, map(_prediction, _lines(path)))


def _lines(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from iter(partial(file.readline, MOST_OF_LINE), b"")


def _prediction(data: bytes) -> dict[str, Any] | None:
    """Returns what ``as_line`` has written, None for anything else."""
    if not data.endswith(b"\n"):
        return None
    try:
        line = json.loads(data.decode())
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and _is_prediction(line) else None


def _is_prediction(line: dict[str, Any]) -> bool:
    columns: list[Any] = [line.get(name) for name in ("boxes", "labels", "scores", "names")]
    if not all(isinstance(column, list) for column in columns):
        return False
    boxes, labels, scores, names = columns
    sizes = (line.get("width"), line.get("height"), line.get("frame", 0))
    numbers = [*chain(*(box for box in boxes if isinstance(box, list))), *scores]
    return (
        isinstance(line.get("file"), str)
        and all(type(value) is int for value in (*sizes, *labels))
        and all(isinstance(box, list) and len(box) == 4 for box in boxes)
        and are_numbers(numbers)
        and all(isinstance(name, str) for name in names)
        and len({len(column) for column in columns}) == 1
    )


class _Done:
    """What earlier runs have done: 8 bytes an image, in order, to look up."""

    def __init__(self, out: Path) -> None:
        self.junk: set[Path] = set()  # files with something in them that is no prediction
        files = sorted(out.glob("predictions*.jsonl"))
        keys = (key for path in files for key in self._keys_in(path))
        self._keys = np.unique(np.fromiter(keys, np.uint64))

    def _keys_in(self, path: Path) -> Iterator[np.uint64]:
        for data in _lines(path):
            line = _prediction(data)
            if line is None:
                self.junk.add(path)
            else:
                yield _key(line["file"], line.get("frame"))

    def __contains__(self, item: Item) -> bool:
        if not self._keys.size:
            return False
        key = _key(item.file, item.frame)
        at = int(np.searchsorted(self._keys, key))
        return at < len(self._keys) and bool(self._keys[at] == key)


def _key(file: str, frame: int | None) -> np.uint64:
    """Returns 64 bits that name an image; among ten million, two are equal once in 400,000 runs."""
    text = f"{file}\0{frame}".encode(errors="surrogatepass")
    return np.uint64(int.from_bytes(blake2b(text, digest_size=8).digest(), "little"))


def _identity(item: Item) -> dict[str, Any]:
    return {"file": item.file} if item.frame is None else {"file": item.file, "frame": item.frame}


def _settings(checkpoint: Path, detector: ImageDetector, score_thr: float | None) -> dict[str, Any]:
    """Returns what all predictions in a folder must have in common.

    ``score_thr`` None is the thresholds of the detector.
    """
    by_class = detector.thresholds.scores if score_thr is None and detector.thresholds else None
    digest = sha256()
    for path in checkpoints_of(checkpoint):
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return {
        "weights_sha256": digest.hexdigest(),
        "score_thr": score_thr if by_class is None else by_class,
        "classes": list(detector.classes),
        **detector.settings,
    }


@contextlib.contextmanager
def _claimed(
    out: Path | None, settings: dict[str, Any], resume: bool, overwrite: bool
) -> Iterator[Path]:
    """Holds the folder of a run, with its settings in it; see ``predict``."""
    with contextlib.ExitStack() as held:
        if out is None and not (resume or overwrite):
            out = _free_folder(held)
        else:
            out = out or _last_folder()
            held.enter_context(locked(out))
            _check_folder(out)
        if not (resume or overwrite) and _holds_predictions(out):
            raise _already_there(out)  # of a run that has just ended
        if not resume:
            for path in _own_files(out):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        _remove_drafts(out)
        _agree(out / SETTINGS, settings)
        yield out


def _default_folders() -> Iterator[Path]:
    names = chain([DEFAULT_OUT], (f"{DEFAULT_OUT}_{number}" for number in count(2)))
    return map(Path, names)


def _free_folder(held: contextlib.ExitStack) -> Path:
    """Returns the first default folder that neither holds predictions nor is in use, held."""
    folders = _default_folders()
    while True:
        folder = next(folders)
        try:
            _check_folder(folder)
            if _holds_predictions(folder):
                continue
            with contextlib.ExitStack() as mine:
                mine.enter_context(locked(folder))
                if not _holds_predictions(folder):  # of a run that has just ended
                    held.push(mine.pop_all())
                    return folder
        except UsageError:  # other files, or a run
            continue


def _last_folder() -> Path:
    """Returns the last default folder that a run has begun; the first if there is none."""
    there = takewhile(Path.exists, _default_folders())
    return ([path for path in there if (path / SETTINGS).exists()] or [Path(DEFAULT_OUT)])[-1]


def _own_files(out: Path) -> list[Path]:
    """Returns what bears a name that a run writes; an empty folder does not count."""
    paths = [path for path in out.iterdir() if _FILES.fullmatch(path.name)] if out.exists() else []
    for folder in (out / name for name in FOLDERS):
        if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
            paths.append(folder)
    return sorted(paths)


def _check_folder(out: Path) -> None:
    """Does nothing if a folder is not there, or what bears our names in it is a run's, no link."""
    if os.path.lexists(out) and not out.is_dir():
        raise UsageError(f"{out} is not a folder", expected="a folder for what is written: --out")
    for path in _own_files(out):
        if not (out / SETTINGS).exists():
            raise UsageError(
                f"{path} is there, and no fldet predict has written it", expected="another --out"
            )
        mode = path.lstat().st_mode
        if not (stat.S_ISDIR(mode) if path.name in FOLDERS else stat.S_ISREG(mode)):
            raise UsageError(f"{path} is a link or no file", expected="another --out")


def _holds_predictions(out: Path) -> bool:
    """Returns whether anything would be lost with a folder: a line, not settings alone."""
    return any(path.stat().st_size for path in out.glob("predictions*.jsonl"))


def _agree(path: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of a new folder, or compares those of one that is gone on with."""
    if not path.exists():
        write_atomically(path, json.dumps(settings, indent=1) + "\n")
        return
    earlier = read_json(path, "settings of the predictions", most=MOST_OF_TEXT)
    earlier = earlier if isinstance(earlier, dict) else {}
    for name in {**settings, **earlier}:
        found, value = earlier.get(name), settings.get(name)
        if found != value:
            raise UsageError(
                f"{path.parent} holds predictions with another {name.removesuffix('_sha256')}",
                expected=f"{name} {shorten(found)}, got {shorten(value)}",
                hint="the same options as before, or another folder: --out FOLDER",
            )


def _remove_drafts(out: Path) -> None:
    """Removes what a killed run has left under names for the time of writing."""
    for folder, _, names in os.walk(out / PICTURES):
        for name in filter(_DRAFTS.fullmatch, names):
            os.unlink(os.path.join(folder, name))
    for path in out.iterdir():
        draft = _DRAFTS.fullmatch(path.name)
        if draft and _FILES.fullmatch(draft[1]):
            path.unlink()


def _opened(path: Path, mode: str) -> Any:
    """Opens a file of the folder, never through a link that somebody has put there."""
    no_link = getattr(os, "O_NOFOLLOW", 0)
    return open(
        path, mode, encoding="utf-8", opener=lambda name, flags: os.open(name, flags | no_link)
    )


def _mend(out: Path, place: Place, junk: set[Path]) -> None:
    """Removes what is no prediction from the files that fall to this process; drops old skips.

    An earlier run may have had another number of processes.
    """
    for path in out.glob("*.jsonl"):
        found = _FILES.fullmatch(path.name)
        if found and int(found[3] or 0) % place.count == place.rank:
            if found[1] == "skipped":
                path.unlink()
            elif path in junk:
                log.info("%s: what is no whole line of a prediction is removed", path)
                with atomic_file(path, "wb") as file:
                    file.writelines(data for data in _lines(path) if _prediction(data) is not None)


def _finish(out: Path, classes: Sequence[str], formats: Sequence[str]) -> tuple[Path, ...]:
    """Returns the files of a folder, after making those of the formats from the lines."""
    from fldet.inference.writers import WRITERS  # which read the lines by this module

    lines = sorted(out.glob("predictions*.jsonl"))
    files = [*lines, *(path for path in sorted(out.glob("skipped*.jsonl")) if path.stat().st_size)]
    writers = {"coco": write_coco, **WRITERS}
    made = [
        writers[name](lines, out, classes) for name in dict.fromkeys(formats) if name in writers
    ]
    return (*files, *chain.from_iterable(made))


def write_coco(lines: Sequence[Path], out: Path, classes: Sequence[str]) -> tuple[Path, Path]:
    """Writes ``results.json`` and ``images.json`` of files of predictions, line by line.

    Image ids count from 1 in the order of the lines, category ids are label + 1; ``images.json``
    has both with their names.
    """
    results, images = out / "results.json", out / "images.json"
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(classes)]
    with atomic_file(results, "wb") as found, atomic_file(images, "wb") as known:
        found.write(b"[")
        known.write(b'{"categories": ' + json.dumps(categories).encode() + b', "images": [')
        between = b""
        everything = (line for path in lines for line in read_lines(path))
        for number, line in enumerate(everything, start=1):
            image = json.dumps(_coco_image(line, number)).encode()
            known.write((b"" if number == 1 else b",\n") + image)
            for one in _coco_results(line, number):
                found.write(between + json.dumps(one).encode())
                between = b",\n"
        found.write(b"]\n")
        known.write(b"]}\n")
    return results, images


def _coco_image(line: dict[str, Any], number: int) -> dict[str, Any]:
    facts = {key: line[key] for key in line if key in ("frame", "width", "height")}
    return {"id": number, "file_name": line["file"], **facts}


def _coco_results(line: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    columns = (line["boxes"], line["labels"], line["scores"])
    for (x1, y1, x2, y2), label, score in zip(*columns, strict=True):
        box = [x1, y1, x2 - x1, y2 - y1]
        yield {"image_id": number, "category_id": label + 1, "bbox": box, "score": score}
