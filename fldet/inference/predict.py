"""Predicting on any number of images: lines as they come, pictures, a results file.

Every process takes each N-th image and appends to a file of its own. A later run reads these files
and goes on with what is not in them. In memory: a few batches of images, the names in one folder,
and, when going on, 8 bytes for each image that is done.
"""

import contextlib
import json
import logging
import math
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from hashlib import blake2b, sha256
from itertools import chain, count, islice, takewhile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from fldet.checkpoints.files import resolve_checkpoint
from fldet.devices import describe
from fldet.engine.hooks.progress import make_bar
from fldet.engine.lock import locked
from fldet.engine.process_group import process_group
from fldet.errors import (
    DataError,
    FileSystemError,
    UsageError,
    explained_file_errors,
    nearest,
    shorten,
)
from fldet.files import MIB, MOST_OF_TEXT, atomic_file, read_json, write_atomically
from fldet.inference.detector import WINDOW, Detector, Prepared, chunks
from fldet.inference.results import Detections, PredictResult
from fldet.inference.sources import SETTINGS, Item, check_source, find_items, fixed_part
from fldet.pictures.boxes import draw_boxes, read_image
from fldet.processes import adopt_launcher, process_count, process_rank

log = logging.getLogger("fldet")

FORMATS = ("pictures", "coco", "jsonl")
SECONDS_BETWEEN_LINES = 30.0
MOST_OF_LINE = 64 * MIB  # bytes that a line of predictions may have
DEFAULT_OUT = "predictions"
GO_ON = "go on with the same command and --resume"
PICTURES = "pictures"
# What a run writes into its folder, and under which names until it is whole.
_FILES = re.compile(
    r"predict\.json|results\.json|images\.json|(predictions|skipped)(\.(\d+)-of-\d+)?\.jsonl"
)
_DRAFTS = re.compile(r"\.(.+\.(?:jpg|json|jsonl))\.(?:part|[a-z0-9_]{8})", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1

    def name(self, stem: str) -> str:
        """Returns the name of this process's own file."""
        shard = "" if self.count == 1 else f".{self.rank}-of-{self.count}"
        return f"{stem}{shard}.jsonl"


@dataclass
class Counts:
    """What a process has done."""

    images: int = 0
    already_done: int = 0
    boxes: int = 0
    skipped: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(self._values(), other._values(), strict=True)))

    def _values(self) -> tuple[int, int, int, int]:
        return self.images, self.already_done, self.boxes, self.skipped


def predict(
    checkpoint: Path,
    source: str,
    out: Path | None = None,
    *,
    config: str | None = None,
    formats: Sequence[str] = ("pictures",),
    score_thr: float = 0.3,
    batch_size: int = 8,
    every: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    launcher: str = "none",
    trust_checkpoint: bool = False,
) -> PredictResult | None:
    """Finds objects in all images of a source and writes them into a folder.

    docs/predict.md says which files. Images that cannot be read are named in ``skipped.jsonl``.

    Args:
        checkpoint: the weights, a work dir, or an exported model.
        source: see ``find_items``.
        out: the folder; made if it is not there. None is the first of ``predictions``,
            ``predictions_2``, ... without predictions; to go on, the last one with some.
        config: for a checkpoint that carries none.
        formats: of ``pictures``, ``coco`` and ``jsonl``.
        score_thr: lowest score, in [0, 1].
        batch_size: most images at once.
        every: of a video, only each so many-th frame.
        resume: go on with what an earlier run into ``out`` has left.
        overwrite: remove what an earlier run into ``out`` has written.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        launcher: see ``fldet.processes.adopt_launcher``.
        trust_checkpoint: see ``Detector.load``.

    Returns:
        The result over all processes; None in all but the first of them.

    Raises:
        FldetError: a wrong option, no image, ``out`` holds other predictions or is in use, no such
            checkpoint, no room.
    """
    place, device = _place(launcher, device)
    # under torchrun the first process refuses for all: it ends the others
    if place.rank == 0 or "TORCHELASTIC_RUN_ID" not in os.environ:
        check_options(source, out, formats, resume=resume, overwrite=overwrite)
    check_source(source, place.count)
    items = _begun(find_items(source, every), source)
    detector = Detector.load(checkpoint, config, device, trust=trust_checkpoint)
    with _groups(place) as patient, contextlib.ExitStack() as held:
        held.enter_context(explained_file_errors(out or DEFAULT_OUT, hint=GO_ON))
        if place.rank == 0:
            settings = _settings(checkpoint, detector, score_thr)
            out = held.enter_context(_claimed(out, settings, resume, overwrite))
        out = _shared(out, place)
        log.info("predicting on %s", describe(detector.device))
        run = _Run(detector, out, place, "pictures" in formats, score_thr, batch_size)
        return _run_all(run, items, patient, coco="coco" in formats)


