"""The config that a checkpoint carries, read without running it.

MMEngine stores the resolved config as Python text. Running it would let a checkpoint do anything,
so only literals are read, and a name in it may only be one of the packages below: MMEngine's
registries build whatever a dotted name leads to.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from fldet.engine.checkpoint import meta_of
from fldet.errors import CheckpointError, shorten

TRUSTED = ("fldet", "mmdet", "mmengine", "mmcv")
_NAME = re.compile(rf"(({'|'.join(TRUSTED)})\.)?\w+")
_NOT_FINITE = {"inf": float("inf"), "nan": float("nan")}


def stored_config(content: Mapping[str, Any], path: Path) -> Config | None:
    """Returns the config in the ``meta`` of a checkpoint, None if there is none.

    Args:
        content: what ``read_checkpoint`` returned.
        path: the file, for messages.

    Raises:
        CheckpointError: the text is not a config, or names a package that is not trusted.
    """
    text = meta_of(content).get("cfg")
    if not isinstance(text, str):
        return None
    try:
        values = read_literals(text)
    except SyntaxError as error:
        raise CheckpointError(
            f"the config in {path} is not Python: line {error.lineno}, {error.msg}",
            hint="name the config: --config CONFIG",
        ) from None
    used = {key: values[key] for key in ("model", "default_scope") if key in values}
    check_trusted({**used, "pipelines": [find_pipeline(values)]}, path)
    return Config(values)


def read_literals(text: str) -> dict[str, Any]:
    """Returns the variables of a config text that are literals or ``dict(...)``; no others.

    Raises:
        SyntaxError: the text is not Python.
    """
    values = {}
    for line in ast.parse(text).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            try:
                values[line.targets[0].id] = _literal(line.value)
            except ValueError:  # a class or a call: nothing that a detector needs
                continue
    return values


def _literal(node: ast.expr) -> Any:
    """Returns the value of an expression.

    Raises:
        ValueError: it is neither a literal nor ``dict(...)``.
    """
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=args, keywords=keywords):
            pairs = {word.arg: _literal(word.value) for word in keywords}
            return {**(_literal(args[0]) if args else {}), **pairs}
        case ast.Dict(keys=keys, values=values):
            return {
                ast.literal_eval(k or ""): _literal(v) for k, v in zip(keys, values, strict=True)
            }
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case ast.Name(id=name) if name in _NOT_FINITE:
            return _NOT_FINITE[name]
    return ast.literal_eval(node)


def check_trusted(value: Any, path: Path) -> None:
    """Does nothing if every ``type`` and scope below ``value`` is of a trusted package.

    Raises:
        CheckpointError: naming the first that is not.
    """
    for name in _names(value):
        if not _NAME.fullmatch(name):
            raise CheckpointError(
                f"the config in {path} names {shorten(name)}",
                expected=f"names of {', '.join(TRUSTED)}: a checkpoint may not choose what is run",
                hint="if you trust it, name the config yourself: --config CONFIG",
            )


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _names(item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key in ("type", "_scope_", "default_scope") and isinstance(item, str):
                scoped = key == "type" or item in TRUSTED
                yield item if scoped else f"{item}.registry"
            else:
                yield from _names(item)


def find_pipeline(cfg: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Returns the transforms of a config's test images, those of its validation if it has none."""
    for key in ("test_dataloader", "val_dataloader"):
        dataset = (cfg.get(key) or {}).get("dataset")
        while dataset and "pipeline" not in dataset:  # inside wrappers
            inner = dataset.get("dataset") or dataset.get("datasets")
            dataset = inner[0] if isinstance(inner, (list, tuple)) else inner
        if dataset:
            return list(dataset["pipeline"])
    return cfg.get("test_pipeline")
