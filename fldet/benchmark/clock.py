"""Time per image of detectors, and where it goes."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

TIMED = (
    "from the loaded pixels to the final boxes (test_step): normalisation, network, decoding, "
    "suppression; on a GPU, by its events, the copy to it and the wait for the results; not "
    "reading, decoding and resizing the file (stage load)"
)
STAGES = ("load", "preprocess", "backbone", "neck", "head", "post-process")
# Of a detector with RPN and a RoI head; the last stage begins with the last scores of the RoIs.
TWO_STAGES = (
    *("load", "preprocess", "backbone", "neck", "RPN", "proposals", "RoI head", "post-process"),
)
TIMED_TRAINING = (
    "one train_step: normalisation, network, targets and losses, backward, optimizer; on a GPU, by "
    "its events, the copy to it; not loading the batch (stage load)"
)
TRAINING_STAGES = ("load", "preprocess", "forward", "loss", "backward", "optimizer")
# Images or steps before those that count; a GPU needs more until its libraries have chosen.
WARMUP = {"cpu": 3, "cuda": 10}

Batch = dict[str, Any]


class Marks:
    """Moments on the clock of a device, the first when it is made.

    On a GPU they are events in its stream, which was empty at the first one, and the host waits for
    the last one only: the times between are those of the GPU, its waiting for the host included.

    Args:
        device: what does the work.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._moments: list[Any] = []
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.mark()

    def mark(self) -> None:
        """Adds the present moment."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            self._moments.append(event)
        else:
            self._moments.append(1000 * time.perf_counter())

    def laps_ms(self) -> list[float]:
        """Returns the milliseconds between one moment and the next."""
        if self._device.type == "cuda":
            self._moments[-1].synchronize()
            return [a.elapsed_time(b) for a, b in itertools.pairwise(self._moments)]
        return [b - a for a, b in itertools.pairwise(self._moments)]


class WatchedBatches:
    """Passes batches on and notes what they are and how long each was waited for.

    So far it has seen ``shapes``, the (height, width) in pixels of the first image of each batch,
    and ``waits_ms``, the milliseconds on the clock of the device until each of them came.
    """

    def __init__(self, batches: Iterator[Batch], device: torch.device) -> None:
        self._batches = batches
        self._device = device
        self.shapes: list[tuple[int, int]] = []
        self.waits_ms: list[float] = []

    def __iter__(self) -> Iterator[Batch]:
        while True:
            marks = Marks(self._device)
            batch = next(self._batches, None)
            if batch is None:
                return
            marks.mark()
            self.waits_ms.append(marks.laps_ms()[0])
            height, width = batch["inputs"][0].shape[-2:]
            self.shapes.append((int(height), int(width)))
            yield batch

    @property
    def most_frequent_shape(self) -> tuple[int, int]:
        """The (height, width) of most batches."""
        return max(set(self.shapes), key=self.shapes.count)


def time_in_turns(
    models: Sequence[nn.Module], batches: Iterable[Batch], *, warmup: int = 3
) -> NDArray[np.float64]:
    """Returns the milliseconds of each image (row) by each model (column), as ``TIMED`` says.

    Every image goes through all models, which are in evaluation mode, before the next one, each
    time in another order. Batches have one image each; the first ``warmup`` are run, not counted.

    Raises:
        ValueError: no image is left after the warm-up.
    """
    steps = [partial(milliseconds, model) for model in models]
    with torch.inference_mode():
        return take_turns(steps, batches, warmup=warmup)


def take_turns(
    steps: Sequence[Callable[[Batch], float]],
    batches: Iterable[Batch],
    *,
    warmup: int,
) -> NDArray[np.float64]:
    """Returns what each step (column) returns for each batch (row), as ``time_in_turns``."""
    rows = []
    for index, batch in enumerate(batches):
        row = [0.0] * len(steps)
        for turn in range(len(steps)):
            which = (index + turn) % len(steps)
            row[which] = steps[which](batch)
        rows.append(row)
    if len(rows) <= warmup:
        raise ValueError(f"no image left to time after {warmup} for warming up")
    return np.array(rows[warmup:], dtype=np.float64)


def time_stages(model: nn.Module, batches: Iterable[Batch], *, warmup: int = 1) -> dict[str, float]:
    """Returns the median milliseconds of each of ``STAGES``, or of ``TWO_STAGES``; {} of others.

    Batches have one image each; the time until the next one comes is the stage ``load``. The first
    ``warmup`` are run, not counted.
    """
    names: tuple[str, ...] = STAGES
    if all(hasattr(model, part) for part in ("backbone", "rpn_head", "roi_head")):
        names, laps_of = TWO_STAGES, _laps_of_two_stages
    elif hasattr(model, "backbone") and hasattr(model, "bbox_head"):
        laps_of = _laps
    else:
        return {}
    with torch.inference_mode():
        laps = list(laps_of(model, iter(batches)))[warmup:]
    return dict(zip(names, np.median(laps, axis=0).tolist(), strict=True)) if laps else {}


def milliseconds(model: Any, batch: Batch) -> float:
    """Returns how long a model takes for a batch."""
    marks = Marks(_device(model))
    model.test_step(batch)
    marks.mark()
    return marks.laps_ms()[0]


def _laps(model: Any, batches: Iterator[Batch]) -> Iterator[list[float]]:
    """Yields the milliseconds of each stage of each image, doing what ``test_step`` does."""
    while True:
        marks = Marks(_device(model))
        batch = next(batches, None)
        if batch is None:
            return
        marks.mark()
        data = model.data_preprocessor(batch, False)
        marks.mark()
        maps = model.backbone(data["inputs"])
        marks.mark()
        if model.with_neck:
            maps = model.neck(maps)
        marks.mark()
        outputs = model.bbox_head(maps)
        marks.mark()
        samples = data["data_samples"]
        found = model.bbox_head.predict_by_feat(
            *outputs, batch_img_metas=[sample.metainfo for sample in samples], rescale=True
        )
        model.add_pred_to_datasample(samples, found)
        marks.mark()
        yield marks.laps_ms()


def _laps_of_two_stages(model: Any, batches: Iterator[Batch]) -> Iterator[list[float]]:
    """Yields the milliseconds of each of ``TWO_STAGES`` of each image, inside ``test_step``."""
    while True:
        marks = Marks(_device(model))
        batch = next(batches, None)
        if batch is None:
            return
        marks.mark()
        ended = ["load"]  # the stage that ends at each mark after the first

        def end(stage: str, marks: Marks = marks, ended: list[str] = ended) -> None:
            marks.mark()
            ended.append(stage)

        with _ends_of_stages(model, end):
            model.test_step(batch)
        end("post-process")
        laps = dict.fromkeys(TWO_STAGES, 0.0)
        for stage, ms in zip(ended, marks.laps_ms(), strict=True):
            laps[stage] += ms
        yield list(laps.values())


@contextmanager
def _ends_of_stages(model: Any, end: Callable[[str], None]) -> Iterator[None]:
    """Calls ``end`` with the name of each stage that is over, but the last, while it is open."""
    modules = {
        "preprocess": model.data_preprocessor,
        "backbone": model.backbone,
        "neck": model.neck if model.with_neck else None,
        "RPN": model.rpn_head,
    }
    heads = model.roi_head.bbox_head
    with ExitStack() as stack:
        for stage, module in modules.items():
            if module is not None:
                hook = module.register_forward_hook(lambda *_, stage=stage: end(stage))
                stack.callback(hook.remove)
        wrap_method(stack, model.rpn_head, "predict", after=partial(end, "proposals"))
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            wrap_method(stack, head, "predict_by_feat", before=partial(end, "RoI head"))
        yield


def wrap_method(
    stack: ExitStack, owner: Any, name: str, *, before: Any = None, after: Any = None
) -> None:
    """Has a method of one object preceded and followed by a call, as long as the stack is open."""
    method = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        if before:
            before()
        result = method(*args, **options)
        if after:
            after()
        return result

    owner.__dict__[name] = wrapped
    stack.callback(partial(owner.__dict__.pop, name))


def _device(model: Any) -> torch.device:
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
