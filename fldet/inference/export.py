"""Exporting a model to ONNX or TorchScript.

The file takes images that are resized, normalized and padded; how, is written into its metadata.
Batch and size are free, but that of SSD has the one size that all images are warped to. With the
post-processing inside it gives boxes, without it the raw maps.
"""

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmdet.models.dense_heads import AnchorHead
from mmengine.config import Config
from torch import Tensor, nn

from fldet import __version__
from fldet.checkpoints.files import read_checkpoint
from fldet.checkpoints.model import load_test_config, model_in_words
from fldet.checkpoints.paths import resolve_checkpoint
from fldet.config.load import load_config
from fldet.config.sizes import warped_size
from fldet.errors import ConfigError, UsageError, explained_file_errors, shorten
from fldet.files import atomic_path
from fldet.inference.detector import Detector, read_config
from fldet.inference.engines import KEY, require
from fldet.inference.exported import as_text, load_exported
from fldet.inference.int8 import calibration_images, compare_ap, quantize
from fldet.inference.networks import RawMaps, network_with_boxes
from fldet.inference.parity import compare, first_images, is_within
from fldet.inference.results import ExportResult, Int8Result
from fldet.models.backbones.efficientnet_lite import HalvingConv2d
from fldet.models.dense_heads.ssd_head import SSDHead
from fldet.models.dense_heads.yolov2_head import YOLOv2Head
from fldet.package.card import checked_licence
from fldet.package.facts import Sources
from fldet.package.write import card_of, write_card

log = logging.getLogger("fldet")


@dataclass(frozen=True)
class Int8Options:
    """How a model goes into 8-bit integers, and what that may cost."""

    # images whose maps say which range the integers cover: a source, as of predict; None takes
    # images of the training
    calibrate: str | None = None
    max_lost: float = 0.5  # points of AP
    max_images: int | None = None  # that AP is measured on; None for all


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
    thresholds: Path | None = None,
    licence: str | None = None,
    int8: Int8Options | None = None,
) -> ExportResult:
    """Writes a model as ONNX or TorchScript and compares it with the checkpoint on images.

    A card about the model is written beside it: ``fldet.package.card``.

    Args:
        checkpoint: the weights, or a work dir.
        format: ``onnx`` or ``torchscript``.
        out: the file; by default beside the checkpoint.
        post_process: ``inside`` the file (decoding, the best of each level, NMS of each class) or
            ``outside``; by default inside for ONNX. TorchScript has it outside only.
        opset: of ONNX; torch's choice if None.
        check: images to compare on: a file, folder or glob pattern; the first twenty of it.
        config: for a checkpoint that carries none.
        thresholds: of ``fldet analyze thresholds``; the file carries them, and ``fldet predict``
            uses them.
        licence: of the model, for the card; None leaves it open.
        int8: writes the convolutions in 8-bit integers, and measures the AP of both; ONNX only, and
            not with ``check``, whose tolerance is that of rounding.

    Raises:
        UsageError: a wrong option, thresholds that do not fit, a model of another kind, or the
            file exists.
        UnavailableError: a package is missing.
        CheckpointError, ConfigError, DataError: see ``fldet.errors``.
    """
    where, stated = _check_options(format, post_process), checked_licence(licence)
    if int8 and (format != "onnx" or check):
        raise UsageError(
            "--int8 is for ONNX, and measures AP in the place of --check",
            expected="neither --format torchscript nor --check",
        )
    path = resolve_checkpoint(checkpoint)
    file = _free_file(out or path.with_suffix(f".{format}"), f".{format}")
    for package in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        require(package)
    detector = Detector.load(path, config, "cpu", thresholds=thresholds)
    cfg = read_config(read_checkpoint(path), path, config)  # of a detector that was just built
    images = first_images(detector, check) if check else []
    description = describe_model(detector, cfg, where)
    _check_thresholds(detector, description)
    log.info("writing %s", file)
    if int8:
        cfg = _config_of_the_test(checkpoint, config)
        cost = _write_int8(detector, description, file, opset, int8, cfg)
    else:
        cost = None
        write_model(detector, description, file, opset)
    if images:
        log.info("comparing with the checkpoint on %d images, and timing both", len(images))
    parity = compare(detector, load_exported(file, "cpu", trust=True), images) if images else None
    within = None if parity is None else is_within(parity)
    given = Sources(thresholds=thresholds)
    card = write_card(checkpoint, file, licence=stated, config=config, sources=given)
    size = file.stat().st_size / 2**20
    return ExportResult(file, format, where, size, parity, within, card, cost)


