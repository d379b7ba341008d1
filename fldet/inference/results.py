"""What commands on images leave behind."""

import dataclasses
from pathlib import Path
from typing import Any

from fldet.moved import moved

__getattr__ = moved(__name__, {"fldet.inference.detections": ("Detections",)})


@dataclasses.dataclass(frozen=True)
class PredictResult:
    """What ``fldet predict`` leaves behind, over all its processes."""

    out: Path  # the folder of everything below
    images: int  # done in this run
    already_done: int  # images that an earlier run had done
    boxes: int  # found in this run
    skipped: int  # images that could not be read, or whose picture could not be drawn
    files: tuple[Path, ...]  # the lines of each process, and what was made of them
    seconds: float  # wall time of this run, loading of the model not counted
    pictures: Path | None = None  # the folder of the pictures, None without
    # what the lines of the first 100 images of this process hold
    detections: tuple[dict[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class ParityResult:
    """How an exported model differs from the checkpoint on real images."""

    images: int  # compared, as are the boxes
    boxes: int
    box_px: float  # largest difference of a coordinate, in pixels of the file
    score: float  # largest difference of a score
    unmatched: int  # boxes that only one of the two found
    torch_ms: float  # median time per image of the checkpoint, without reading the file
    exported_ms: float  # that of the exported model


@dataclasses.dataclass(frozen=True)
class Int8Result:
    """What 8-bit integers cost, on the test images of a config."""

    float_ap: float  # of the same exported model in float32, in [0, 1]
    int8_ap: float
    lost: float  # points (hundredths) of AP; below 0 where it rose, NaN without ground truth
    max_lost: float  # that were allowed
    images: int
    float_ms: float  # mean time of an image by onnxruntime, reading and evaluation included
    int8_ms: float

    @property
    def within(self) -> bool:
        """Whether no more was lost than allowed."""
        return not self.lost > self.max_lost


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What ``fldet export`` leaves behind."""

    file: Path
    format: str  # ``onnx`` or ``torchscript``
    post_process: str  # ``inside`` or ``outside`` the file
    size_mib: float
    parity: ParityResult | None  # None if no images were given, as the next one
    within_tolerance: bool | None
    card: Path | None = None  # what tells of the model, beside the file
    int8: Int8Result | None = None  # None for a file in float32
