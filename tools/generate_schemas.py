"""Writes docs/schemas/ from the types of what is printed and written; ``--check`` only compares.

Usage: python tools/generate_schemas.py [--check]
"""

import dataclasses
import functools
import importlib
import json
import operator
import sys
import types
import typing
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import fldet.engine.train  # noqa: F401  first: MMDetection as it works here
from fldet.results import SCHEMA

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "schemas"
DRAFT = "https://json-schema.org/draft/2020-12/schema"

# What --json prints as ``result``, by the name in ``command``.
COMMANDS = {
    "analyze anchors": "fldet.cli.printed:AnchorsAnalyzed",
    "analyze dataset": "fldet.cli.printed:DatasetAnalyzed",
    "analyze errors": "fldet.cli.printed:ErrorsAnalyzed",
    "analyze flops": "fldet.cli.printed:FlopsAnalyzed",
    "analyze labels": "fldet.cli.printed:LabelsAnalyzed",
    "analyze log": "fldet.cli.printed:LogAnalyzed",
    "analyze loss-cdf": "fldet.cli.printed:LossCdfAnalyzed",
    "analyze loss-curves": "fldet.cli.printed:LossCurvesAnalyzed",
    "analyze speed-accuracy": "fldet.cli.printed:SpeedAccuracyAnalyzed",
    "analyze thresholds": "fldet.cli.printed:ThresholdsAnalyzed",
    "benchmark": "fldet.benchmark.results:SpeedResult",
    "benchmark --scales": "fldet.benchmark.results:SpeedTable",
    "benchmark --train": "fldet.benchmark.results:SpeedResult",
    "benchmark engines": "fldet.benchmark.results:EngineTable",
    "benchmark table": (
        "fldet.benchmark.results:SpeedsSideBySide",
        "fldet.benchmark.results:SpeedTable",
    ),
    "compare": "fldet.compare.result:Comparison",
    "config diff": "list:fldet.config.diff:Difference",
    "config show": "any:",
    "config why": "fldet.config.origin:Origin",
    "cross-validate": (
        "fldet.folds.run:WrittenCrossValidation",
        "fldet.folds.result:CrossValidation",
    ),
    "data check": "fldet.cli.printed:DataChecked",
    "data convert": "fldet.data.convert:Converted",
    "data inspect": "fldet.analysis.dataset.inspect:DataInspection",
    "data split": "fldet.cli.printed:DataDivided",
    "doctor": "list:fldet.engine.doctor:Finding",
    "export": "fldet.inference.results:ExportResult",
    "init": "fldet.analysis.init:InitResult",
    "package": "fldet.package.write:Packaged",
    "paper list": "list:fldet.paper.rows:Table",
    "paper report": "fldet.paper.report:Report",
    "paper run": ("fldet.cli.printed:PaperRuns", "fldet.cli.printed:PaperPlan"),
    "paper show": "by name:fldet.paper.rows:Comparison",
    "plugins": "fldet.cli.printed:PluginList",
    "predict": "fldet.inference.results:PredictResult",
    "report": "fldet.cli.printed:ReportPage",
    "test": "fldet.engine.results:TestResult",
    "train": ("fldet.engine.results:TrainResult", "fldet.cli.printed:Replayed"),
}  # fmt: skip

# Files without that envelope, by name; those with it are as their command prints them.
FILES = {
    "errors.json": "fldet.analysis.errors.result:ErrorAnalysis",
    "folds.json": "fldet.data.folds.files:Folds",
    "labels.json": "fldet.analysis.labels.result:LabelAnalysis",
    "run.json": "fldet.runs.run:Record",
    "thresholds.json": "fldet.analysis.thresholds.result:ThresholdAnalysis",
}
LINES = {"predictions.jsonl": "fldet.inference.folder:Line"}
# What stands beside the fields of a class.
BESIDE = {"thresholds.json": {"scores": dict[str, float]}}


def file_of(name: str) -> str:
    """Returns the file of the schema of a command or of a file that is written."""
    return "-".join(name.replace("--", "").split()) + ".schema.json"


def schemas() -> dict[str, dict[str, Any]]:
    """Returns all schemas by file name."""
    _import_types_of_what_is_printed()
    found = {}
    for name, places in COMMANDS.items():
        kinds = Kinds()
        result = kinds.of(_type_of(places))
        envelope = {
            "schema": {"const": SCHEMA},
            "command": {"const": name},
            "version": {"type": "string", "description": "of fldet"},
            "commit": {"type": ["string", "null"], "description": "of its clone; null without"},
            "result": result,
        }
        found[file_of(name)] = _document(f"fldet {name} --json", _object(envelope), kinds)
    for name, place in {**FILES, **LINES}.items():
        kinds = Kinds()
        (kind,) = _types(place)
        content = kinds.fields(kind)
        more = {key: kinds.of(one) for key, one in BESIDE.get(name, {}).items()}
        title = f"a line of {name}" if name in LINES else name
        if "analysis" in str(place):
            more |= {"schema": {"const": SCHEMA}, "analysis": {"const": name.removesuffix(".json")}}
        found[file_of(name)] = _document(title, _object({**more, **content}), kinds)
    return found