def _config_of_the_test(checkpoint: Path, config: str | None) -> Config:
    """Returns the config that is named, else that of the work dir, or package, of a checkpoint."""
    if config is not None:
        return load_config(config)
    home = checkpoint if checkpoint.is_dir() else checkpoint.parent
    try:
        return load_test_config(home)
    except ConfigError as error:
        raise UsageError(
            f"--int8 tests on images, and {home} has no config: {error.message}",
            expected="a checkpoint in its work dir, or a config",
            hint="--config CONFIG",
        ) from error


def _write_int8(
    detector: Detector,
    description: dict[str, Any],
    file: Path,
    opset: int | None,
    options: Int8Options,
    cfg: Config,
) -> Int8Result:
    """Writes the file in int8 once the AP of both is known; whatever it is, the file stays."""
    images = calibration_images(options.calibrate or cfg)
    with tempfile.TemporaryDirectory(prefix="fldet_int8_") as folder:
        in_float, in_int8 = (Path(folder, f"{kind}.onnx") for kind in ("float32", "int8"))
        write_model(detector, description, in_float, opset)
        quantize(in_float, in_int8, images)
        log.info("testing both on the images of %s", cfg.filename)
        cost = compare_ap(
            cfg, in_float, in_int8, max_lost=options.max_lost, max_images=options.max_images
        )
        with explained_file_errors(file), atomic_path(file) as temporary:
            shutil.copyfile(in_int8, temporary)
    return cost


def _check_thresholds(detector: Detector, description: Mapping[str, Any]) -> None:
    lowest = 1.0 if detector.thresholds is None else detector.thresholds.lowest
    if description["post_process"] == "inside" and lowest < description["score_thr"]:
        raise UsageError(
            f"a threshold of {lowest:g} is below the score_thr of the model",
            expected=f"{description['score_thr']:g} or more: the file leaves lower scores out",
            hint="--post-process outside leaves all scores in",
        )


def _free_file(file: Path, ending: str) -> Path:
    if file.suffix != ending:
        raise UsageError(f"--out {file} has another ending", expected=f"a name with {ending}")
    for one in (file, card_of(file)):
        if one.exists():
            raise UsageError(f"{one} exists", expected="a new file: --out FILE")
    return file


def write_model(
    detector: Detector, description: dict[str, Any], file: Path, opset: int | None = None
) -> None:
    """Writes a model as ONNX or TorchScript, by the ending of the file; see ``describe_model``."""
    inside = description["post_process"] == "inside"
    network = (network_with_boxes if inside else RawMaps)(detector.model)
    for module in network.modules():
        if isinstance(module, HalvingConv2d):  # all maps that are halved, down to stride 32
            module.exported_sides_are_even = detector.size_divisor % 32 == 0
    write = _write_onnx if file.suffix == ".onnx" else _write_torchscript
    with explained_file_errors(file), atomic_path(file) as temporary:
        write(network.eval(), description, temporary, opset)


def describe_model(detector: Detector, cfg: Config, where: str) -> dict[str, Any]:
    """Returns what a user of the exported file must know, in Python's plain types."""
    head: Any = getattr(detector.model, "bbox_head", None)
    is_ssd = isinstance(head, SSDHead)
    if not (is_ssd or isinstance(head, YOLOv2Head) or _has_anchors_and_sigmoids(head)):
        raise UsageError(
            f"cannot export a {model_in_words(detector.model)}",
            expected="a one-stage detector with anchors and sigmoid scores, such as RetinaNet; "
            "with fldet.SSDHead, or with fldet.YOLOv2Head",
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
        **({"thresholds": detector.thresholds.scores} if detector.thresholds else {}),
        **(_of_ssd(detector, cfg) if is_ssd else {}),
    }


def _of_ssd(detector: Detector, cfg: Config) -> dict[str, Any]:
    """Returns what the description of an SSD has besides, or in the place of that of others."""
    size = warped_size(detector.pipeline)
    if size is None:
        raise UsageError(
            "an SSD is exported for images of one size, and the test pipeline makes others",
            expected="Resize(scale=(WIDTH, HEIGHT), keep_ratio=False) in the test pipeline",
        )
    head = {**cfg.model.bbox_head, "test_cfg": cfg.model.test_cfg}
    head["in_channels"] = [1] * len(head["in_channels"])  # its layers are in the file
    head["stacked_convs"] = 0
    return {
        "size": list(size),
        "scores": "softmax, background last",
        "nms_pre_per_class": cfg.model.test_cfg.get("nms_pre_per_class"),
        "bbox_head": literal(head),
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
    sides = {} if "size" in description else {2: free, 3: free}
    shapes: dict[str, Any] = {"images": {0: free, **sides}, "sizes": {0: free}}
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
    """Returns inputs of the one size that the images have, else of one that is not special."""
    side = max(64, description["size_divisor"])
    size = description.get("size", (3 * side, 4 * side))
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
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
