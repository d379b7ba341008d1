"""Time per image of detectors, and where it goes."""

import os
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fldet.ops import active_backend

TIMED = (
    "from the loaded pixels to the final boxes (test_step): normalisation, network, decoding, "
    "suppression; on a GPU the copy to it and the wait for the results; not reading, decoding and "
    "resizing the file"
)
STAGES = ("preprocess", "backbone", "neck", "head", "post-process")


def time_per_image(
    model: nn.Module, batches: Iterable[dict[str, Any]], *, warmup: int = 3
) -> NDArray[np.float64]:
    """Returns the milliseconds of each image; arguments as ``time_in_turns``."""
    return time_in_turns([model], batches, warmup=warmup)[:, 0]


def time_in_turns(
    models: Sequence[nn.Module], batches: Iterable[dict[str, Any]], *, warmup: int = 3
) -> NDArray[np.float64]:
    """Returns the milliseconds of each image (row) by each model (column).

    Every image goes through all models before the next one, each time in another order. ``TIMED``
    says what is counted.

    Args:
        models: in evaluation mode, on their device.
        batches: of one image each, as a test loader gives them.
        warmup: first images, run but not counted.

    Raises:
        ValueError: no image is left after the warm-up.
    """
    rows = []
    with torch.inference_mode():
        for index, batch in enumerate(batches):
            row = [0.0] * len(models)
            for turn in range(len(models)):
                which = (index + turn) % len(models)
                row[which] = _milliseconds(models[which], batch)
            rows.append(row)
    if len(rows) <= warmup:
        raise ValueError(f"no image left to time after {warmup} for warming up")
    return np.array(rows[warmup:], dtype=np.float64)


def time_stages(
    model: nn.Module, batches: Iterable[dict[str, Any]], *, warmup: int = 1
) -> dict[str, float]:
    """Returns the median milliseconds of each of ``STAGES``.

    Args:
        model: a single-stage detector as for ``time_in_turns``; another one gives no stages.
        batches: of one image each.
        warmup: first images, run but not counted.
    """
    if not (hasattr(model, "backbone") and hasattr(model, "bbox_head")):
        return {}
    with torch.inference_mode():
        laps = [_laps(model, batch) for batch in batches][warmup:]
    return dict(zip(STAGES, np.median(laps, axis=0).tolist(), strict=True)) if laps else {}


def machine() -> dict[str, str]:
    """Returns what a time depends on besides the model: processor, cores, versions, operators."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nms": active_backend()["nms"],
    }


def _milliseconds(model: Any, batch: dict[str, Any]) -> float:
    start = _now()
    model.test_step(batch)
    return _now() - start


def _laps(model: Any, batch: dict[str, Any]) -> list[float]:
    """Returns the milliseconds of each stage, doing what ``test_step`` does."""
    marks = [_now()]
    data = model.data_preprocessor(batch, False)
    marks.append(_now())
    maps = model.backbone(data["inputs"])
    marks.append(_now())
    if model.with_neck:
        maps = model.neck(maps)
    marks.append(_now())
    outputs = model.bbox_head(maps)
    marks.append(_now())
    samples = data["data_samples"]
    found = model.bbox_head.predict_by_feat(
        *outputs, batch_img_metas=[sample.metainfo for sample in samples], rescale=True
    )
    model.add_pred_to_datasample(samples, found)
    marks.append(_now())
    return np.diff(marks).tolist()


def _now() -> float:
    """Returns the milliseconds of a clock, after all work on a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * time.perf_counter()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
