"""Predicting on any number of images: lines as they come, pictures, a results file.

Every process takes each N-th image and appends to a file of its own. A later run reads these files
and goes on with what is not in them. In memory: a few batches of images, the names in one folder,
and, when going on, 8 bytes for each image that is done.
"""

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass, field
from datetime import timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any

import cv2

from fldet.data.slicing.views import Views
from fldet.errors import (
    DataError,
    FileSystemError,
    UsageError,
    explained_file_errors,
    nearest,
)
from fldet.files import write_atomically
from fldet.inference.detections import Detections
from fldet.inference.folder import (
    DEFAULT_OUT,
    FORMATS,
    GO_ON,
    PICTURES,
    Found,
    Place,
    _already_there,
    _check_folder,
    _claimed,
    _Done,
    _finish,
    _holds_predictions,
    _identity,
    _mend,
    _opened,
    _settings,
    as_line,
)
from fldet.inference.image_detector import SURE, ImageDetector, PreparedImage, chunks
from fldet.inference.onnx import load_detector
from fldet.inference.results import PredictResult
from fldet.inference.sources import Item, check_source, find_items, fixed_part
from fldet.pictures.boxes import DrawOptions, draw_boxes, read_image
from fldet.processes import adopt_launcher, process_count, process_rank
from fldet.progress import make_bar

log = logging.getLogger("fldet")

SECONDS_BETWEEN_LINES = 30.0
MOST_TOLD = 100  # images whose detections are in the result


@dataclass
class Counts:
    """What a process has done."""

    images: int = 0
    already_done: int = 0
    boxes: int = 0
    skipped: int = 0


def predict(
    checkpoint: Path,
    source: str,
    out: Path | None = None,
    *,
    config: str | None = None,
    formats: Sequence[str] = ("pictures",),
    score_thr: float | None = None,
    thresholds: Path | None = None,
    batch_size: int = 8,
    every: int = 1,
    views: Views | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    engine: str | None = None,
    precision: str | None = None,
    decoder: str | None = None,
    launcher: str = "none",
    trust_checkpoint: bool = False,
    agnostic_nms: bool = False,
    drawing: DrawOptions | None = None,
) -> PredictResult | None:
    """Finds objects in all images of a source and writes them into a folder.

    docs/predict.md says which files. Images that cannot be read are named in ``skipped.jsonl``. In
    several processes, all but the first return None.

    Args:
        checkpoint: the weights, a work dir, an exported model, or a cross-validation.
        source: see ``find_items``.
        out: the folder; made if it is not there. None is the first of ``predictions``,
            ``predictions_2``, ... without predictions; to go on, the last one with some.
        config: for a checkpoint that carries none.
        formats: names of ``FORMATS``.
        score_thr: lowest score of all classes, in [0, 1]. None is what an exported model carries,
            else 0.3.
        thresholds: in its place those of each class, a file of ``fldet analyze thresholds``.
        batch_size: most images at once.
        every: of a video, only each so many-th frame.
        views: how each image is looked at; None once, as a whole.
        resume: go on with what an earlier run into ``out`` has left.
        overwrite: remove what an earlier run into ``out`` has written.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        engine: what runs an ONNX file: see ``Detector.load``.
        precision: ``fp32`` or ``bf16``: see ``Detector.load``.
        decoder: ``fast`` or ``exact``: see ``Detector.use_decoder``; None is as the config says.
        launcher: see ``fldet.processes.adopt_launcher``.
        trust_checkpoint: see ``Detector.load``.
        agnostic_nms: see ``Detector.load``.
        drawing: what is left out of the pictures, and how thick their lines are.

    Raises:
        FldetError: a wrong option, no image, ``out`` holds other predictions or is in use, no such
            checkpoint, no room.
    """
    place, device = _place(launcher, device)
    # under torchrun the first process refuses for all: it ends the others
    if place.rank == 0 or "TORCHELASTIC_RUN_ID" not in os.environ:
        check_options(source, out, formats, resume=resume, overwrite=overwrite)
        check_scores(score_thr, thresholds)
    check_source(source, place.count)
    items = _begun(find_items(source, every), source)
    detector = load_detector(
        *(checkpoint, config, device, views),
        trust=trust_checkpoint,
        agnostic_nms=agnostic_nms,
        engine=engine,
        precision=precision,
        decoder=decoder,
    )
    detector.use_thresholds(thresholds)
    if score_thr is None and detector.thresholds is None:
        score_thr = SURE
    with _groups(place) as patient, contextlib.ExitStack() as held:
        held.enter_context(explained_file_errors(out or DEFAULT_OUT, hint=GO_ON))
        if place.rank == 0:
            settings = _settings(checkpoint, detector, score_thr)
            settings |= {"agnostic_nms": True} if agnostic_nms else {}
            settings |= {"precision": precision} if precision == "bf16" else {}
            steps: Any = getattr(detector, "pipeline", ({},))
            settings |= {"decoder": "fast"} if "largest" in steps[0] else {}
            out = held.enter_context(_claimed(out, settings, resume, overwrite))
        out = _shared(out, place)
        kept = detector.thresholds if score_thr is None else score_thr
        log.info("predicting on %s, scores from: %s", _device_name(detector.device), kept)
        picture = (drawing or DrawOptions()) if "pictures" in formats else None
        run = _Run(detector, out, place, picture, score_thr, batch_size)
        return _run_all(run, items, patient, formats)


