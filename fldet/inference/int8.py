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

from fldet.engine.test import test
from fldet.errors import DataError
from fldet.inference.detector import as_batch
from fldet.inference.engines import require
from fldet.inference.exported import ExportedDetector, ExportedModel, load_exported
from fldet.inference.image_detector import Image
from fldet.inference.results import Int8Result
from fldet.inference.sources import find_items
from fldet.progress import with_progress

log = logging.getLogger("fldet")

CALIBRATION_IMAGES = 64
FIRST = 3  # convolutions that stay: they cost tenths of a point of AP, and save little time


def calibration_images(source: str, count: int = CALIBRATION_IMAGES) -> Sequence[Image]:
    """Returns images of a source, evenly spread; what cannot be read is named and left out.

    Raises:
        DataError: there is none.
    """
    items = list(find_items(source))
    count = min(count, len(items))
    contents = [items[number * len(items) // count].read() for number in range(count)]
    for content in contents:
        if isinstance(content, DataError):
            log.warning("skipped: %s", content.message)
    images = [content for content in contents if not isinstance(content, DataError)]
    if not images:
        raise DataError(f"no image to calibrate on in {source}")
    return images


def _inputs(
    detector: ExportedDetector, images: Sequence[Image]
) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    """Yields one image after the other as the network takes it; says which cannot be read."""
    for image in with_progress(images, "images to calibrate on", len(images), in_log=True):
        try:
            inputs = detector.inputs(as_batch([detector.prepare(image)]))
        except DataError as error:
            log.warning("skipped: %s", error.message)
            continue
        yield {name: value.numpy() for name, value in inputs.items()}


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


def quantize(file: Path, out: Path, images: Sequence[Image], metadata: dict[str, str]) -> None:
    """Writes an exported ONNX file with its convolutions in int8.

    Args:
        file: of ``fldet export``, in float32.
        out: the file to write.
        images: whose maps say which range the integers cover.
        metadata: of the new file.

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
    written = onnx.load(out)
    del written.metadata_props[:]
    onnx.helper.set_model_props(written, metadata)
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
    figures, times = [], []
    for file in (float_file, int8_file):
        model = ExportedModel(load_exported(file, "cpu"))
        with tempfile.TemporaryDirectory(prefix="fldet_int8_") as folder:
            result = test(
                *(cfg, file),
                work_dir=Path(folder),
                max_images=max_images,
                device="cpu",
                exported=model,
            )
        assert result is not None  # as in all but the first of several processes
        figures.append(result.figures)
        times.append(1000 * result.seconds / max(1, result.figures.num_images))
    float_ap, int8_ap = (one.main for one in figures)
    return Int8Result(
        *(float_ap, int8_ap, 100 * (float_ap - int8_ap), max_lost),
        images=figures[0].num_images,
        float_ms=times[0],
        int8_ms=times[1],
    )
