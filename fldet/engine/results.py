"""What a training and a test return."""

import dataclasses
from collections.abc import Hashable
from pathlib import Path

from fldet.evaluation.figures import Figures


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What ``fldet train`` leaves behind.

    Attributes:
        work_dir: folder with the resolved config, logs and checkpoints.
        last_checkpoint: the newest checkpoint.
        best_checkpoint: the checkpoint with the best validation AP, None without validation.
        iterations: batches of the last checkpoint, those of earlier runs and passed-over ones too.
        final_losses: training losses at the end, averaged over the last logging window.
        best_ap: best validation AP in [0, 1], None without validation.
        seconds: wall time of this run.
        skipped_batches: batches passed over because their loss was not finite.
        ended_early: why this run ended before its last iteration; '' if it did not.
    """

    work_dir: Path
    last_checkpoint: Path | None
    best_checkpoint: Path | None
    iterations: int
    final_losses: dict[str, float]
    best_ap: float | None
    seconds: float
    skipped_batches: int = 0
    ended_early: str = ""


@dataclasses.dataclass(frozen=True)
class PrecisionCheck:
    """AP of a model as it was tested beside that of MMDetection's own code in float32.

    Attributes:
        stock_ap: MMDetection's AP on the same images, in [0, 1].
        difference: AP as tested minus ``stock_ap``, in points (hundredths); NaN without ground
            truth.
        tolerance: largest difference that was allowed, in points, up or down.
        within: whether it was kept.
    """

    stock_ap: float
    difference: float
    tolerance: float
    within: bool


@dataclasses.dataclass(frozen=True)
class TestResult:
    """What ``fldet test`` measures.

    Attributes:
        figures: of the first metric.
        checkpoint: the weights tested.
        work_dir: folder of the log.
        results_file: detections in the COCO results format, None without the COCO metric.
        pictures: the pictures drawn, prediction beside ground truth.
        seconds: wall time of the loop over the images.
        precision: data type of the network.
        optimized: whether an optimized copy of the model was tested.
        check: the comparison with MMDetection's code, None if not asked for.
        others: figures of further metrics, by their names.
        image_ids: of the images tested; None for all of the annotation file.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    figures: Figures
    checkpoint: Path
    work_dir: Path
    results_file: Path | None
    pictures: tuple[Path, ...]
    seconds: float
    precision: str = "float32"
    optimized: bool = False
    check: PrecisionCheck | None = None
    others: dict[str, Figures] = dataclasses.field(default_factory=dict)
    image_ids: tuple[Hashable, ...] | None = None
