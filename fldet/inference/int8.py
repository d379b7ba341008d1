"""Exported models in 8-bit integers: ONNX Runtime's static quantization, and what it costs in AP.

Convolutions get int8 weights with a scale for each channel, and uint8 maps with one scale, in the
QDQ format that onnxruntime and OpenVINO both run. Weights keep 7 bits: with 8, processors without
VNNI add two products in 16 bits that saturate, and find other boxes than those with it. In float32
stay the first three convolutions, the last ones, which give scores and boxes, group norms and sums.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.config import Config
from mmengine.registry import init_default_scope

from fldet.config.prepare import prepare_config
from fldet.engine.results import TestResult
from fldet.engine.test import test
from fldet.errors import DataError, UsageError
from fldet.inference.detector import as_batch
from fldet.inference.engines import KEY, require
from fldet.inference.exported import ExportedDetector, ExportedModel, load_exported
from fldet.inference.image_detector import Image
from fldet.inference.results import Int8Result
from fldet.inference.sources import find_items
from fldet.progress import with_progress
from fldet.registry import DATASETS

log = logging.getLogger("fldet")

CALIBRATION_IMAGES = 64
FIRST = 3  # convolutions that stay: they cost tenths of a point of AP, and save little time


def calibration_images(source: str | Config, count: int = CALIBRATION_IMAGES) -> Sequence[Image]:
    """Returns images, evenly spread; what cannot be read is named and left out.

    Args:
        source: as of ``find_items``, or a config, of which these are training images.
        count: most images.

    Raises:
        DataError: there is none.
        UsageError: the config has no training images.
    """
    contents: list[Any]
    if isinstance(source, str):
        contents = [item.read() for item in _spread(list(find_items(source)), count)]
    else:
        dataset = _training_images(source)
        numbers = _spread(range(len(dataset)), count)
        contents = [dataset.get_data_info(number)["img_path"] for number in numbers]
    for content in contents:
        if isinstance(content, DataError):
            log.warning("skipped: %s", content.message)
    images = [content for content in contents if not isinstance(content, DataError)]
    if not images:
        raise DataError(f"no image to calibrate on{f' in {source}' * isinstance(source, str)}")
    return images


def _spread(values: Sequence[Any], count: int) -> list[Any]:
    count = min(count, len(values))
    return [values[number * len(values) // count] for number in range(count)]


def _training_images(cfg: Config) -> Any:
    """Returns the training data set of a config.

    Raises:
        UsageError: it has none.
    """
    if not cfg.get("train_dataloader"):
        raise UsageError(
            "the config has no training images to calibrate on",
            expected="images like those of the training",
            hint="--calibrate IMAGES",
        )
    init_default_scope(cfg.get("default_scope", "mmdet"))
    return DATASETS.build(prepare_config(cfg, phases=("train",)).train_dataloader.dataset)


def _inputs(
    detector: ExportedDetector, images: Sequence[Image]
) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    """Yields one image after the other as the network takes it; says which cannot be read.

    Raises:
        DataError: none can.
    """
    has_one = False
    for image in with_progress(images, "images to calibrate on", len(images), in_log=True):
        try:
            inputs = detector.inputs(as_batch([detector.prepare(image)]))
        except DataError as error:
            log.warning("skipped: %s", error.message)
            continue
        yield {name: value.numpy() for name, value in inputs.items()}
        has_one = True
    if not has_one:
        raise DataError(f"none of the {len(images)} images to calibrate on can be read")


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silences the advice to fold constants first: the exporter has done so."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def quantize(file: Path, out: Path, images: Sequence[Image]) -> None:
    """Writes an exported ONNX file with its convolutions in int8.

    Args:
        file: of ``fldet export``, in float32.
        out: the file to write.
        images: whose maps say which range the integers cover.

    Raises:
        UnavailableError: a package is missing.
    """
    onnx = require("onnx")
    quantization = require("onnxruntime.quantization")
    model = onnx.load(file)
    names = {one.name for one in model.graph.input}
    prepared = _inputs(load_exported(file, "cpu"), images)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def get_next(self) -> dict[str, Any] | None:
            found = next(prepared, None)
            return found and {name: found[name] for name in names}

    with _without_advice():
        quantization.quantize_static(
            model,
            str(out),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=convolutions_in_float(model.graph),
            extra_options={"CalibMovingAverage": True},
        )
    properties = {one.key: one.value for one in model.metadata_props}
    properties |= {"precision": '"int8"', KEY: f"{properties[KEY]}\nprecision = 'int8'"}
    written = onnx.load(out)
    del written.metadata_props[:]
    onnx.helper.set_model_props(written, properties)
    onnx.save(written, out)


def convolutions_in_float(graph: Any) -> list[str]:
    """Returns the names of the first convolutions, and of those without another one behind them."""
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    leads: set[str] = set()  # names of values from which a convolution is reached
    last = []
    for node in reversed(graph.node):  # which are in topological order
        behind = any(name in leads for name in node.output)
        if node.op_type == "Conv" and not behind:
            last.append(node.name)
        if node.op_type == "Conv" or behind:
            leads.update(name for name in node.input if name)
    return [node.name for node in convolutions[:FIRST]] + last


def compare_ap(
    cfg: Config, float_file: Path, int8_file: Path, *, max_lost: float, max_images: int | None
) -> Int8Result:
    """Returns the AP of two exported files on the test images of a config, and their times.

    Args:
        cfg: as ``load_config`` returned it.
        float_file: the one in float32, tested first.
        int8_file: the other.
        max_lost: most points of AP that may be lost.
        max_images: only the first so many images.
    """
    models = (ExportedModel(load_exported(file, "cpu")) for file in (float_file, int8_file))
    in_float, in_int8 = (
        tested_on_cpu(cfg, float_file, max_images=max_images, exported=model) for model in models
    )
    lost = 100 * (in_float.figures.main - in_int8.figures.main)
    return Int8Result(
        *(in_float.figures.main, in_int8.figures.main, lost, max_lost),
        images=in_float.figures.num_images,
        float_ms=_milliseconds(in_float),
        int8_ms=_milliseconds(in_int8),
    )


def _milliseconds(result: TestResult) -> float:
    return 1000 * result.seconds / max(1, result.figures.num_images)


def tested_on_cpu(cfg: Config, checkpoint: Path, **options: Any) -> TestResult:
    """Returns what ``fldet.engine.test.test`` on the CPU returns, and keeps no file of it."""
    with tempfile.TemporaryDirectory(prefix="fldet_engines_") as folder:
        result = test(cfg, checkpoint, work_dir=Path(folder), device="cpu", **options)
    assert result is not None  # as in all but the first of several processes
    return result
