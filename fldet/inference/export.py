"""Exporting a model to ONNX or TorchScript.

The file takes images that are resized, normalized and padded; how, is written into its metadata.
Batch and size are free. With the post-processing inside it gives boxes, without it the raw maps.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmdet.models.dense_heads import AnchorHead
from mmengine.config import Config
from torch import Tensor, nn

from fldet import __version__
from fldet.checkpoints.files import read_checkpoint, resolve_checkpoint
from fldet.checkpoints.model import model_in_words
from fldet.errors import UsageError, explained_file_errors, shorten
from fldet.files import atomic_path
from fldet.inference.detector import Detector, read_config
from fldet.inference.exported import KEY, as_text, kinds_of_maps, load_exported, require
from fldet.inference.parity import compare, first_images, is_within
from fldet.inference.results import ExportResult
from fldet.models.dense_heads.yolov2_head import YOLOv2Head

FORMATS = {"onnx": ("inside", "outside"), "torchscript": ("outside",)}


def export(
    checkpoint: Path,
    *,
    format: str = "onnx",
    out: Path | None = None,
    post_process: str | None = None,
    opset: int | None = None,
    check: str | None = None,
    config: str | None = None,
) -> ExportResult:
    """Writes a model as ONNX or TorchScript and compares it with the checkpoint on images.

    Args:
        checkpoint: the weights, or a work dir.
        format: ``onnx`` or ``torchscript``.
        out: the file; by default beside the checkpoint.
        post_process: ``inside`` the file (decoding, the best of each level, NMS of each class) or
            ``outside``; by default inside for ONNX. TorchScript has it outside only.
        opset: of ONNX; torch's choice if None.
        check: images to compare on: a file, folder or glob pattern; the first twenty of it.
        config: for a checkpoint that carries none.

    Raises:
        UsageError: a wrong option, a model of another kind, or the file exists.
        UnavailableError: a package is missing.
        CheckpointError, ConfigError, DataError: see ``fldet.errors``.
    """
    where = _check_options(format, post_process)
    path = resolve_checkpoint(checkpoint)
    file = _free_file(out or path.with_suffix(f".{format}"), f".{format}")
    for package in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        require(package)
    detector = Detector.load(path, config, "cpu")
    cfg = read_config(read_checkpoint(path), path, config)  # of a detector that was just built
    images = first_images(detector, check) if check else []
    _write(detector, describe_model(detector, cfg, where), file, opset)
    parity = compare(detector, load_exported(file, "cpu", trust=True), images) if images else None
    within = None if parity is None else is_within(parity)
    return ExportResult(file, format, where, file.stat().st_size / 2**20, parity, within)


def _free_file(file: Path, ending: str) -> Path:
    if file.suffix != ending:
        raise UsageError(f"--out {file} has another ending", expected=f"a name with {ending}")
    if file.exists():
        raise UsageError(f"{file} exists", expected="a new file: --out FILE")
    return file


def _write(detector: Detector, description: dict[str, Any], file: Path, opset: int | None) -> None:
    """Writes the file under another name, then renames it."""
    inside = description["post_process"] == "inside"
    network = WithBoxes(detector.model) if inside else RawMaps(detector.model)
    write = _write_onnx if file.suffix == ".onnx" else _write_torchscript
    with explained_file_errors(file), atomic_path(file) as temporary:
        write(network.eval(), description, temporary, opset)


def describe_model(detector: Detector, cfg: Config, where: str) -> dict[str, Any]:
    """Returns what a user of the exported file must know, in Python's plain types."""
    head: Any = getattr(detector.model, "bbox_head", None)
    if not (isinstance(head, YOLOv2Head) or _has_anchors_and_sigmoids(head)):
        raise UsageError(
            f"cannot export a {model_in_words(detector.model)}",
            expected="a one-stage detector with anchors and sigmoid scores, such as RetinaNet, "
            "or YOLOv2",
        )
    test_cfg, before = head.test_cfg, cfg.model.data_preprocessor
    return {
        "version": __version__,
        "post_process": where,
        "classes": list(detector.classes),
        "pipeline": literal(detector.pipeline),
        "data_preprocessor": literal(before),
        "mean": list(before.get("mean") or [0.0] * 3),
        "std": list(before.get("std") or [1.0] * 3),
        "channel_order": "RGB" if before.get("bgr_to_rgb") else "BGR",
        "size_divisor": detector.size_divisor,
        "strides": [list(stride) for stride in head.prior_generator.strides],
        "anchors": [level.tolist() for level in head.prior_generator.base_anchors],
        "deltas": {
            key: list(getattr(getattr(head, "bbox_coder", None), key, ()))
            for key in ("means", "stds")
        },
        "score_thr": float(test_cfg.get("score_thr", 0.0)),
        "nms": literal(test_cfg.get("nms")),
        "nms_pre": int(test_cfg.get("nms_pre", -1)),
        "max_per_img": int(test_cfg.get("max_per_img", -1)),
        "bbox_head": literal({**cfg.model.bbox_head, "test_cfg": cfg.model.test_cfg}),
    }