def _device_name(device: Any) -> str:
    if isinstance(device, str):
        return device
    from fldet.devices import device_name

    return device_name(device)


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


def check_scores(score_thr: float | None, thresholds: Path | None) -> None:
    """Does nothing if one threshold or a file of them is given, or neither."""
    if score_thr is not None and thresholds is not None:
        raise UsageError("--score-thr and --thresholds", expected="one of the two")


def _begun(items: Iterator[Item], source: str) -> Iterator[Item]:
    """Returns the items, of which there is at least one."""
    first = next(items, None)
    if first is None:
        raise DataError(f"no image in {source}")
    return chain([first], items)


@dataclass
class _Run:
    """The share of one process."""

    detector: ImageDetector
    out: Path
    place: Place
    pictures: DrawOptions | None  # None draws none
    score_thr: float | None  # None: the thresholds of the detector
    batch_size: int
    counts: Counts = field(default_factory=Counts)
    first: list[str] = field(default_factory=list)  # the lines of the first images

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
            looked_at: list[Found] = []
            try:
                for window in self._windows(mine, pool):
                    # written while the network looks at the next ones
                    ready, looked_at = looked_at, self._look_at(window, pool)
                    self._write(ready, lines, skipped)
                    show(self.counts)
            finally:
                self._write(looked_at, lines, skipped)
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
    ) -> Iterator[list[tuple[Item, PreparedImage | DataError]]]:
        """Yields images for a few batches; the next ones are read while these are worked on."""
        ahead: list[tuple[Item, Future[PreparedImage | DataError]]] = []
        contents = ((item, item.read()) for item in items)
        for chunk in chunks(contents, self.detector.images_at_once(self.batch_size)):
            begun = [(item, pool.submit(self._prepare, content)) for item, content in chunk]
            if ahead:
                yield [(item, future.result()) for item, future in ahead]
            ahead = begun
        if ahead:
            yield [(item, future.result()) for item, future in ahead]

    def _prepare(self, content: Any) -> PreparedImage | DataError:
        if isinstance(content, DataError):
            return content
        try:
            return self.detector.prepare(content)
        except DataError as error:
            return error

    def _look_at(
        self, window: list[tuple[Item, PreparedImage | DataError]], pool: ThreadPoolExecutor
    ) -> list[Found]:
        """Returns what is in a window; its pictures are drawn meanwhile."""
        images: list[Any] = [image for _, image in window if not isinstance(image, DataError)]
        found = iter(self.detector.detect(images, self.score_thr, self.batch_size))
        done = []
        for item, image in window:
            if isinstance(image, DataError):
                done.append(Found(item, image))
                continue
            one = next(found)
            picture = pool.submit(self._draw, item, image, one) if self.pictures else None
            done.append(Found(item, image, one, picture))
        return done

    def _write(self, window: list[Found], lines: Any, skipped: Any) -> None:
        """Writes a window; a line is written after its picture."""
        for one in window:
            fault = one.image if isinstance(one.image, DataError) else one.fault_of_picture()
            if fault is not None:
                self._skip(one.item, fault, skipped)
        for one in window:
            if isinstance(one.image, DataError) or one.found is None:
                continue
            line = as_line(one.item, one.image, one.found)
            lines.write(line)
            self.first += [line] if len(self.first) < MOST_TOLD else []
            self.counts.boxes += len(one.found)
            self.counts.images += 1
        for file in (lines, skipped):
            file.flush()
            os.fsync(file.fileno())

    def _skip(self, item: Item, error: DataError, skipped: Any) -> None:
        self.counts.skipped += 1
        skipped.write(json.dumps({**_identity(item), "reason": error.message}) + "\n")
        log.warning("skipped: %s", error.message)

    def _draw(self, item: Item, image: PreparedImage, found: Detections) -> DataError | None:
        """Writes a picture; returns why there is none, if the others can still be drawn."""
        try:
            pixels = image.source if image.source is not None else read_image(Path(item.file))
            picture = draw_boxes(
                pixels,
                found.boxes,
                found.labels,
                self.detector.classes,
                scores=found.scores,
                options=self.pictures or DrawOptions(),
                smallest=1,  # the boxes of the lines lie on the picture
            )
            data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
            with explained_file_errors(hint=GO_ON):
                write_atomically(self.out / PICTURES / item.picture, data)
        except FileSystemError:
            raise
        except (DataError, UsageError, OSError, cv2.error) as error:
            reason = str(error).splitlines()[0]
            return DataError(f"cannot draw the picture of {item.file}: {reason}")
        return None


