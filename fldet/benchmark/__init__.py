"""Milliseconds and images per second: of models, of training steps, of the paper's tables.

``benchmark(cfg, ...)`` times a model on images, ``benchmark_training(cfg, ...)`` its training step,
``speed_table(...)`` a model by depth and scale, ``speeds_side_by_side(configs)`` several,
``engine_table(cfg, checkpoint, ...)`` a trained one by engine and precision, with its AP. They
return results and print nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fldet import _compat

_compat.install()

_PUBLIC = {
    "OptimizedCopy": "predict",
    "benchmark": "predict",
    "benchmark_training": "training",
    "engine_table": "engines",
    "speed_table": "table",
    "speeds_side_by_side": "side_by_side",
}

__all__ = [
    "OptimizedCopy",
    "benchmark",
    "benchmark_training",
    "engine_table",
    "speed_table",
    "speeds_side_by_side",
]

if TYPE_CHECKING:
    from fldet.benchmark.engines import engine_table
    from fldet.benchmark.predict import OptimizedCopy, benchmark
    from fldet.benchmark.side_by_side import speeds_side_by_side
    from fldet.benchmark.table import speed_table
    from fldet.benchmark.training import benchmark_training


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
