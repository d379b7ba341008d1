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
    if isinstance(value, (Mapping, list, tuple)):
        opening, closing = _brackets(value)
        inner = ", ".join(f"{head}{literal(item)}" for head, item in _items(value))
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return f"{opening}{inner}{comma}{closing}"
    if isinstance(value, float) and not abs(value) < float("inf"):
        return f"float({str(value)!r})"
    if callable(value):
        name = value.__qualname__
        return name if value.__module__ == "builtins" else repr(f"{value.__module__}.{name}")
    return re.sub(r"\{(?=\{)", r"\\x7b", repr(value))  # no two braces side by side


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
    inner = [_on_lines(item, head, ",", indent + 4) for head, item in _items(value)]
    margin = " " * indent
    opening, closing = _brackets(value)
    return "\n".join([f"{margin}{start}{opening}", *inner, f"{margin}{closing}{end}"])


def _items(value: Mapping[Any, Any] | Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Yields each item with what stands before it; of a dict sorted, as in MMEngine's text."""
    if not isinstance(value, Mapping):
        yield from (("", item) for item in value)
        return
    for key, item in sorted(value.items(), key=lambda pair: str(pair[0])):
        yield f"{key}=" if _has_names(value) else f"{literal(key)}: ", item


def _has_names(value: Mapping[Any, Any]) -> bool:
    """Returns whether all keys can be keywords of ``dict``; Python would change other letters."""
    return all(
        isinstance(key, str) and key.isascii() and key.isidentifier() and not iskeyword(key)
        for key in value
    )


def _brackets(value: Mapping[Any, Any] | Sequence[Any]) -> tuple[str, str]:
    if isinstance(value, Mapping):
        return ("dict(", ")") if _has_names(value) else ("{", "}")
    return ("[", "]") if isinstance(value, list) else ("(", ")")