def _import_types_of_what_is_printed() -> None:
    """Imports ``fldet.cli.printed`` with what it imports for its types only."""
    sys.modules.pop("fldet.cli.printed", None)
    for place in {**COMMANDS, **FILES, **LINES}.values():
        for one in [place] if isinstance(place, str) else place:
            module = one.split(":")[-2]
            if module.startswith("fldet.") and module != "fldet.cli.printed":
                importlib.import_module(module)
    typing.TYPE_CHECKING = True
    try:
        importlib.import_module("fldet.cli.printed")
    finally:
        typing.TYPE_CHECKING = False


def _types(places: str | tuple[str, ...]) -> list[Any]:
    found = []
    for place in [places] if isinstance(places, str) else places:
        *shape, module, name = place.split(":")
        kind = getattr(importlib.import_module(module), name)
        whole = {"list": list[kind], "by name": dict[str, list[kind]]}
        found.append(whole[shape[0]] if shape else kind)
    return found


def _type_of(places: str | tuple[str, ...]) -> Any:
    if places == "any:":
        return dict[str, Any]
    return functools.reduce(operator.or_, _types(places))


def _document(title: str, schema: dict[str, Any], kinds: "Kinds") -> dict[str, Any]:
    definitions = {"$defs": kinds.definitions} if kinds.definitions else {}
    return {"$schema": DRAFT, "title": title, **schema, **definitions}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


class Kinds:
    """Types as JSON Schema; dataclasses become definitions."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}
        self._kinds: dict[str, Any] = {}

    def of(self, kind: Any) -> dict[str, Any]:
        """Returns the schema of what ``to_jsonable`` makes of a value of a type."""
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            bounds = arguments[1]
            return {**self.of(arguments[0]), "minimum": bounds.low, "maximum": bounds.high}
        if origin in (Union, types.UnionType):
            return _any_of([self.of(one) for one in arguments])
        if dataclasses.is_dataclass(kind):
            return self._reference(kind)
        if origin is Literal:
            return {"enum": list(arguments)}
        if kind in (tuple, list) or origin in (tuple, list, Sequence):
            return self._list(kind, arguments)
        if kind is dict or origin in (dict, Mapping):
            items = self.of(arguments[1]) if arguments else {}
            return {"type": "object", **({"additionalProperties": items} if items else {})}
        if isinstance(kind, TypeVar) or kind is Any or kind is object:
            return {}
        return {"type": PLAIN[kind]}

    def fields(self, kind: Any) -> dict[str, Any]:
        """Returns the schemas of the fields of a dataclass by name."""
        hints = typing.get_type_hints(kind, include_extras=True)
        return {one.name: self.of(hints[one.name]) for one in dataclasses.fields(kind)}

    def _list(self, kind: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if get_origin(kind) is tuple and arguments[-1:] != (Ellipsis,):
            items = [self.of(one) for one in arguments]
            return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
        items = self.of(arguments[0]) if arguments else {}
        return {"type": "array", **({"items": items} if items else {})}

    def _reference(self, kind: Any) -> dict[str, Any]:
        """Returns what a dataclass is defined as; a subclass may stand for it."""
        references = []
        for one in (*kind.__subclasses__(), kind):
            name = one.__name__
            if self._kinds.setdefault(name, one) is not one:
                raise TypeError(f"two types are called {name}: {one} and {self._kinds[name]}")
            if name not in self.definitions:
                self.definitions[name] = {}  # it may contain itself
                inside = _object(self.fields(one))
                self.definitions[name] = {"description": _sentence(one), **inside}
            references.append({"$ref": f"#/$defs/{name}"})
        return references[0] if len(references) == 1 else {"anyOf": references}


# A number that is not finite is null.
PLAIN: dict[Any, Any] = {
    bool: "boolean",
    int: "integer",
    float: ["number", "null"],
    str: "string",
    Path: "string",
    type(None): "null",
    Hashable: ["integer", "string"],
}


def _any_of(options: list[dict[str, Any]]) -> dict[str, Any]:
    if all(set(one) == {"type"} for one in options):
        names: list[str] = []
        for one in options:
            names += [one["type"]] if isinstance(one["type"], str) else one["type"]
        names = list(dict.fromkeys(names))
        return {"type": names[0] if len(names) == 1 else names}
    return {"anyOf": options}


def _sentence(kind: Any) -> str:
    return (kind.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()


def main() -> None:
    """Writes or checks every schema; exits with 1 where one is stale."""
    made = {name: json.dumps(one, indent=1) + "\n" for name, one in schemas().items()}
    there = {path.name: path.read_text() for path in FOLDER.glob("*.schema.json")}
    if "--check" not in sys.argv[1:]:
        FOLDER.mkdir(exist_ok=True)
        for name in there.keys() - made.keys():
            (FOLDER / name).unlink()
        for name, text in made.items():
            (FOLDER / name).write_text(text)
    elif stale := sorted(name for name in made | there if made.get(name) != there.get(name)):
        sys.exit(f"stale: docs/schemas/{', '.join(stale)}\nHint: make docs")


if __name__ == "__main__":
    main()
