"""A trained model by engine and precision: how fast each is on this machine, and at which AP."""

import logging
import tempfile
import time
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray
from torch import nn

from fldet.benchmark.clock import TIMED, WARMUP, Batch, WatchedBatches, milliseconds, take_turns
from fldet.benchmark.predict import images_of_the_test
from fldet.benchmark.results import EngineRow, EngineTable
from fldet.benchmark.summary import check_against
from fldet.checkpoints.files import read_checkpoint
from fldet.checkpoints.model import load_model
from fldet.checkpoints.paths import resolve_checkpoint
from fldet.devices import has_bfloat16
from fldet.engine.doctor import machine
from fldet.errors import FldetError, UsageError
from fldet.evaluation.figures import Figures
from fldet.inference.detector import Detector, read_config
from fldet.inference.engines import require
from fldet.inference.export import describe_model, write_model
from fldet.inference.exported import ExportedModel, load_exported
from fldet.inference.int8 import calibration_images, quantize, tested_on_cpu
from fldet.models.fast.optimize import as_in_mmdetection, optimized

log = logging.getLogger("fldet")

STOCK = "mmdet"
PRECISIONS = ("fp32", "bf16", "int8")
# The precisions that each engine has.
OFFERED = {
    "torch": ("fp32", "bf16"),
    "onnxruntime": ("fp32", "int8"),
    "openvino": PRECISIONS,
}
REST = 0.02  # seconds after which the threads of an engine no longer spin, waiting for work


def engine_table(
    cfg: Config,
    checkpoint: Path,
    *,
    engines: Sequence[str] = tuple(OFFERED),
    precisions: Sequence[str] | None = None,
    calibrate: str | None = None,
    num_images: int = 50,
    max_images: int | None = None,
    against: str | None = None,
) -> EngineTable:
    """Times a trained model by engine and precision on the CPU, and measures the AP of each.

    All are timed in turns on the same test images, each as it predicts: torch by an optimized copy,
    the others by an exported file with the post-processing inside. What fails is kept as such.

    Args:
        cfg: as ``load_config`` returned it; its test images are used.
        checkpoint: the weights, or a work dir.
        engines: keys of ``OFFERED``.
        precisions: ``fp32``, ``bf16``, ``int8``; those that an engine has not are left out for it.
            None is all that the processor computes in.
        calibrate: images that say which range the 8-bit integers cover, a source as of ``fldet
            predict``; None takes images of the training.
        num_images: images timed, after those for warming up.
        max_images: AP of the first so many test images only.
        against: ``mmdet`` has MMDetection's own code in float32 as the first row.

    Raises:
        UsageError: an engine or precision twice or unknown, or none that goes with another.
        ConfigError, DataError, CheckpointError: see ``fldet.errors``.
    """
    if precisions is None:
        precisions = ("fp32", *(["bf16"] if has_bfloat16(torch.device("cpu")) else []), "int8")
    pairs = wanted_pairs(engines, precisions)
    check_against(against)
    if against:
        pairs.insert(0, (STOCK, "fp32"))
    path = resolve_checkpoint(checkpoint)
    loaded = load_model(cfg, path, phases=("test",))
    with tempfile.TemporaryDirectory(prefix="fldet_engines_") as folder:
        made = _Models(cfg, path, loaded.model, Path(folder), calibrate)
        models: dict[tuple[str, str], nn.Module] = {}
        failed = []
        for pair in pairs:
            try:
                model: Any = made.model(*pair)
                model.test_step(next(images_of_the_test(loaded.cfg)))
                models[pair] = model
            except FldetError as error:
                hint = f"; {error.hint}" if error.hint else ""
                failed.append(EngineRow(*pair, error=error.message + hint))
                log.warning("%s in %s: %s", *pair, failed[-1].error)
        log.info("timing %d models in turns", len(models))
        watched = WatchedBatches(
            islice(images_of_the_test(loaded.cfg), num_images + WARMUP["cpu"]), torch.device("cpu")
        )
        times = _times_in_turns(list(models.values()), watched)
        figures = []
        for pair, model in models.items():
            log.info("testing %s in %s", *pair)
            figures.append(_tested(cfg, path, pair, model, max_images))
    rows = [
        EngineRow(
            *pair,
            median_ms=float(np.median(times[:, column])),
            p90_ms=float(np.percentile(times[:, column], 90)),
            speedup=float(np.median(times[:, 0] / times[:, column])),
            ap=figures[column].main,
            lost=100 * (figures[0].main - figures[column].main),
        )
        for column, pair in enumerate(models)
    ]
    return EngineTable(
        checkpoint=str(path),
        rows=(*rows, *failed),
        num_images=len(times),
        tested_images=figures[0].num_images if figures else 0,
        image_shape=watched.most_frequent_shape if models else (0, 0),
        threads=torch.get_num_threads(),
        timed=TIMED,
        machine=machine(),
    )