def check_options(
    source: str, out: Path | None, formats: Sequence[str], *, resume: bool, overwrite: bool
) -> None:
    """Does nothing if a run may begin.

    Raises:
        UsageError: an unknown format; both ``resume`` and ``overwrite``; ``out`` holds predictions
            and neither is set, or it holds other files; the source lies in its pictures.
    """
    for name in formats:
        if name not in FORMATS:
            raise UsageError(
                f"unknown format {name!r}", expected=nearest(name, FORMATS) or ", ".join(FORMATS)
            )
    if resume and overwrite:
        raise UsageError("--resume and --overwrite", expected="one of the two")
    if out is None:
        return
    _check_folder(out)
    if Path(fixed_part(source)).resolve().is_relative_to((out / PICTURES).resolve()):
        raise UsageError(
            f"{source} lies where the pictures go: {out / PICTURES}", expected="another --out"
        )
    if not (resume or overwrite) and _holds_predictions(out):
        raise _already_there(out, source)


def _already_there(out: Path, source: str = "SOURCE") -> UsageError:
    return UsageError(
        f"{out} already holds predictions",
        expected="another folder, --resume to go on, or --overwrite to remove them",
        hint=f"fldet predict CHECKPOINT {source} --out {out} --resume",
    )


def _begun(items: Iterator[Item], source: str) -> Iterator[Item]:
    """Returns the items, the first one already found.

    Raises:
        DataError: there is none.
    """
    first = next(items, None)
    if first is None:
        raise DataError(f"no image in {source}")
    return chain([first], items)


