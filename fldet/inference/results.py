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


@dataclasses.dataclass(frozen=True)
class PredictResult:
    """What ``fldet predict`` leaves behind, over all its processes.

    Attributes:
        out: the folder of everything below.
        images: images done in this run.
        already_done: images that an earlier run had done.
        boxes: boxes found in this run.
        skipped: images that could not be read, or whose picture could not be drawn.
        files: what was written: the lines of each process, and what was made of them.
        seconds: wall time of this run, loading of the model not counted.
    """

    out: Path
    images: int
    already_done: int
    boxes: int
    skipped: int
    files: tuple[Path, ...]
    seconds: float


@dataclasses.dataclass(frozen=True)
class ParityResult:
    """How an exported model differs from the checkpoint on real images.

    Attributes:
        images: images compared.
        boxes: boxes compared.
        box_px: largest difference of a coordinate, in pixels of the file.
        score: largest difference of a score.
        unmatched: boxes that only one of the two found.
        torch_ms: median time per image of the checkpoint, without reading the file.
        exported_ms: that of the exported model.
    """

    images: int
    boxes: int
    box_px: float
    score: float
    unmatched: int
    torch_ms: float
    exported_ms: float


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What ``fldet export`` leaves behind.

    Attributes:
        file: the exported model.
        format: ``onnx`` or ``torchscript``.
        post_process: ``inside`` or ``outside`` the file.
        size_mib: of the file.
        parity: None if no images were given.
        within_tolerance: None if no images were given.
    """

    file: Path
    format: str
    post_process: str
    size_mib: float
    parity: ParityResult | None
    within_tolerance: bool | None