def wanted_pairs(engines: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str]]:
    """Returns each engine with each precision that it has, in the order of the arguments.

    Raises:
        UsageError: one of them is unknown or there twice, or nothing is left.
    """
    known = {"engines": tuple(OFFERED), "precisions": PRECISIONS}
    for option, values in (("engines", engines), ("precisions", precisions)):
        for value in values:
            if value not in known[option] or list(values).count(value) > 1:
                raise UsageError(
                    f"--{option} {' '.join(values)}",
                    expected=f"some of {', '.join(known[option])}, each once",
                )
    pairs = [(one, other) for one in engines for other in precisions if other in OFFERED[one]]
    if not pairs:
        raise UsageError(
            f"--engines {' '.join(engines)} --precisions {' '.join(precisions)}",
            expected="; ".join(f"{name}: {', '.join(has)}" for name, has in OFFERED.items()),
        )
    return pairs


class _Models:
    """Makes the models that are compared; what several of them need is made once."""

    def __init__(
        self, cfg: Config, path: Path, model: nn.Module, folder: Path, calibrate: str | None
    ) -> None:
        self._cfg, self._path, self._torch = cfg, path, model
        self._folder, self._calibrate = folder, calibrate

    def model(self, engine: str, precision: str) -> nn.Module:
        """Returns a model whose ``test_step`` runs on an engine.

        Raises:
            FldetError: it cannot be had.
        """
        if engine == STOCK:
            return as_in_mmdetection(self._torch)
        if engine == "torch":
            return optimized(self._torch, precision=precision)
        for package in ("onnx", "onnxscript"):
            require(package)
        file = self._in_int8() if precision == "int8" else self._in_float()
        rest = "fp32" if precision == "int8" else precision
        return ExportedModel(load_exported(file, "cpu", engine, rest))

    def _in_float(self) -> Path:
        file = self._folder / "float.onnx"
        if not file.exists():
            detector = Detector.load(self._path, self._cfg, "cpu")
            cfg = read_config(read_checkpoint(self._path), self._path, self._cfg)
            log.info("exporting %s", self._path)
            write_model(detector, describe_model(detector, cfg, "inside"), file)
        return file

    def _in_int8(self) -> Path:
        file = self._folder / "int8.onnx"
        if not file.exists():
            quantize(self._in_float(), file, calibration_images(self._calibrate or self._cfg))
        return file


def _times_in_turns(models: Sequence[nn.Module], batches: Iterable[Batch]) -> NDArray[np.float64]:
    """Returns milliseconds by image and model, as ``time_in_turns``, of models that are at work.

    Before each turn is a rest, and one run of the same image that does not count: threads of the
    engine before may spin on for a while, and those of this one take time to wake up.
    """
    if not models:
        return np.zeros((0, 0))

    def step(model: Any, batch: Batch) -> float:
        time.sleep(REST)
        model.test_step(batch)
        return milliseconds(model, batch)

    with torch.inference_mode():
        return take_turns([partial(step, model) for model in models], batches, warmup=WARMUP["cpu"])


def _tested(
    cfg: Config, path: Path, pair: tuple[str, str], model: nn.Module, max_images: int | None
) -> Figures:
    engine, precision = pair
    how: dict[str, Any] = {"exported": model}
    if engine in ("torch", STOCK):
        how = {"precision": precision if engine == "torch" else None}
    return tested_on_cpu(cfg, path, max_images=max_images, **how).figures
