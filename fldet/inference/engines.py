"""The programs that run ONNX files: onnxruntime, and OpenVINO where it is asked for."""

import os
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fldet.errors import CheckpointError, UnavailableError, UsageError, nearest
from fldet.files import GIB, read_bytes
from fldet.processes import core_count

KEY = "fldet"  # the entry of the metadata that describes the model
ENGINES = ("onnxruntime", "openvino")

Array = npt.NDArray[Any]
RunArrays = Callable[[dict[str, Array]], list[Array]]


def open_engine(
    path: Path,
    engine: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    precision: str | None = None,
) -> tuple[RunArrays, str]:
    """Returns what runs an ONNX file, and what the file says of its model.

    The former takes arrays by the names of the inputs, those that the model lacks left out, and
    returns the outputs in their order. All arithmetic is in float32, or what is asked for, but what
    the file has in int8.

    Args:
        path: the file.
        engine: one of ``ENGINES``; None is onnxruntime.
        device: ``cpu``, or for onnxruntime ``cuda:N``.
        threads: on the CPU; None for as many as torch would take.
        precision: ``fp32``, which None is too, or ``bf16``, which OpenVINO alone has.

    Raises:
        CheckpointError: the engine cannot read the file; of the function, cannot run it.
        UnavailableError: the engine is not installed.
        UsageError: another engine, OpenVINO on a GPU, or bfloat16 in onnxruntime.
    """
    if engine not in (None, *ENGINES):
        raise UsageError(
            f"unknown engine {engine!r}",
            expected=nearest(str(engine), ENGINES) or " or ".join(ENGINES),
        )
    # Not by its path: weights in other files, which a model may name, are for those who wrote them.
    data = read_bytes(path, "exported model", expected="a whole .onnx file", most=2 * GIB)
    if engine == "openvino":
        if device != "cpu":
            raise UsageError(f"--engine openvino on {device}", expected="--device cpu")
        return _open_openvino(path, data, threads or thread_count(), precision or "fp32")
    if precision == "bf16":
        raise UsageError(
            "--precision bf16 with onnxruntime, which has no such arithmetic for convolutions",
            expected="--engine openvino",
        )
    session = _session(path, data, device, threads or thread_count(), optimized=True)
    names = {one.name for one in session.get_inputs()}

    def run(inputs: dict[str, Array]) -> list[Array]:
        return list(session.run(None, {name: inputs[name] for name in names}))

    return _explained(run, path), _text(session)


def _open_openvino(path: Path, data: bytes, threads: int, precision: str) -> tuple[RunArrays, str]:
    core = _openvino_core()
    text = _text(
        _session(path, data, "cpu", threads, optimized=False)
    )  # OpenVINO drops the metadata
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        # by itself it takes bfloat16 where the processor has it
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
    }
    try:
        request = core.compile_model(core.read_model(data), "CPU", settings).create_infer_request()
    except Exception as error:  # its errors have no common parent
        raise unreadable(path, error) from error
    names = {one.get_any_name() for one in request.model_inputs}

    def run(inputs: dict[str, Array]) -> list[Array]:
        request.infer({name: inputs[name] for name in names})
        return [np.array(one.data) for one in request.output_tensors]

    return _explained(run, path), text


@cache
def _openvino_core() -> Any:
    """Returns OpenVINO, which is opened once and closed by the end of the process.

    With its first model it gives the running thread a stack for signal handlers, and frees it when
    it is closed. Closed by another thread, it leaves the first one with the address of a stack that
    is gone, and the next signal that has a handler, such as the end of a loader process, ends the
    process without a word (OpenVINO 2026.4).
    """
    return _import_openvino().Core()


def _import_openvino() -> Any:
    """Returns the package, imported without what tells its makers of each import."""
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    reporting = "openvino_telemetry"
    before = sys.modules.get(reporting)
    sys.modules[reporting] = None  # type: ignore[assignment]
    try:
        return require("openvino", "openvino, for --engine openvino", "openvino")
    finally:
        del sys.modules[reporting]
        if before is not None:
            sys.modules[reporting] = before


def _session(path: Path, data: bytes, device: str, threads: int, *, optimized: bool) -> Any:
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    if not optimized:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers: list[Any] = ["CPUExecutionProvider"]
    if device != "cpu":
        number = int(device.partition(":")[2] or 0)
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": number}))
    try:
        return runtime.InferenceSession(data, options, providers=providers)
    except Exception as error:  # onnxruntime's kinds have no common parent
        raise unreadable(path, error) from error


def _text(session: Any) -> str:
    return str(session.get_modelmeta().custom_metadata_map.get(KEY, ""))


def _explained(run: RunArrays, path: Path) -> RunArrays:
    def explained(inputs: dict[str, Array]) -> list[Array]:
        try:
            return run(inputs)
        except Exception as error:  # neither engine's kinds have a common parent
            raise CheckpointError(f"{path} cannot find objects: {_reason(error)}") from error

    return explained


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """Returns the error about a file that its runtime cannot read."""
    return CheckpointError(f"cannot read the exported model {path}: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Returns the first line of an error that says more than a place in OpenVINO's code."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception from")]
    return (said or [type(error).__name__])[0]


def require(package: str, needed: str = "", extra: str = "export") -> Any:
    """Returns a package of ``requirements/export.txt``, or of another extra."""
    try:
        return import_module(package)
    except ImportError as error:
        raise UnavailableError(
            f"the package {package} cannot be imported: {error}",
            expected=needed or "onnx, onnxscript and onnxruntime, which fldet needs for ONNX only",
            hint="in a clone of fldet: pip install -c requirements/constraints.txt -e "
            f"'.[{extra}]'",
        ) from error


def has_cuda() -> bool:
    """Returns whether the onnxruntime that is installed runs on NVIDIA's GPUs."""
    return "CUDAExecutionProvider" in require("onnxruntime").get_available_providers()


def thread_count() -> int:
    """Returns how many threads torch would take."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    return int(named) if named.isascii() and named.isdigit() and int(named) else core_count()
