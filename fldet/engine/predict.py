"""Predicting on any number of images: lines as they come, pictures, a results file.

Every process takes each N-th image and appends to a file of its own. A later run reads these files
and goes on with what is not in them. In memory: a few batches of images, the names in one folder,
and, when going on, 8 bytes for each image that is done.
"""

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b, sha256
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from fldet.drawing import draw_boxes, read_image
from fldet.engine.checkpoint import resolve_checkpoint
from fldet.engine.detector import WINDOW, Detector, Prepared, chunks
from fldet.engine.device import describe, process_group
from fldet.engine.sources import Item, check_source, find_items
from fldet.errors import DataError, UsageError, explained_file_errors, nearest
from fldet.hooks.progress import make_bar
from fldet.processes import adopt_launcher, process_count, process_rank
from fldet.results import Detections, PredictResult, write_atomically

log = logging.getLogger("fldet")

FORMATS = ("pictures", "coco", "jsonl")
SECONDS_BETWEEN_LINES = 30.0


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
    out: Path,
    *,
    config: str | None = None,
    formats: Sequence[str] = ("pictures",),
    score_thr: float = 0.3,
    batch_size: int = 8,
    every: int = 1,
    resume: bool = False,
    device: str = "auto",
    launcher: str = "none",
    trust_checkpoint: bool = False,
) -> PredictResult | None:
    """Finds objects in all images of a source and writes them into a folder.

    docs/predict.md says which files. Images that cannot be read are named in ``skipped.jsonl``.

    Args:
        checkpoint: the weights, a work dir, or an exported model.
        source: see ``find_items``.
        out: the folder; made if it is not there.
        config: for a checkpoint that carries none.
        formats: of ``pictures``, ``coco`` and ``jsonl``.
        score_thr: lowest score, in [0, 1].
        batch_size: most images at once.
        every: of a video, only each so many-th frame.
        resume: go on with what an earlier run into ``out`` has left.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        launcher: see ``fldet.processes.adopt_launcher``.
        trust_checkpoint: see ``Detector.load``.

    Returns:
        The result over all processes; None in all but the first of them.

    Raises:
        FldetError: a wrong option, no image, ``out`` holds other predictions, no such checkpoint,
            no room.
    """
    place, device = _place(launcher, device)
    # under torchrun the first process refuses for all: it ends the others
    if place.rank == 0 or "TORCHELASTIC_RUN_ID" not in os.environ:
        check_options(source, out, formats, resume=resume)
    check_source(source, place.count)
    detector = Detector.load(checkpoint, config, device, trust=trust_checkpoint)
    with (
        _groups(place) as patient,
        explained_file_errors(out, hint="go on with the same command and --resume"),
    ):
        if place.rank == 0:
            _claim(out, _settings(checkpoint, detector, score_thr))
        _wait(place)
        log.info("predicting on %s", describe(detector.device))
        run = _Run(detector, out, place, "pictures" in formats, score_thr, batch_size)
        return _run_all(run, source, every, patient, coco="coco" in formats)