def _has_anchors_and_sigmoids(head: Any) -> bool:
    return isinstance(head, AnchorHead) and bool(head.use_sigmoid_cls)


def literal(value: Any) -> Any:
    """Returns a value of a config in types that can be read back from text; tuples stay tuples."""
    if isinstance(value, Mapping):
        return {str(key): literal(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(literal(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UsageError(
        f"the config holds {shorten(value)}, which an exported file cannot",
        expected="numbers, text, lists, tuples and dicts",
    )


class RawMaps(nn.Module):
    """The network alone: class logits of all levels, then box deltas of all levels.

    Of YOLOv2 it is the one map of its head.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        levels = range(self.model.bbox_head.prior_generator.num_levels)
        return [
            f"{kind}_{level}" for kind in kinds_of_maps(self.model.bbox_head) for level in levels
        ]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns for each level (N, A * K, h, w), then for each level (N, A * 4, h, w)."""
        kinds = self.model.bbox_head(self.model.extract_feat(images))
        return tuple(level for levels in kinds for level in levels)


class WithBoxes(nn.Module):
    """The network with MMDetection's post-processing, plain NMS by class, for a whole batch."""

    outputs = ("boxes", "scores", "labels", "image")

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        cfg = self.model.bbox_head.test_cfg
        nms = cfg.get("nms") or {}
        self.score_thr, self.limit = float(cfg.score_thr), int(cfg.max_per_img)
        self.nms_pre, self.iou_threshold = int(cfg.get("nms_pre", -1)), nms.get("iou_threshold")
        agnostic = nms.get("class_agnostic", False)
        plain_nms = nms.get("type", "nms") == "nms" and self.iou_threshold and not agnostic
        if not plain_nms or self.nms_pre < 1 or self.limit < 1 or cfg.get("min_bbox_size", 0) > 0:
            raise UsageError(
                f"test_cfg {cfg.to_dict()} cannot be exported",
                expected="nms of type 'nms', nms_pre and max_per_img above 0, min_bbox_size 0",
                hint="--post-process outside",
            )

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Returns the boxes of all images, best first within each.

        Args:
            images: (N, 3, H, W), normalized and padded.
            sizes: (N, 2) float32, height and width of each image before padding, in pixels.

        Returns:
            (T, 4) boxes xyxy in pixels of the input, (T,) scores, (T,) labels, (T,) image numbers.
        """
        head = self.model.bbox_head
        levels = zip(*head(self.model.extract_feat(images)), strict=True)
        if isinstance(head, YOLOv2Head):
            best = [head.candidates(maps, self.nms_pre) for (maps,) in levels]
        else:
            best = [self._best(level, *maps) for level, maps in enumerate(levels)]
        boxes, scores, labels = (torch.cat(parts, dim=1) for parts in zip(*best, strict=True))
        limits = sizes.flip(1).repeat(1, 2).unsqueeze(1)
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        has_area = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        scores = torch.where(has_area, scores, torch.zeros_like(scores))
        moved = boxes + self._offsets(boxes, scores, labels)
        chosen = select(moved, scores[:, None], self.iou_threshold, self.score_thr, self.limit)
        image, row = chosen[:, 0], chosen[:, 2]
        return boxes[image, row], scores[image, row], labels[image, row], image

    def _best(self, level: int, scores: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns boxes (N, k, 4), scores (N, k) and labels of a level's best anchors and classes.

        There are always k; where the level has fewer, the rest have the score 0.
        """
        head, count = self.model.bbox_head, scores.shape[0]
        anchors = head.prior_generator.single_level_grid_priors(
            (scores.shape[2], scores.shape[3]), level, device=scores.device
        )
        logits = scores.permute(0, 2, 3, 1).flatten(1)
        filling = logits.new_full((count, self.nms_pre), float("-inf"))
        top, place = torch.cat([logits, filling], dim=1).topk(self.nms_pre, dim=1)
        place = torch.where(torch.isinf(top), torch.zeros_like(place), place)
        anchor, label = place // head.cls_out_channels, place % head.cls_out_channels
        deltas = deltas.permute(0, 2, 3, 1).reshape(count, -1, 4)
        deltas = deltas.gather(1, anchor.unsqueeze(2).expand(-1, -1, 4))
        flat = head.bbox_coder.decode(anchors[anchor].reshape(-1, 4), deltas.reshape(-1, 4))
        return flat.reshape(count, -1, 4), top.sigmoid(), label

    def _offsets(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """Returns (N, T, 1): moved by these, boxes of different classes do not touch."""
        counted = (scores > self.score_thr).unsqueeze(2)
        largest = torch.where(counted, boxes, torch.zeros_like(boxes)).amax(dim=(1, 2))
        return (labels.to(boxes) * (largest[:, None] + 1)).unsqueeze(2)


@torch.library.custom_op("fldet::select", mutates_args=())
def select(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_thr: float, limit: int
) -> Tensor:
    """Returns (T, 3) rows of image, 0 and box: what ONNX's NonMaxSuppression returns.

    Boxes are (N, M, 4) xyxy, scores (N, 1, M). A box goes if it overlaps a better one by more than
    ``iou_threshold``; only scores above ``score_thr`` count, and ``limit`` boxes of an image.
    """
    from fldet.ops.nms import nms

    rows = [torch.zeros(0, 3, dtype=torch.long)]
    for image, (some, score) in enumerate(zip(boxes, scores[:, 0], strict=True)):
        valid = (score > score_thr).nonzero()[:, 0]
        kept = valid[nms(some[valid], score[valid], iou_threshold)[:limit]]
        rows.append(torch.stack([torch.full_like(kept, image), torch.zeros_like(kept), kept], 1))
    return torch.cat(rows)


@select.register_fake
def _(boxes: Tensor, scores: Tensor, iou: float, score_thr: float, limit: int) -> Tensor:
    del scores, iou, score_thr, limit
    rows = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty((rows, 3), dtype=torch.long)


def _select_in_onnx() -> Callable[..., Any]:
    op: Any = require("onnxscript").opset18

    def translate(boxes: Any, scores: Any, iou: float, score_thr: float, limit: int) -> Any:
        limits = op.Constant(value_ints=[limit])
        thresholds = (op.Constant(value_floats=[value]) for value in (iou, score_thr))
        return op.NonMaxSuppression(boxes, scores, limits, *thresholds)

    return translate


def _write_onnx(
    network: nn.Module, description: dict[str, Any], path: Path, opset: int | None
) -> None:
    example = _example(network, description)
    free = torch.export.Dim.DYNAMIC
    shapes: dict[str, Any] = {"images": {0: free, 2: free, 3: free}, "sizes": {0: free}}
    names = list(shapes)[: len(example)]
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            network,
            example,
            dynamo=True,
            dynamic_shapes={name: shapes[name] for name in names},
            input_names=names,
            output_names=list(network.outputs),  # type: ignore[arg-type]
            opset_version=opset,
            custom_translation_table={torch.ops.fldet.select.default: _select_in_onnx()},
            verbose=False,
        )
        program.model.metadata_props.update(as_metadata(description))
        program.save(str(path), external_data=False)


def as_metadata(description: dict[str, Any]) -> dict[str, str]:
    """Returns the description as one entry, and what other programs want as entries of their own.

    The latter are JSON; the former is Python, as JSON would make lists of tuples.
    """
    inner = ("version", "pipeline", "data_preprocessor", "bbox_head")
    single = {name: json.dumps(one) for name, one in description.items() if name not in inner}
    return {KEY: as_text(description), **single}


def _write_torchscript(
    network: nn.Module, description: dict[str, Any], path: Path, opset: int | None
) -> None:
    del opset
    with _quiet(), torch.no_grad():
        trace: Any = torch.jit.trace
        traced = trace(network, _example(network, description), check_trace=False)
        # torch's own way to a file ends the process where the disk is full
        path.write_bytes(traced.save_to_buffer(_extra_files=as_metadata(description)))


def _example(network: nn.Module, description: dict[str, Any]) -> tuple[Tensor, ...]:
    """Returns inputs of a size that nothing is special about."""
    side = max(64, description["size_divisor"])
    images = torch.randn(2, 3, 3 * side, 4 * side, generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[2.5 * side, 4.0 * side], [3.0 * side, 3.5 * side]])
    return (images,) if isinstance(network, RawMaps) else (images, sizes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what the exporters say about themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _check_options(format: str, post_process: str | None) -> str:
    """Returns where the post-processing is, if the format can have it there."""
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}", expected=", ".join(FORMATS))
    where = post_process or FORMATS[format][0]
    if where not in FORMATS[format]:
        raise UsageError(
            f"--post-process {where} is not possible for {format}",
            expected=" or ".join(FORMATS[format]),
        )
    return where
