"""Config text of a file that somebody else made: its literals are read, nothing of it is run."""

import ast
import math
from pathlib import Path
from typing import Any

from fldet.errors import CheckpointError, shorten

HINT = "if you trust the file, name the config yourself: --config CONFIG"

MOST_CHARACTERS = 2**19
MOST_CLASSES = 100_000
LONGEST_NAME = 1000
MOST_PIXELS = 2**23  # of an image as the network takes it: 2896 x 2896
_WORDS = {"inf": math.inf, "nan": math.nan}


def read_literals(text: str, path: Path) -> dict[str, Any]:
    """Returns the variables of a config text that are literals or ``dict(...)``; no others."""
    if len(text) > MOST_CHARACTERS:
        raise CheckpointError(
            f"the config in {path} has {len(text)} characters",
            expected=f"at most {MOST_CHARACTERS}",
        )
    try:
        lines = ast.parse(text).body
    except SyntaxError as error:
        raise CheckpointError(
            f"the config in {path} is not Python: line {error.lineno}, {error.msg}",
            hint="name the config: --config CONFIG",
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"the config in {path} is not Python: {error or 'nested too deep'}", hint=HINT
        ) from None
    values = {}
    for line in lines:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            try:
                values[line.targets[0].id] = _literal(line.value)
            except (ValueError, TypeError, RecursionError):  # nothing that a detector needs
                continue
    return values


def _literal(node: ast.expr) -> Any:
    """Returns the value of an expression; a ValueError or TypeError if it is no plain literal."""
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=args, keywords=keywords):
            pairs = {word.arg: _literal(word.value) for word in keywords}
            first = _literal(args[0]) if args else {}
            if len(args) > 1 or not isinstance(first, dict) or None in pairs:
                raise ValueError("no plain dict")
            return {**first, **pairs}
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str(word))], keywords=[]):
            return float(word)
        case ast.Dict(keys=keys, values=values):
            names = [key.value if isinstance(key, ast.Constant) else None for key in keys]
            if not all(isinstance(name, str) for name in names):  # others may share their hash
                raise ValueError("no plain dict")
            return dict(zip(names, map(_literal, values), strict=True))
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case ast.Name(id=name) if name in _WORDS:
            return _WORDS[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Constant(value=value):
            return value
    raise ValueError("no literal of a config")


def class_tuple(names: Any, path: Path) -> tuple[str, ...] | None:
    """Returns class names from a file, a list of bounded length, as a tuple, None for none."""
    if names is None or (isinstance(names, (list, tuple)) and not names):
        return None
    if not isinstance(names, (list, tuple)) or len(names) > MOST_CLASSES:
        raise CheckpointError(
            f"the class names in {path} are {shorten(names)}",
            expected=f"a list of at most {MOST_CLASSES} names",
        )
    for name in names:
        is_number = isinstance(name, int) and name.bit_length() < 64
        if not (is_number or (isinstance(name, str) and len(name) <= LONGEST_NAME)):
            raise CheckpointError(
                f"a class name in {path} is {shorten(name)}",
                expected=f"a text of at most {LONGEST_NAME} characters",
            )
    return tuple(map(str, names))