def check_options(source: str, out: Path, formats: Sequence[str], *, resume: bool) -> None:
    """Does nothing if a run may begin.

    Raises:
        UsageError: an unknown format, or ``out`` holds predictions and ``resume`` is not set.
    """
    for name in formats:
        if name not in FORMATS:
            raise UsageError(
                f"unknown format {name!r}", expected=nearest(name, FORMATS) or ", ".join(FORMATS)
            )
    if not resume and (out / "predict.json").exists():
        raise UsageError(
            f"{out} already holds predictions",
            expected="another folder, or --resume to go on",
            hint=f"fldet predict CHECKPOINT {source} --out {out} --resume",
        )


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
        self.out.mkdir(parents=True, exist_ok=True)
        done = _Done(self.out)
        _mend(self.out, self.place)
        mine = self._not_done(islice(items, self.place.rank, None, self.place.count), done)
        workers = max(1, min(8, (os.cpu_count() or 1) // self.place.count))
        with (
            _progress(self.place) as show,
            ThreadPoolExecutor(workers) as pool,
            open(self.out / self.place.name("predictions"), "a", encoding="utf-8") as lines,
            open(self.out / self.place.name("skipped"), "w", encoding="utf-8") as skipped,
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
            list(pool.map(self._draw, items, images, found))
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
        log.warning("skipped: %s", os.fsencode(error.message).decode(errors="replace"))

    def _draw(self, item: Item, image: Prepared, found: Detections) -> None:
        pixels = image.source if image.source is not None else read_image(Path(item.file))
        picture = draw_boxes(
            pixels, found.boxes, found.labels, self.detector.classes, scores=found.scores
        )
        data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
        write_atomically(self.out / "pictures" / item.picture, data)


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
    """Yields the whole lines of a file of predictions; a line cut off at the end is left out."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def _run_all(
    run: _Run, source: str, every: int, patient: Any, *, coco: bool
) -> PredictResult | None:
    """Returns the result over all processes, in the first of them; None in the others."""
    started = time.perf_counter()
    counts = _total(run.over(find_items(source, every)), run.place, patient)
    if run.place.rank:
        return None
    if not (counts.images or counts.already_done or counts.skipped):
        raise DataError(f"no image in {source}")
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
    """What earlier runs have done: 8 bytes an image, in order, to look up."""

    def __init__(self, out: Path) -> None:
        files = sorted(out.glob("predictions*.jsonl"))
        keys = (
            _key(line["file"], line.get("frame")) for path in files for line in read_lines(path)
        )
        self._keys = np.unique(np.fromiter(keys, np.uint64))

    def __contains__(self, item: Item) -> bool:
        if not self._keys.size:
            return False
        key = _key(item.file, item.frame)
        at = int(np.searchsorted(self._keys, key))
        return at < len(self._keys) and bool(self._keys[at] == key)


def _key(file: str, frame: int | None) -> np.uint64:
    """Returns 64 bits that name an image; among ten million, two are equal once in 400,000 runs."""
    text = f"{file}\0{frame}".encode(errors="surrogateescape")
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


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of a new folder, or compares those of one that is gone on with."""
    path = out / "predict.json"
    if not path.exists():
        write_atomically(path, json.dumps(settings, indent=1) + "\n")
        return
    earlier = json.loads(path.read_text(encoding="utf-8"))
    for name, value in settings.items():
        if earlier.get(name) != value:
            raise UsageError(
                f"{out} holds predictions with another {name.removesuffix('_sha256')}",
                expected=f"{name} {earlier.get(name)}, got {value}",
                hint="the same options as before, or another folder: --out FOLDER",
            )


def _mend(out: Path, place: Place) -> None:
    """Cuts off half a line at the end of the files that fall to this process; drops old skips.

    An earlier run may have had another number of processes.
    """
    for path in out.glob("*.jsonl"):
        found = re.fullmatch(r"(predictions|skipped)(?:\.(\d+)-of-\d+)?\.jsonl", path.name)
        if found and int(found[2] or 0) % place.count == place.rank:
            if found[1] == "skipped":
                path.unlink()
            else:
                _cut_half_line(path)


def _cut_half_line(path: Path) -> None:
    with open(path, "rb+") as file:
        end = whole = file.seek(0, os.SEEK_END)
        while whole:
            begin = max(0, whole - (1 << 16))
            file.seek(begin)
            at = file.read(whole - begin).rfind(b"\n")
            if at >= 0:
                whole = begin + at + 1
                break
            whole = begin
        if whole < end:
            file.truncate(whole)


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
    with _replacing(results) as found, _replacing(images) as known:
        found.write("[")
        known.write('{"categories": ' + json.dumps(categories) + ', "images": [')
        between = ""
        everything = (line for path in lines for line in read_lines(path))
        for number, line in enumerate(everything, start=1):
            known.write(("" if number == 1 else ",\n") + json.dumps(_coco_image(line, number)))
            for one in _coco_results(line, number):
                found.write(between + json.dumps(one))
                between = ",\n"
        found.write("]\n")
        known.write("]}\n")
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


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    """Gives a file to write that takes the name ``path`` when all is written."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


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


def _wait(place: Place) -> None:
    if place.count > 1:
        torch.distributed.barrier()


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
