"""Finds which statement of which file gave a key of a config its value, and what that overrode.

MMEngine does all the reading and merging. A file whose value is not that of its bases has set it;
and within the file, the last statement after which the value is another one, when the file is
loaded cut off there. So loops and functions need no special care.
"""

import ast
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config

from fldet.config.diff import KeyPath, dotted, is_leaf, leaves
from fldet.config.load import bases_of, find_config, load_config, parse_config, read_chain
from fldet.config.overrides import parse_override, resolve_key

COMMAND_LINE = "--cfg-options"
_MISSING = object()


@dataclass(frozen=True)
class Place:
    """A statement, or an override."""

    file: str  # absolute path, or --cfg-options
    line: int | None  # where it begins, from 1; None on the command line, and where unknown
    text: str  # that line, or the override
    statement: int = 0  # the line again; for an override, its number


@dataclass(frozen=True)
class Step:
    """One time that a value was set."""

    # set: an assignment gives the value. computed: another statement does, such as a loop. part: of
    # a dict or a list of dicts, the statement gives the values in value. deleted: it drops the key.
    action: str
    value: Any  # what the file loads with; for part by dotted key, relative to the key asked for
    place: Place  # the statement; where it hands on a variable, that of the variable
    via: tuple[Place, ...] = ()  # that handed it on, outermost first: loader = dict(pipeline=p)


@dataclass(frozen=True)
class Origin:
    """The history of one key."""

    key: str
    value: Any
    # The effective setting first, then what it overrode, one step for each earlier file that had
    # another value. For a dict or a list of dicts, first the parts that still count, latest first.
    steps: tuple[Step, ...]


def origin_of(path: str | Path, key: str, overrides: Sequence[str] = ()) -> Origin:
    """Returns which statement set ``key`` of the config in ``path``, and what it overrode.

    A number in the key is an index of a list. An override that leaves the value as it is counts
    only if it names ``key`` itself.
    """
    cfg = load_config(path, overrides)
    steps = resolve_key(cfg, key)
    value = _get(cfg.to_dict(), steps)
    history = _History(find_config(path), overrides)
    found = history.of_leaf(steps) if is_leaf(value) else history.of_container(steps, value)
    return Origin(key, value, tuple(found))


class _History:
    """The history of the keys of one config with its overrides."""

    def __init__(self, file: Path, overrides: Sequence[str]) -> None:
        self.file = file
        self.overrides = list(overrides)
        self.chain = read_chain(file)
        self._load = cache(self._load_with)
        self._load_begun = cache(_load_begun)

    def of_leaf(self, path: KeyPath) -> list[Step]:
        """Returns the steps of a value, latest first."""
        return [*self._overridden(path), *self._in_files(self.file, path)]

    def of_container(self, path: KeyPath, value: Any) -> list[Step]:
        """Returns the parts of a dict by statement, latest first, then what was there before."""
        parts: dict[tuple[str, int], Step] = {}
        for relative, item in leaves(value):
            step = self.of_leaf((*path, *relative))[0]
            at = (step.place.file, step.place.statement)
            part = parts.setdefault(at, Step("part", {}, step.place, step.via))
            part.value[dotted(relative)] = item
        files = [*map(str, self.chain), COMMAND_LINE]
        latest_first = sorted(parts, key=lambda at: (files.index(at[0]), at[1]), reverse=True)
        whole = self._in_files(self.file, path)[1:]
        older = [step for step in whole if not isinstance(step.value, dict)]  # dicts were merged
        return [*(parts[at] for at in latest_first), *older]

    def _load_with(self, file: Path, count: int = 0) -> Any:
        """Returns the config in ``file`` with the first ``count`` overrides."""
        return load_config(file, self.overrides[:count]).to_dict()

    def _overridden(self, path: KeyPath) -> Iterator[Step]:
        for count in range(len(self.overrides), 0, -1):
            text = self.overrides[count - 1]
            before, after = (_get(self._load(self.file, n), path) for n in (count - 1, count))
            names_it = parse_override(text)[0].removeprefix("+") == dotted(path)
            if after is not _MISSING and (names_it or before is _MISSING or before != after):
                yield Step("set", after, Place(COMMAND_LINE, None, text, count))

    def _in_files(self, file: Path, path: KeyPath, count: int | None = None) -> list[Step]:
        """Returns the steps to what ``file``, or ``count`` of its statements, loads with."""
        value = _get(self._load(file) if count is None else self._load_begun(file, count), path)
        older = [step for base in self.chain[file] for step in self._in_files(base, path)]
        if value == _get(self._load_begun(file, 0), path) and (older or value is _MISSING):
            return older
        return [self._own_step(file, path, value, count), *older]

    def _own_step(self, file: Path, path: KeyPath, value: Any, count: int | None) -> Step:
        """Returns how ``file`` itself came to its value, ``_MISSING`` if it dropped the key."""
        number, statement = self._last_change(file, path, value, count)
        if statement is None:
            value = None if value is _MISSING else value
            return Step("computed", value, Place(str(file), None, ""))
        line = statement.lineno
        place = Place(str(file), line, _lines(file)[line - 1].strip(), line)
        if value is _MISSING:
            return Step("deleted", None, place)
        if not isinstance(statement, (ast.Assign, ast.AnnAssign)):
            return Step("computed", value, place)
        # A dict or list equal to a variable that the statement names was handed on.
        before, after = (self._load_begun(file, number + n) for n in (0, 1))
        for depth in range(1, len(path) + 1):
            part = _get(after, path[:depth])
            for name in _names(statement) if isinstance(part, (dict, list)) else ():
                if before.get(name) == part:
                    inner = self._in_files(file, (name, *path[depth:]), number)[0]
                    return replace(inner, via=(place, *inner.via))
        return Step("set", value, place)

    def _last_change(
        self, file: Path, path: KeyPath, value: Any, count: int | None
    ) -> tuple[int, ast.stmt | None]:
        """Returns number and statement of the last change to the value, where the text loads."""
        for number, statement in reversed([*enumerate(parse_config(file).body[:count])]):
            before, after = (_get(self._load_begun(file, number + n), path) for n in (0, 1))
            if before != after == value:
                return number, statement
        return 0, None


def _get(node: Any, path: KeyPath) -> Any:
    """Returns what is at ``path``, or ``_MISSING``."""
    step: Any
    for step in path:
        try:
            node = node[step] if isinstance(node, (dict, list, tuple)) else _MISSING
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return node


def _load_begun(file: Path, count: int) -> Any:
    """Returns what a file's bases and its first ``count`` statements load with, if they do."""
    tree = parse_config(file)
    bases = [base if "::" in base else str(file.parent / base) for base, _ in bases_of(tree)]
    end = tree.body[count - 1].end_lineno if count else 0
    # MMEngine takes the first _base_ of a file and leaves out the others.
    text = "\n".join((f"_base_ = {bases!r}", *_lines(file)[:end]))
    with TemporaryDirectory() as folder, suppress(Exception):
        begun = Path(folder) / "begun.py"
        begun.write_text(text, encoding="utf-8")
        return Config.fromfile(begun, lazy_import=False, import_custom_modules=False).to_dict()
    return {}


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")


def _names(statement: ast.stmt) -> list[str]:
    """Returns the variables that a statement names, those of ``_base_`` too."""
    nodes = [*ast.walk(statement)]
    attributes = [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    return attributes + [node.id for node in nodes if isinstance(node, ast.Name)]
