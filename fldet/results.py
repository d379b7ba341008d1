"""What commands produce: frozen dataclasses that turn into JSON with a schema number."""

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA = 1

# The twelve figures of the COCO evaluation, in the order of its own summary.
COCO_FIGURES = (
    "AP",
    "AP50",
    "AP75",
    "AP_S",
    "AP_M",
    "AP_L",
    "AR1",
    "AR10",
    "AR100",
    "AR_S",
    "AR_M",
    "AR_L",
)


@dataclasses.dataclass(frozen=True)
class Figures:
    """Figures of one set of detections.

    Attributes:
        summary: figures by name, in [0, 1]; NaN where the ground truth has no box of that kind.
            The first one is what the detections are judged by.
        per_class: AP by class name, in [0, 1]; NaN for classes without a box.
        num_images: images evaluated.
        num_detections: detections evaluated.
        engine: the implementation that computed them.
    """

    summary: dict[str, float]
    per_class: dict[str, float]
    num_images: int
    num_detections: int
    engine: str


@dataclasses.dataclass(frozen=True)
class CocoFigures(Figures):
    """COCO box figures: ``summary`` has the names in ``COCO_FIGURES``.

    ``per_class`` is AP over IoU .50:.95. At most 100 detections of an image and class count.
    """


@dataclasses.dataclass(frozen=True)
class VocFigures(Figures):
    """Pascal VOC figures: ``summary`` has ``mAP`` and ``mAP_11``.

    ``per_class`` is the area under the whole curve (VOC 2010 and later), and ``mAP`` its mean over
    classes with a box; ``mAP_11`` is that of ``per_class_11``.

    Attributes:
        per_class_11: mean precision at eleven recalls (VOC 2007), by class name.
    """

    per_class_11: dict[str, float]


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What ``fldet train`` leaves behind.

    Attributes:
        work_dir: folder with the resolved config, logs and checkpoints.
        last_checkpoint: the newest checkpoint.
        best_checkpoint: the checkpoint with the best validation AP, None without validation.
        iterations: optimizer steps done in total, earlier runs that were resumed counted in.
        final_losses: training losses at the end, averaged over the last logging window.
        best_ap: best validation AP in [0, 1], None without validation.
        seconds: wall time of this run.
    """

    work_dir: Path
    last_checkpoint: Path | None
    best_checkpoint: Path | None
    iterations: int
    final_losses: dict[str, float]
    best_ap: float | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class TestResult:
    """What ``fldet test`` measures.

    Attributes:
        figures: of the first metric.
        checkpoint: the weights tested.
        work_dir: folder of the log.
        results_file: detections in the COCO results format, None if not asked for.
        pictures: the pictures drawn, prediction beside ground truth.
        seconds: wall time of the loop over the images.
        others: figures of further metrics, by their names.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    figures: Figures
    checkpoint: Path
    work_dir: Path
    results_file: Path | None
    pictures: tuple[Path, ...]
    seconds: float
    others: dict[str, Figures] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SpeedResult:
    """Time per image of a model, batch 1, end to end without reading the file.

    Attributes:
        median_ms: median over the timed images.
        p90_ms: 90th percentile.
        num_images: timed images, after the warm-up.
        image_shape: (height, width) that the network saw, in pixels.
        device: device and its name.
        precision: data type of the network.
        threads: CPU threads that torch used.
    """

    median_ms: float
    p90_ms: float
    num_images: int
    image_shape: tuple[int, int]
    device: str
    precision: str
    threads: int


def to_json(command: str, value: Any) -> str:
    """Returns the JSON object of a result, as ``--json`` prints it.

    Args:
        command: what made it, ``test``.
        value: what ``to_jsonable`` takes.
    """
    from fldet import __version__

    content = {
        "schema": SCHEMA,
        "command": command,
        "version": __version__,
        "result": to_jsonable(value),
    }
    return json.dumps(content, indent=1)


def to_jsonable(value: Any) -> Any:
    """Returns ``value`` in JSON's types: dataclasses as objects, paths as text, NaN as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_jsonable(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_atomically(path: Path, data: str | bytes) -> Path:
    """Writes ``data`` under a temporary name in the same folder, then renames it to ``path``.

    A reader sees the old file or the whole new one, never a part; parents are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
