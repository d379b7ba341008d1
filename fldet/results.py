"""What commands produce: frozen dataclasses that turn into JSON with a schema number."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from fldet.about import commit
from fldet.moved import moved

SCHEMA = 1
ANALYSES = Path("work_dirs/analysis")  # where analyses write, unless told otherwise

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Analysis(Generic[Result]):
    """What an analysis found.

    Attributes:
        result: its figures.
        files: that it wrote, pictures and data.
    """

    result: Result
    files: list[Path]


__getattr__ = moved(
    __name__,
    {
        "fldet.files": ("write_atomically", "atomic_file", "atomic_path", "require_writable"),
        "fldet.text": ("markdown_table",),
        "fldet.evaluation.figures": ("COCO_FIGURES", "Figures", "CocoFigures", "VocFigures"),
        "fldet.engine.results": ("TrainResult", "PrecisionCheck", "TestResult"),
        "fldet.benchmark.results": ("SpeedComparison", "SpeedResult", "SpeedCell", "SpeedTable"),
        "fldet.inference.results": (
            *("Detections", "PredictResult", "ParityResult", "ExportResult"),
        ),
    },
)


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
