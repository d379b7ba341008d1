"""What is timed."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class SpeedComparison:
    """The same model timed in another way, in the same process and on the same images."""

    name: str  # what it was compared with, ``mmdet``: MMDetection's own code in float32
    median_ms: float  # its median over the timed images
    # how many times as long it took; median of the ratios image by image, so that a slow spell of
    # the machine hits both sides
    speedup: float


@dataclasses.dataclass(frozen=True)
class SpeedResult:
    """Time of a model: of an image end to end without reading the file, or of a training step."""

    median_ms: float  # median over the timed images, of which each is a batch; or over the steps
    p90_ms: float  # 90th percentile
    num_images: int  # timed images or steps, after the warm-up
    image_shape: tuple[int, int]  # (height, width) that the network saw, before padding, in pixels
    device: str  # device and its name
    precision: str  # data type of the network
    threads: int  # CPU threads that torch used
    p99_ms: float = math.nan  # 99th percentile
    # 1000 times the images of a batch, over the mean of the times
    images_per_second: float = math.nan
    # median of each stage, of images from a second run over at most ten; those of a detector with
    # RPN are others. Empty for other detectors, and for training steps of more than one stage
    stages_ms: dict[str, float] = dataclasses.field(default_factory=dict)
    optimized: bool = False  # whether an optimized copy of the model was timed
    compiled: bool = False  # whether the network ran through torch.compile
    against: SpeedComparison | None = None  # the comparison, None if not asked for
    timed: str = ""  # what is inside ``median_ms`` and what is not, in words
    # processor, cores and versions
    machine: dict[str, str] = dataclasses.field(default_factory=dict)
    training: bool = False  # whether training steps were timed
    batch_size: int = 1  # images of a training step; 1 otherwise
    warmup: int = 0  # images or steps that were run before the timed ones
    weights: str = "random"  # the checkpoint, or ``random``
    parameters: int = 0  # numbers of the model that are learned; 0 where not counted
    cuda_graph: bool = False  # whether the network was replayed as CUDA graphs
    # billions of operations of the network for one image, or of a step, backward included; 2 for a
    # multiply-add. NaN where they cannot be counted.
    gflop: float = math.nan
    # best rates of the machine in the same data type, billions a second: a convolution of the head
    # (``conv``) and a product of matrices (``matmul``)
    machine_gflops: dict[str, float] = dataclasses.field(default_factory=dict)
    peak_share: float = math.nan  # ``gflop`` in ``median_ms`` over the larger of ``machine_gflops``
    # the most memory that one image or step took; NaN where it is not known
    peak_memory_mib: float = math.nan
    memory: str = ""  # what ``peak_memory_mib`` is, in words

    @property
    def command(self) -> str:
        """Name in JSON, the same for all spellings; a step does not pass for an image."""
        return "benchmark --train" if self.training else "benchmark"


@dataclasses.dataclass(frozen=True)
class SpeedCell:
    """One depth and scale of a table of times."""

    depth: int  # of the ResNet
    scale: int  # shorter side of the image in pixels
    paper_ms: float | None  # the paper's time, on an Nvidia M40; None where it has none
    result: SpeedResult | None  # None if it failed
    error: str = ""  # why it failed, empty if it did not


@dataclasses.dataclass(frozen=True)
class SpeedRow:
    """One of several configs."""

    name: str  # stem of the config
    result: SpeedResult | None  # None if it failed
    error: str = ""  # why it failed, empty if it did not


@dataclasses.dataclass(frozen=True)
class SpeedsSideBySide:
    """Times of several configs on one machine."""

    rows: tuple[SpeedRow, ...]  # while it is made, those that are done

    @property
    def command(self) -> str:
        """Name in JSON."""
        return "benchmark table"


@dataclasses.dataclass(frozen=True)
class EngineRow:
    """A trained model, run by one engine in one precision."""

    engine: str  # ``torch``, ``onnxruntime``, ``openvino``, or ``mmdet``: MMDetection's own code
    precision: str  # ``fp32``, ``bf16`` or ``int8``
    median_ms: float = math.nan  # median over the timed images
    p90_ms: float = math.nan  # 90th percentile
    # how many times as fast as the first row; median of the ratios image by image
    speedup: float = math.nan
    ap: float = math.nan  # of the test images
    lost: float = math.nan  # points of AP less than the first row
    error: str = ""  # why it failed, empty if it did not


@dataclasses.dataclass(frozen=True)
class EngineTable:
    """Times and AP of a trained model by engine and precision, on one machine."""

    checkpoint: str  # the weights
    rows: tuple[EngineRow, ...]  # the first that did not fail is what the others are compared with
    num_images: int  # timed by all rows in turns, after the warm-up
    tested_images: int  # that AP is of
    image_shape: tuple[int, int]  # (height, width) of most timed images, before padding, in pixels
    threads: int  # CPU threads of each engine
    timed: str  # what is inside the times and what is not, in words
    machine: dict[str, str]  # processor, cores and versions

    @property
    def command(self) -> str:
        """Name in JSON."""
        return "benchmark engines"

    def fastest(self, most_lost: float = math.inf) -> EngineRow | None:
        """Returns the fastest row that loses at most so many points of AP; None if all failed."""
        rows = [row for row in self.rows if not row.error and row.lost <= most_lost]
        return min(rows, key=lambda row: row.median_ms, default=None)


@dataclasses.dataclass(frozen=True)
class SpeedTable:
    """Times by depth and scale, in the shape of Table 1e."""

    config: str  # of the models
    cells: tuple[SpeedCell, ...]  # by depth, then by scale; while it is made, those that are done

    @property
    def command(self) -> str:
        """Name in JSON, the same for all spellings of the command."""
        return "benchmark --scales"
