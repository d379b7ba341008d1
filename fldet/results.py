"""What commands produce: frozen dataclasses that turn into JSON with a schema number."""

import contextlib
import dataclasses
import errno
import json
import math
import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SCHEMA = 1

# Bytes of a file's name that its temporary name begins with: systems allow 255.
_MOST_OF_A_NAME = 200

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

    @property
    def main(self) -> float:
        """The first figure of the summary: COCO's AP, Pascal VOC's mAP."""
        return next(iter(self.summary.values()))


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
    image_ids: tuple[Any, ...] | None = None


@dataclasses.dataclass(frozen=True)
class SpeedComparison:
    """The same model timed in another way, in the same process and on the same images.

    Attributes:
        name: what it was compared with, ``mmdet``: MMDetection's own code in float32.
        median_ms: its median over the timed images.
        speedup: how many times as long it took; median of the ratios image by image, so that a
            slow spell of the machine hits both sides.
    """

    name: str
    median_ms: float
    speedup: float


@dataclasses.dataclass(frozen=True)
class SpeedResult:
    """Time of a model: of an image end to end without reading the file, or of a training step.

    Attributes:
        median_ms: median over the timed images, of which each is a batch; or over the steps.
        p90_ms: 90th percentile.
        num_images: timed images or steps, after the warm-up.
        image_shape: (height, width) that the network saw, before padding, in pixels.
        device: device and its name.
        precision: data type of the network.
        threads: CPU threads that torch used.
        p99_ms: 99th percentile.
        images_per_second: 1000 times the images of a batch, over the mean of the times.
        stages_ms: median of each stage, of images from a second run over at most ten; empty for
            detectors of more than one stage.
        optimized: whether an optimized copy of the model was timed.
        compiled: whether the network ran through torch.compile.
        against: the comparison, None if not asked for.
        timed: what is inside ``median_ms`` and what is not, in words.
        machine: processor, cores and versions.
        training: whether training steps were timed.
        batch_size: images of a training step; 1 otherwise.
        warmup: images or steps that were run before the timed ones.
        weights: the checkpoint, or ``random``.
        cuda_graph: whether the network was replayed as CUDA graphs.
        gflop: billions of operations of the network for one image, or of a step, backward included;
            2 for a multiply-add. NaN where they cannot be counted.
        machine_gflops: best rates of the machine in the same data type, billions a second: a
            convolution of the head (``conv``) and a product of matrices (``matmul``).
        peak_share: ``gflop`` in ``median_ms`` over the larger of ``machine_gflops``.
        peak_memory_mib: the most memory that one image or step took; NaN where it is not known.
        memory: what ``peak_memory_mib`` is, in words.
    """

    median_ms: float
    p90_ms: float
    num_images: int
    image_shape: tuple[int, int]
    device: str
    precision: str
    threads: int
    p99_ms: float = math.nan
    images_per_second: float = math.nan
    stages_ms: dict[str, float] = dataclasses.field(default_factory=dict)
    optimized: bool = False
    compiled: bool = False
    against: SpeedComparison | None = None
    timed: str = ""
    machine: dict[str, str] = dataclasses.field(default_factory=dict)
    training: bool = False
    batch_size: int = 1
    warmup: int = 0
    weights: str = "random"
    cuda_graph: bool = False
    gflop: float = math.nan
    machine_gflops: dict[str, float] = dataclasses.field(default_factory=dict)
    peak_share: float = math.nan
    peak_memory_mib: float = math.nan
    memory: str = ""


@dataclasses.dataclass(frozen=True)
class SpeedCell:
    """One depth and scale of a table of times.

    Attributes:
        depth: of the ResNet.
        scale: shorter side of the image in pixels.
        paper_ms: the paper's time, on an Nvidia M40; None where it has none.
        result: None if it failed.
        error: why it failed, empty if it did not.
    """

    depth: int
    scale: int
    paper_ms: float | None
    result: SpeedResult | None
    error: str = ""


@dataclasses.dataclass(frozen=True)
class SpeedTable:
    """Times by depth and scale, in the shape of Table 1e.

    Attributes:
        config: of the models.
        cells: by depth, then by scale; while it is made, those that are done.
    """

    config: str
    cells: tuple[SpeedCell, ...]


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


@cache
def commit() -> str | None:
    """Returns the commit of the clone that fldet is imported from, with ``-dirty`` if changed.

    None for an installed package, or without git.
    """
    clone = Path(__file__).resolve().parent.parent
    if not (clone / ".git").exists():
        return None
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


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
        "commit": commit(),
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
    """Writes ``data`` as ``atomic_file`` does and returns ``path``.

    Raises:
        OSError: the system refuses; its ``filename`` is ``path``.
    """
    with atomic_file(path, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
    return path


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Gives a file to write into that takes the name ``path`` when the block ends well.

    A reader sees the old file or the whole new one, never a part, also after a crash of the
    machine. Text is in UTF-8. Parents are made. Who may read it is what the umask says.

    Args:
        path: the file.
        mode: ``w`` or ``wb``.

    Raises:
        OSError: the system refuses; its ``filename`` is ``path``.
    """
    encoding = None if "b" in mode else "utf-8"
    with atomic_path(path) as temporary, open(temporary, mode, encoding=encoding) as file:
        yield file


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives the temporary name of an empty file, for writers that want a name: ``atomic_file``.

    The file lies in the same folder and is new: no name that somebody could foresee is written to,
    and no symbolic link is followed.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = new_temporary_file(path)
        yield temporary
        _sync(temporary, os.O_RDWR)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            temporary.unlink(missing_ok=True)
        # not the temporary name, and none at all for a full disk
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    _sync_folder(path.parent)


def temporary_name(path: Path) -> Path:
    """Returns a name that nobody can foresee, hidden and in the same folder."""
    start = os.fsencode(path.name)[:_MOST_OF_A_NAME].decode(errors="ignore")
    return path.with_name(f".{start}.{secrets.token_hex(4)}")


def is_temporary_name(name: str, of: str) -> bool:
    """Returns whether ``temporary_name`` may have made it.

    Args:
        name: of a file.
        of: a regular expression for the whole name that the file would have got.
    """
    return bool(re.fullmatch(rf"\.(?:{of})\.[0-9a-f]{{8}}", name))


def new_temporary_file(path: Path) -> Path:
    """Makes an empty file under a ``temporary_name`` and returns it.

    Raises:
        OSError: the system refuses; its ``filename`` is ``path``.
    """
    while True:
        temporary = temporary_name(path)
        try:
            # not mkstemp, whose files nobody else may read: here the umask decides
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            continue
        except OSError as error:
            error.filename = str(path)
            raise
        return temporary


def require_writable(folder: Path) -> None:
    """Makes a folder if it is not there, and does nothing else if files can be made in it.

    Raises:
        OSError: they cannot; its ``filename`` is ``folder``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        error.filename = str(folder)
        raise


def _sync_folder(folder: Path) -> None:
    """Makes a new name last through a crash of the machine, where the system can do that."""
    if os.name == "posix":
        with contextlib.suppress(PermissionError):  # a folder that may be written to, not listed
            _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot
            raise
    finally:
        os.close(handle)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns rows as a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
