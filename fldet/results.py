"""What commands produce: frozen dataclasses that turn into JSON with a schema number, and back."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from fldet.about import commit
from fldet.errors import DataError, shorten
from fldet.files import MIB, read_json
from fldet.moved import moved

SCHEMA = 1
ANALYSES = Path("work_dirs/analysis")  # where analyses write, unless told otherwise

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Analysis(Generic[Result]):
    """The figures that an analysis found, and the files that it wrote, pictures and data."""

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
        "fldet.inference.detections": ("Detections",),
        "fldet.inference.results": ("PredictResult", "ParityResult", "ExportResult"),
    },
)


def to_json(command: str, value: Any) -> str:
    """Returns the JSON object of what a command found, as ``--json`` prints it."""
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


# --- back from JSON ------------------------------------------------------------------------------

_MOST_OF_FILE = 64 * MIB  # of what a command has written; LVIS's errors.json has 20
_MOST_OF_NUMBER = 1e15  # up to here all whole numbers are exact as float64
_MOST_LETTERS = 10_000
_MOST_ITEMS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Within:
    """Bounds of a number, beside its type in ``Annotated``; NaN is not within any."""

    low: float
    high: float


Count = Annotated[int, Within(0, _MOST_OF_NUMBER)]
Share = Annotated[float, Within(0, 1)]
Milliseconds = Annotated[float, Within(1e-6, 1e12)]
Seconds = Annotated[float, Within(0, 1e12)]


def read_stored(path: Path, kind: Any, *keys: str, what: str, hint: str = "") -> Any:
    """Returns a value of a JSON file that fldet has written, as ``restored`` makes it.

    ``keys`` lead to it, none to the whole content. ``what`` is what the file should be, for
    messages, and ``hint`` what to do about one that is not.

    Raises:
        DataError: there is no such file, it is no JSON, or the value is missing or of another kind.
    """
    value = read_json(path, what, expected=what, most=_MOST_OF_FILE)
    return stored(value, path, kind, *keys, what=what, hint=hint)


def stored(value: Any, path: Path, kind: Any, *keys: str, what: str, hint: str = "") -> Any:
    """Does the same with JSON that a file of another kind holds."""
    try:
        for index, key in enumerate(keys):
            value = _object(value, ".".join(keys[:index]))
            if key not in value:
                raise DataError(f"{'.'.join(keys[: index + 1])} is missing")
            value = value[key]
        return restored(kind, value, ".".join(keys))
    except DataError as error:
        message = f"{path} is no {what}: {error.message}"
        raise DataError(message, expected=error.expected, hint=hint) from None


def restored(kind: Any, value: Any, place: str = "") -> Any:
    """Returns what ``to_jsonable`` has made ``value`` of.

    Numbers are finite and at most 1e15, texts have at most 10,000 letters, sequences and objects
    1,000,000 items. None is NaN where a float is wanted. What a dataclass does not have is left
    out, what is missing takes its default.

    Args:
        kind: a dataclass, ``int``, ``float``, ``str``, ``bool``, ``Path``, ``tuple``, ``dict`` or
            ``Literal`` with their parameters, or some of them joined by ``|``, ``None`` too;
            ``Annotated`` with ``Within``; ``Hashable`` for an id, a whole number or a text.
        value: in JSON's types.
        place: of the value, for messages: ``result.figures``.

    Raises:
        DataError: it is of another kind.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        number = restored(arguments[0], value, place)
        if not all(bounds.low <= number <= bounds.high for bounds in arguments[1:]):
            bounds = arguments[1]
            raise _unlike(value, place, f"a number from {bounds.low:g} to {bounds.high:g}")
        return number
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, place)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, _object(value, place), place)
    if origin is dict:
        names, items = arguments
        return {
            restored(names, name, f"a name in {place}"): restored(items, item, _inside(place, name))
            for name, item in _object(value, place).items()
        }
    if origin is tuple:
        if type(value) is not list or len(value) > _MOST_ITEMS:
            raise _unlike(value, place, "a list")
        if arguments[-1] is ...:
            arguments = arguments[:1] * len(value)
        if len(value) != len(arguments):
            raise _unlike(value, place, f"a list of {len(arguments)}")
        pairs = enumerate(zip(arguments, value, strict=True))
        return tuple(restored(of_it, item, f"{place}[{index}]") for index, (of_it, item) in pairs)
    return _plain(kind, value, place)


def _plain(kind: Any, value: Any, place: str) -> Any:
    if kind is float and value is None:
        return math.nan
    if kind in (int, float):
        if type(value) in (int, kind) and abs(value) <= _MOST_OF_NUMBER:
            return kind(value)
        raise _unlike(value, place, "a whole number" if kind is int else "a number")
    if get_origin(kind) is Literal:
        if isinstance(value, str) and value in get_args(kind):
            return value
        raise _unlike(value, place, f"one of: {', '.join(get_args(kind))}")
    if kind is Hashable:
        if type(value) is int and abs(value) < 2**64:
            return value
        return _plain(str, value, place)
    if kind in (str, Path):
        if isinstance(value, str) and len(value) <= _MOST_LETTERS:
            return kind(value)
        raise _unlike(value, place, "a text")
    if kind not in (bool, types.NoneType):
        raise TypeError(f"{kind} cannot be restored")
    if type(value) is not kind:
        raise _unlike(value, place, "true or false" if kind is bool else "null")
    return value


def _one_of(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    """Returns a value of the first kind that it fits; the last one has the word where none does."""
    if value is None and types.NoneType in kinds:
        return None
    *others, last = (kind for kind in kinds if kind is not types.NoneType)
    for kind in others:
        try:
            return restored(kind, value, place)
        except DataError:
            continue
    return restored(last, value, place)


def _dataclass(kind: Any, content: dict[str, Any], place: str) -> Any:
    hints, found = _hints(kind), {}
    for field in dataclasses.fields(kind):
        inside = _inside(place, field.name)
        if field.name in content:
            found[field.name] = restored(hints[field.name], content[field.name], inside)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise DataError(f"{inside} is missing")
    return kind(**found)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _object(value: Any, place: str) -> dict[str, Any]:
    if type(value) is not dict or len(value) > _MOST_ITEMS:
        raise _unlike(value, place, "an object")
    return value


def _inside(place: str, name: str) -> str:
    return f"{place}.{name[:100]}" if place else name[:100]


def _unlike(value: Any, place: str, expected: str) -> DataError:
    return DataError(f"{place or 'its content'} is {shorten(value)}", expected=expected)
