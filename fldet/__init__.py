"""RetinaNet and the focal loss (arXiv 1708.02002) on MMEngine and MMDetection.

Importing this package costs next to nothing: the names below are loaded at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_PUBLIC = {
    "load_config": "fldet.config.load",
    "train": "fldet.engine.train",
    "test": "fldet.engine.test",
    "build_model": "fldet.checkpoints.model",
    "init_config": "fldet.analysis.init",
    "inspect_data": "fldet.analysis.dataset.inspect",
    "Detector": "fldet.inference.detector",
    "Detections": "fldet.inference.detections",
    "Predictions": "fldet.inference.detections",
    "FldetError": "fldet.errors",
}
_ROOMS = (
    "analyze",
    "benchmark",
    "compare",
    "folds",
    "package",
    "report",
)  # called as fldet.benchmark.benchmark(...)

__all__ = [
    "Detections",
    "Detector",
    "FldetError",
    "Predictions",
    "__version__",
    "analyze",
    "benchmark",
    "build_model",
    "compare",
    "folds",
    "init_config",
    "inspect_data",
    "load_config",
    "package",
    "report",
    "test",
    "train",
]

if TYPE_CHECKING:
    from fldet import analyze, benchmark, compare, folds, package, report
    from fldet.analysis.dataset.inspect import inspect_data
    from fldet.analysis.init import init_config
    from fldet.checkpoints.model import build_model
    from fldet.config.load import load_config
    from fldet.engine.test import test
    from fldet.engine.train import train
    from fldet.errors import FldetError
    from fldet.inference.detections import Detections, Predictions
    from fldet.inference.detector import Detector


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    if name in _ROOMS:
        return import_module(f"fldet.{name}")
    raise AttributeError(f"module 'fldet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
