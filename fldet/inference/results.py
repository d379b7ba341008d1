"""What is found in images, and what is written about it."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one image, best scores first.

    Attributes:
        boxes: (N, 4) float32 xyxy in pixels of the image file, upright as its EXIF data say.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64 class numbers.
        names: N class names.
    """

    boxes: "npt.NDArray[np.float32]"
    scores: "npt.NDArray[np.float32]"
    labels: "npt.NDArray[np.int64]"
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def part(self, kept: "npt.NDArray[np.bool_]") -> "Detections":
        """Returns the objects for which ``kept`` (N,) is True."""
        names = tuple(name for name, keep in zip(self.names, kept, strict=True) if keep)
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept], names)


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
class ExportResult:
    """What ``fldet export`` leaves behind."""

    file: Path
    format: str  # ``onnx`` or ``torchscript``
    post_process: str  # ``inside`` or ``outside`` the file
    size_mib: float
    parity: ParityResult | None  # None if no images were given, as the next one
    within_tolerance: bool | None
