"""Values as the text of a config: Python literals that survive being read by MMEngine.

MMEngine replaces ``{{...}}`` anywhere in a config, inside strings and comments too: by names of the
file, by values of the base, and ``{{$NAME:default}}`` by what the environment or the text itself
says, before Python sees it. A class called so would become code. In the texts written here no two
braces stand side by side.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from keyword import iskeyword
from typing import Any

WIDTH = 100


def config_text(values: Mapping[str, Any]) -> str:
    """Returns the variables of a config as Python text, sorted by name.

    Numbers that are not finite are written as calls of ``float``, classes and functions as their
    dotted names; everything else reads back as it is.
    """
    lines = [_on_lines(value, f"{key} = ", "", 0) for key, value in sorted(values.items())]
    return "\n".join(lines) + "\n"


def literal(value: Any) -> str:
    """Returns a value as one line of Python that MMEngine leaves as it is."""
    if isinstance(value, Mapping):
        return f"{_start(value)}{', '.join(_pairs(value))}{_end(value)}"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(literal(item) for item in value)
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return f"{_start(value)}{inner}{comma}{_end(value)}"
    if isinstance(value, float) and not abs(value) < float("inf"):
        return f"float({str(value)!r})"
    if callable(value):
        name = value.__qualname__
        return name if value.__module__ == "builtins" else repr(f"{value.__module__}.{name}")
    return without_braces(repr(value))


def without_braces(text: str) -> str:
    """Returns the text of a literal with no two braces side by side."""
    return re.sub(r"\{(?=\{)", r"\\x7b", text)


def words(text: str) -> str:
    """Returns a text from outside as words of a comment or docstring: one line, nothing else.

    What could end the comment or docstring, or be replaced by MMEngine, is escaped.
    """
    return re.sub(r'["\\]', lambda found: f"\\x{ord(found[0]):02x}", literal(text)[1:-1])


def _on_lines(value: Any, start: str, end: str, indent: int) -> str:
    """Returns a value on one line where it fits, else its items on lines of their own."""
    line = f"{' ' * indent}{start}{literal(value)}{end}"
    if len(line) <= WIDTH or not isinstance(value, (Mapping, list, tuple)) or not value:
        return line
    inner = [
        _on_lines(item, head, ",", indent + 4)
        for head, item in (_items(value) if isinstance(value, Mapping) else _unnamed(value))
    ]
    margin = " " * indent
    return "\n".join([f"{margin}{start}{_start(value)}", *inner, f"{margin}{_end(value)}{end}"])


def _pairs(value: Mapping[Any, Any]) -> Iterator[str]:
    return (f"{head}{literal(item)}" for head, item in _items(value))


def _items(value: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Yields each item with what stands before it; sorted, as MMEngine's own text is."""
    for key, item in sorted(value.items(), key=lambda pair: str(pair[0])):
        yield f"{key}=" if _has_names(value) else f"{literal(key)}: ", item


def _unnamed(value: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    return (("", item) for item in value)


def _has_names(value: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) and _is_name(key) for key in value)


def _is_name(key: str) -> bool:
    """Returns whether a key can be a keyword of ``dict``; Python would change other letters."""
    return key.isascii() and key.isidentifier() and not iskeyword(key)


def _start(value: Any) -> str:
    if isinstance(value, Mapping):
        return "dict(" if _has_names(value) else "{"
    return "[" if isinstance(value, list) else "("


def _end(value: Any) -> str:
    if isinstance(value, Mapping):
        return ")" if _has_names(value) else "}"
    return "]" if isinstance(value, list) else ")"