def _run_all(
    run: _Run, items: Iterator[Item], patient: Any, formats: Sequence[str]
) -> PredictResult | None:
    """Returns the result over all processes, in the first of them; None in the others."""
    started = time.perf_counter()
    counts = _total(run.over(items), run.place, patient)
    if run.place.rank:
        return None
    return PredictResult(
        out=run.out,
        **asdict(counts),
        files=_finish(run.out, run.detector.classes, formats),
        seconds=time.perf_counter() - started,
        pictures=run.out / PICTURES if (run.out / PICTURES).is_dir() else None,
        detections=tuple(map(json.loads, run.first)),
    )


def _place(launcher: str, device: str) -> tuple[Place, str]:
    """Returns which process this is, and its device."""
    if adopt_launcher(launcher) == "none":
        return Place(), device
    import torch

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
    if place.count == 1:
        yield None
        return
    import torch

    from fldet.engine.process_group import process_group

    with process_group("pytorch", torch.device("cpu")):
        yield torch.distributed.new_group(timeout=timedelta(days=30))


def _shared(folder: Path | None, place: Place) -> Path:
    """Returns the folder that the first process holds."""
    told: list[Any] = [folder]
    if place.count > 1:
        import torch

        torch.distributed.broadcast_object_list(told)
    return told[0]


def _total(counts: Counts, place: Place, patient: Any) -> Counts:
    """Returns the sum over all processes of a group, when all are done."""
    if place.count == 1:
        return counts
    import torch

    every: list[Any] = [None] * place.count
    torch.distributed.all_gather_object(every, counts, patient)
    return Counts(*map(sum, zip(*map(astuple, every), strict=True)))


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