@dataclass
class _Run:
    """The share of one process."""

    detector: Detector
    out: Path
    place: Place
    pictures: bool
    score_thr: float
    batch_size: int
    counts: Counts = field(default_factory=Counts)

    def over(self, items: Iterator[Item]) -> Counts:
        """Predicts on this process's share of the items; returns what was done."""
        done = _Done(self.out)
        _mend(self.out, self.place, done.junk)
        mine = self._not_done(islice(items, self.place.rank, None, self.place.count), done)
        workers = max(1, min(8, (os.cpu_count() or 1) // self.place.count))
        with (
            _progress(self.place) as show,
            ThreadPoolExecutor(workers) as pool,
            _opened(self.out / self.place.name("predictions"), "a") as lines,
            _opened(self.out / self.place.name("skipped"), "w") as skipped,
        ):
            for window in self._windows(mine, pool):
                self._write(window, pool, lines, skipped)
                show(self.counts)
        return self.counts

    def _not_done(self, items: Iterable[Item], done: "_Done") -> Iterator[Item]:
        for item in items:
            if item in done:
                self.counts.already_done += 1
            else:
                yield item

    def _windows(
        self, items: Iterator[Item], pool: ThreadPoolExecutor
    ) -> Iterator[list[tuple[Item, Prepared | DataError]]]:
        """Yields images for a few batches; the next ones are read while these are worked on."""
        ahead: list[tuple[Item, Future[Prepared | DataError]]] = []
        contents = ((item, item.read()) for item in items)
        for chunk in chunks(contents, WINDOW * self.batch_size):
            begun = [(item, pool.submit(self._prepare, content)) for item, content in chunk]
            if ahead:
                yield [(item, future.result()) for item, future in ahead]
            ahead = begun
        if ahead:
            yield [(item, future.result()) for item, future in ahead]

    def _prepare(self, content: Any) -> Prepared | DataError:
        if isinstance(content, DataError):
            return content
        try:
            return self.detector.prepare(content)
        except DataError as error:
            return error

    def _write(
        self,
        window: list[tuple[Item, Prepared | DataError]],
        pool: ThreadPoolExecutor,
        lines: Any,
        skipped: Any,
    ) -> None:
        """Predicts on a window and writes it; a line is written after its picture."""
        good = [(item, image) for item, image in window if isinstance(image, Prepared)]
        images = [image for _, image in good]
        found = self.detector.detect(images, self.score_thr, self.batch_size)
        if self.pictures:
            items = [item for item, _ in good]
            for item, fault in zip(items, pool.map(self._draw, items, images, found), strict=True):
                if fault is not None:
                    self._skip(item, fault, skipped)
        for (item, image), one in zip(good, found, strict=True):
            lines.write(as_line(item, image, one))
            self.counts.boxes += len(one)
        self.counts.images += len(good)
        for item, error in window:
            if isinstance(error, DataError):
                self._skip(item, error, skipped)
        for file in (lines, skipped):
            file.flush()
            os.fsync(file.fileno())

    def _skip(self, item: Item, error: DataError, skipped: Any) -> None:
        self.counts.skipped += 1
        skipped.write(json.dumps({**_identity(item), "reason": error.message}) + "\n")
        log.warning("skipped: %s", error.message)

    def _draw(self, item: Item, image: Prepared, found: Detections) -> DataError | None:
        """Writes a picture; returns why there is none, if the others can still be drawn."""
        try:
            pixels = image.source if image.source is not None else read_image(Path(item.file))
            picture = draw_boxes(
                pixels, found.boxes, found.labels, self.detector.classes, scores=found.scores
            )
            data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
            with explained_file_errors(hint=GO_ON):
                write_atomically(self.out / PICTURES / item.picture, data)
        except FileSystemError:
            raise
        except (DataError, OSError, cv2.error) as error:
            reason = str(error).splitlines()[0]
            return DataError(f"cannot draw the picture of {item.file}: {reason}")
        return None


def as_line(item: Item, image: Prepared, found: Detections) -> str:
    """Returns the line of an image; nothing is rounded, boxes are xyxy in pixels of the file."""
    content = {
        **_identity(item),
        "width": image.width,
        "height": image.height,
        "boxes": found.boxes.tolist(),
        "labels": found.labels.tolist(),
        "scores": found.scores.tolist(),
        "names": list(found.names),
    }
    return json.dumps(content) + "\n"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines of a file of predictions; what is none, as half a line, is left out."""
    for data in _lines(path):
        line = _prediction(data)
        if line is not None:
            yield line


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
        and all(type(value) in (int, float) and math.isfinite(value) for value in numbers)
        and all(isinstance(name, str) for name in names)
        and len({len(column) for column in columns}) == 1
    )


def _run_all(run: _Run, items: Iterator[Item], patient: Any, *, coco: bool) -> PredictResult | None:
    """Returns the result over all processes, in the first of them; None in the others."""
    started = time.perf_counter()
    counts = _total(run.over(items), run.place, patient)
    if run.place.rank:
        return None
    return PredictResult(
        out=run.out,
        images=counts.images,
        already_done=counts.already_done,
        boxes=counts.boxes,
        skipped=counts.skipped,
        files=_finish(run.out, run.detector.classes, coco=coco),
        seconds=time.perf_counter() - started,
    )


class _Done:
    """What earlier runs have done: 8 bytes an image, in order, to look up.

    Attributes:
        junk: the files with something in them that is no prediction.
    """

    def __init__(self, out: Path) -> None:
        self.junk: set[Path] = set()
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


# --- the folder ---


def _settings(checkpoint: Path, detector: Detector, score_thr: float) -> dict[str, Any]:
    """Returns what all predictions in a folder must have in common."""
    with open(resolve_checkpoint(checkpoint), "rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return {
        "weights_sha256": digest.hexdigest(),
        "score_thr": score_thr,
        "classes": list(detector.classes),
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
    yield Path(DEFAULT_OUT)
    yield from (Path(f"{DEFAULT_OUT}_{number}") for number in count(2))


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
    """Returns what bears a name that a run writes; an empty folder of pictures does not count."""
    paths = [path for path in out.iterdir() if _FILES.fullmatch(path.name)] if out.exists() else []
    pictures = out / PICTURES
    if os.path.lexists(pictures) and not (pictures.is_dir() and not any(pictures.iterdir())):
        paths.append(pictures)
    return sorted(paths)


def _check_folder(out: Path) -> None:
    """Does nothing if a folder is not there, or what bears our names in it is a run's.

    Raises:
        UsageError: it is a file, or somebody else's file would be written over or through.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise UsageError(f"{out} is not a folder", expected="a folder for what is written: --out")
    for path in _own_files(out):
        if not (out / SETTINGS).exists():
            raise UsageError(
                f"{path} is there, and no fldet predict has written it", expected="another --out"
            )
        mode = path.lstat().st_mode
        if not (stat.S_ISDIR(mode) if path.name == PICTURES else stat.S_ISREG(mode)):
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
    for name, value in settings.items():
        found = earlier.get(name) if isinstance(earlier, dict) else None
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


def _finish(out: Path, classes: Sequence[str], *, coco: bool) -> tuple[Path, ...]:
    """Returns the files of a folder, after making those of the COCO format."""
    lines = sorted(out.glob("predictions*.jsonl"))
    files = [*lines, *(path for path in sorted(out.glob("skipped*.jsonl")) if path.stat().st_size)]
    return (*files, *write_coco(lines, out, classes)) if coco else tuple(files)


def write_coco(lines: Sequence[Path], out: Path, classes: Sequence[str]) -> tuple[Path, Path]:
    """Writes ``results.json`` and ``images.json`` of files of predictions, line by line.

    Image ids count from 1 in the order of the lines, category ids are label + 1; ``images.json``
    has both with their names.

    Returns:
        The two files.
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
    size = {"width": line["width"], "height": line["height"]}
    frame = {"frame": line["frame"]} if "frame" in line else {}
    return {"id": number, "file_name": line["file"], **frame, **size}


def _coco_results(line: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    columns = (line["boxes"], line["labels"], line["scores"])
    for (x1, y1, x2, y2), label, score in zip(*columns, strict=True):
        box = [x1, y1, x2 - x1, y2 - y1]
        yield {"image_id": number, "category_id": label + 1, "bbox": box, "score": score}


# --- several processes ---


def _place(launcher: str, device: str) -> tuple[Place, str]:
    """Returns which process this is, and its device."""
    if adopt_launcher(launcher) == "none":
        return Place(), device
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        # Slurm may show each process its own device alone, which is then number 0.
        device = f"cuda:{int(os.environ['LOCAL_RANK']) % max(1, torch.cuda.device_count())}"
    return Place(process_rank(), process_count()), device


@contextlib.contextmanager
def _groups(place: Place) -> Iterator[Any]:
    """Is in a group of all processes, on CPUs, as they only exchange a few numbers.

    Gives a second group for the end, where the first one done waits for the last, for days if need
    be. Everything else, the start of a process above all, is waited for as in a training.
    """
    launcher = "none" if place.count == 1 else "pytorch"
    with process_group(launcher, torch.device("cpu")):
        yield torch.distributed.new_group(timeout=timedelta(days=30)) if place.count > 1 else None


def _shared(folder: Path | None, place: Place) -> Path:
    """Returns the folder that the first process holds."""
    told: list[Any] = [folder]
    if place.count > 1:
        torch.distributed.broadcast_object_list(told)
    return told[0]


def _total(counts: Counts, place: Place, patient: Any) -> Counts:
    """Returns the sum over all processes of a group, when all are done."""
    if place.count == 1:
        return counts
    every: list[Any] = [None] * place.count
    torch.distributed.all_gather_object(every, counts, patient)
    return sum(every, Counts())


@contextlib.contextmanager
def _progress(place: Place) -> Iterator[Any]:
    """Gives what shows the counts: a bar on a terminal, elsewhere a line now and then."""
    if place.rank:
        yield lambda _: None
    elif sys.stderr.isatty():
        with make_bar() as bar:
            task = bar.add_task("predict", total=None, status="")
            yield lambda counts: bar.update(
                task, completed=counts.images, status=f"{counts.skipped} skipped"
            )
    else:
        yield _line_now_and_then()


def _line_now_and_then() -> Any:
    begun = last = time.monotonic()

    def show(counts: Counts) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            speed = counts.images / (now - begun)
            log.info("%d images, %.1f/s, %d skipped", counts.images, speed, counts.skipped)
            last = now

    return show
