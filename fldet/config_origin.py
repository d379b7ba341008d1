"""Finds which file and line set a value of a config, and what that overrode.

The files are read as syntax trees and merged like the configs themselves, with the line beside each
value. What the trees say is then compared with the loaded configs, which have the last word: where
a loop or a function made a value, the file is found by its value alone.
"""

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fldet.config import (
    find_config,
    load_config,
    parse_config,
    parse_override,
    read_chain,
    resolve_key,
)
from fldet.config_diff import KeyPath, dotted, is_leaf, leaves

__all__ = ["COMMAND_LINE", "Place", "Step", "Origin", "origin_of"]

COMMAND_LINE = "--cfg-options"
_MISSING = object()


@dataclass(frozen=True)
class Place:
    """Where something is written.

    Attributes:
        file: absolute path, or ``--cfg-options``.
        line: from 1; None on the command line, and where no line can be told.
        text: that line, or the override.
        statement: line where its top-level statement begins; for an override, its number.
    """

    file: str
    line: int | None
    text: str
    statement: int = 0


@dataclass(frozen=True)
class Step:
    """One time that a value was set.

    Attributes:
        action: ``set``: the line gives the value. ``part``: of a dict or a list of dicts, the
            statement gives the values in ``value``. ``computed``: the file does it by a loop, a
            function or the like; the line is that of the statement, or None. ``deleted``:
            ``_delete_=True`` dropped all that was set before.
        value: the value set; for ``part`` by dotted key, relative to the key asked for; None for
            ``deleted``; the source text where an earlier value of the same file is not a literal.
        place: where the value is written.
        via: places that handed it on, outermost first, such as ``pipeline=train_pipeline``.
    """

    action: str
    value: Any
    place: Place
    via: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Origin:
    """The history of one key.

    Attributes:
        key: dotted path.
        value: what the loaded config has there.
        steps: the effective setting first, then what it overrode, back to the first. For a dict
            or a list of dicts, first the parts that still count, latest first.
    """

    key: str
    value: Any
    steps: tuple[Step, ...]


def origin_of(path: str | Path, key: str, overrides: Sequence[str] = ()) -> Origin:
    """Returns which line set ``key`` of the config in ``path``, and what it overrode.

    Args:
        path: as for ``load_config``.
        key: dotted path; a number is an index of a list.
        overrides: ``key.path=value`` strings. One that leaves the value as it is counts only if it
            names ``key`` itself.

    Raises:
        ConfigError: the config does not load, or has no such key.
    """
    cfg = load_config(path, overrides)
    steps = resolve_key(cfg, key)
    value = _get(cfg.to_dict(), steps)
    history = _History(find_config(path), overrides)
    found = history.of_leaf(steps) if is_leaf(value) else history.of_container(steps, value)
    return Origin(key, value, tuple(found))


def _get(node: Any, path: KeyPath) -> Any:
    """Returns what is at ``path``, or ``_MISSING``."""
    step: Any
    for step in path:
        try:
            node = node[step] if isinstance(node, (dict, list, tuple)) else _MISSING
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return node


class _History:
    """The history of the keys of one config with its overrides."""

    def __init__(self, file: Path, overrides: Sequence[str]) -> None:
        self.file = file
        self.overrides = list(overrides)
        self.chain = read_chain(file)
        self._trees: dict[Path, _Slot] = {}
        self._loaded: dict[tuple[Path, int], Any] = {}

    def of_leaf(self, path: KeyPath) -> list[Step]:
        """Returns the steps of a value, latest first."""
        return [*self._overridden(path), *self._in_files(self.file, path)]

    def of_container(self, path: KeyPath, value: Any) -> list[Step]:
        """Returns the parts of a dict by statement, latest first, then what was there before."""
        slot = _descend(self._tree(self.file), path)
        own = {(place.file, place.statement): place for place in _written(slot)}
        parts: dict[tuple[str, int], Step] = {}
        for relative, item in leaves(value):
            step = self.of_leaf((*path, *relative))[0]
            at = (step.place.file, step.place.statement)
            part = parts.get(at) or Step("part", {}, own.get(at, step.place), step.via)
            parts[at] = replace(part, value={**part.value, dotted(relative): item})
        files = [*map(str, self.chain), COMMAND_LINE]
        latest_first = sorted(parts, key=lambda at: (files.index(at[0]), at[1]), reverse=True)
        whole = list(self._steps(_settings(self._tree(self.file), path), path))
        return [*(parts[at] for at in latest_first), *whole[1:]]

    def _load(self, file: Path, count: int = 0) -> Any:
        """Returns the config in ``file`` with the first ``count`` overrides."""
        if (file, count) not in self._loaded:
            cfg = load_config(file, self.overrides[:count])
            self._loaded[file, count] = cfg.to_dict()
        return self._loaded[file, count]

    def _overridden(self, path: KeyPath) -> Iterator[Step]:
        for count in range(len(self.overrides), 0, -1):
            text = self.overrides[count - 1]
            before, after = (_get(self._load(self.file, n), path) for n in (count - 1, count))
            names_it = parse_override(text)[0].removeprefix("+") == dotted(path)
            if after is not _MISSING and (names_it or before is _MISSING or before != after):
                yield Step("set", after, Place(COMMAND_LINE, None, text, count))

    # --- in the files ---

    def _in_files(self, file: Path, path: KeyPath) -> list[Step]:
        """Returns the steps that lead to the value that ``file`` and its bases load with."""
        real = _get(self._load(file), path)
        if real is _MISSING:
            return []
        steps = list(self._steps(_settings(self._tree(file), path), path))
        if steps and _agree(steps[0].value, real):
            return steps
        # The trees do not tell: the first file that has the value is the one that made it.
        for base in self.chain[file]:
            older = self._in_files(base, path)
            if older and _agree(older[0].value, real):
                return older
            steps = steps or older
        return [self._computed(file, path, real), *steps]

    def _steps(self, settings: Iterable["_Setting"], path: KeyPath) -> Iterator[Step]:
        """Yields the settings up to the first deletion, corrected by what each file loads with."""
        seen = set()
        for item in settings:
            if item.deleted:
                yield Step("deleted", None, item.place)
                return
            owner = Path((*item.via, item.place)[0].file)
            real = item.value if owner in seen else _get(self._load(owner), path)
            seen.add(owner)
            if real is _MISSING or _agree(item.value, real):
                value = item.value if real is _MISSING else real
                yield Step("set", value, item.place, item.via)
            else:
                yield self._computed(owner, path, real)
                yield Step("set", item.value, item.place, item.via)

    def _computed(self, file: Path, path: KeyPath, value: Any) -> Step:
        place = _unclear(self._tree(file), path, str(file))
        return Step("computed", value, place or Place(str(file), None, ""))

    def _tree(self, file: Path) -> "_Slot":
        """Returns ``file`` merged over its bases, as MMEngine does it."""
        if file not in self._trees:
            base = _dict_in(file, {})
            for tree in map(self._tree, self.chain[file]):
                base.value.items.update(_copy(tree.value).items)
            self._trees[file] = _merged(_Reader(file, base).read(), base)
        return self._trees[file]


def _agree(read: Any, loaded: Any) -> bool:
    """Returns whether what was read can be what was loaded; what is no literal can be anything."""
    if isinstance(read, SourceText):
        return True
    if not is_leaf(read):
        return not is_leaf(loaded)
    if isinstance(read, (list, tuple)) and type(read) is type(loaded):
        return len(read) == len(loaded) and all(map(_agree, read, loaded))
    return bool(read == loaded)


# --- what is known of one value ---


class SourceText(str):
    """An expression that only Python itself can evaluate."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(eq=False)
class _Value:
    """A value and the place where it is written; names that stand for the same one share it.

    Attributes:
        home: where it is written.
        literal: what it is, unless it has children.
        children: of a dict or list.
        kind: dict, list or tuple, if it has children.
        touched: statements that may have changed it in a way that is not followed.
    """

    home: Place
    literal: Any = None
    children: dict[str | int, "_Slot"] | None = None
    kind: type = dict
    touched: list[Place] = field(default_factory=list)

    @property
    def items(self) -> dict[str | int, "_Slot"]:
        return {} if self.children is None else self.children

    def plain(self) -> Any:
        if self.children is None:
            return self.literal
        if self.kind is dict:
            return {key: slot.value.plain() for key, slot in self.children.items()}
        return self.kind(slot.value.plain() for slot in self.children.values())


@dataclass(eq=False)
class _Slot:
    """What stands below one key, and what it has replaced.

    Attributes:
        place: where it was put here; not where it is written if a variable handed it on.
        value: the value.
        older: the slot before it.
        merged: it was merged with ``older``, so that its children know their own past.
        deleted: the ``_delete_`` by which ``older`` no longer counts.
    """

    place: Place
    value: _Value
    older: "_Slot | None" = None
    merged: bool = False
    deleted: Place | None = None


@dataclass(frozen=True)
class _Setting:
    place: Place
    value: Any
    via: tuple[Place, ...] = ()
    deleted: bool = False


def _dict_in(file: Path, children: "dict[str | int, _Slot]") -> _Slot:
    """Returns the slot of a whole file."""
    place = Place(str(file), None, "")
    return _Slot(place, _Value(place, children=children))


def _settings(slot: _Slot, path: KeyPath, via: tuple[Place, ...] = ()) -> Iterator[_Setting]:
    """Yields what was set at ``path`` below ``slot``, latest first."""
    if slot.place != slot.value.home:
        via = (*via, slot.place)
    if path and path[0] in slot.value.items:
        yield from _settings(slot.value.items[path[0]], path[1:], via)
    if not path:
        yield from _own_settings(slot.value, via)
    while slot.merged and slot.older:  # that past is in the slots below
        slot = slot.older
    older = list(_settings(slot.older, path)) if slot.older else []
    if older and slot.deleted:
        yield _Setting(slot.deleted, None, deleted=True)
    else:
        yield from older


def _own_settings(value: _Value, via: tuple[Place, ...]) -> Iterator[_Setting]:
    """Yields the last assignment to an item of a list of plain values, then the value at home."""
    items = value.items
    changed = [item.place for item in items.values() if item.older]
    if changed and value.kind is list and not any(item.value.children for item in items.values()):
        last = max(changed, key=lambda place: place.statement)
        yield _Setting(last, value.plain(), via)
        value = replace(value, children={key: _oldest(item) for key, item in items.items()})
    yield _Setting(value.home, value.plain(), via)


def _oldest(slot: _Slot) -> _Slot:
    return slot if slot.older is None else _oldest(slot.older)


def _descend(slot: _Slot | None, path: KeyPath) -> _Slot | None:
    for step in path:
        slot = slot.value.items.get(step) if slot else None
    return slot


def _written(slot: _Slot | None) -> Iterator[Place]:
    """Yields where the dicts are written that were merged into this one, oldest first."""
    if slot is None:
        return
    if slot.merged:
        yield from _written(slot.older)
    yield slot.value.home


def _unclear(slot: _Slot | None, path: KeyPath, file: str) -> Place | None:
    """Returns the last statement of ``file`` that may have computed what is at ``path``."""
    places: list[Place] = []
    for depth in range(len(path) + 1):
        here = _descend(slot, path[:depth])
        if here is None:
            break
        places += here.value.touched
        if depth < len(path) and isinstance(here.value.literal, SourceText):
            places.append(here.value.home)
    mine = [place for place in places if place.file == file]
    return max(mine, key=lambda place: place.statement, default=None)


def _copy(value: _Value) -> _Value:
    """Returns a copy in which nothing is shared, as MMEngine makes one of every base."""
    if value.children is None:
        return replace(value, touched=[*value.touched])
    children = {key: replace(slot, value=_copy(slot.value)) for key, slot in value.items.items()}
    return replace(value, children=children, touched=[*value.touched])


def _merged(new: _Slot, old: _Slot) -> _Slot:
    """Returns ``new`` over ``old``, by the rules of ``Config._merge_a_into_b``."""
    is_dict = new.value.children is not None and new.value.kind is dict
    if not is_dict:
        return replace(new, older=_chained(new.older, old))
    children = {key: slot for key, slot in new.value.items.items() if key != "_delete_"}
    delete = new.value.items.get("_delete_")
    if delete is not None and delete.value.literal:
        value = replace(new.value, children=children)
        return replace(new, value=value, older=old, deleted=delete.place)
    for key, slot in old.value.items.items():
        children[key] = _merged(children[key], slot) if key in children else slot
    touched = [*old.value.touched, *new.value.touched]
    value = replace(new.value, children=children, touched=touched)
    return replace(new, value=value, older=old, merged=True)


def _chained(newer: _Slot | None, old: _Slot) -> _Slot:
    """Returns ``newer`` with ``old`` as the oldest of its past."""
    return old if newer is None else replace(newer, older=_chained(newer.older, old))


# --- reading one file ---


class _Reader:
    """Follows the statements of one file and keeps the line beside every value.

    Args:
        file: the config.
        base: its bases, merged; what the file does to ``_base_`` is done to it.
    """

    def __init__(self, file: Path, base: _Slot) -> None:
        self.file = file
        self.lines = file.read_text(encoding="utf-8").split("\n")
        self.base = base
        self.names: dict[str | int, _Slot] = {}
        self.statement = 0

    def read(self) -> _Slot:
        """Returns the variables of the file as one dict."""
        for statement in parse_config(self.file).body:
            self.statement = statement.lineno
            self._run(statement)
        return _dict_in(self.file, self.names)

    def _place(self, node: Any) -> Place:
        text = self.lines[node.lineno - 1].strip()
        return Place(str(self.file), node.lineno, text, self.statement)

    # --- statements ---

    def _run(self, statement: ast.stmt) -> None:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
            return
        if isinstance(statement, ast.Assign):
            self._assign(statement.targets, statement.value)
        elif isinstance(statement, ast.AnnAssign) and statement.value:
            self._assign([statement.target], statement.value)
        elif isinstance(statement, ast.Delete):
            for target in statement.targets:
                self._delete(target)
        else:
            self._touch(statement)
            self._forget(statement)

    def _assign(self, targets: list[ast.expr], expr: ast.expr) -> None:
        place = self._place(targets[0])
        value = self._value(expr, place)
        for target in targets:
            if ast.unparse(target) == "_base_":
                continue
            children, key = self._children_and_key(target)
            if children is not None and key is not None:
                children[key] = _Slot(place, value, older=children.get(key))
            else:
                self._touch(target)
                self._forget(target)

    def _delete(self, target: ast.expr) -> None:
        children, key = self._children_and_key(target)
        if children is None or isinstance(key, int):  # in a list the indices move
            self._touch(target)
        else:
            children.pop(key, None)

    def _touch(self, node: Any) -> None:
        """Notes that ``node`` may change whatever it names."""
        for slot in self._named(node):
            slot.value.touched.append(self._place(node))

    def _named(self, node: ast.AST) -> Iterator[_Slot]:
        """Yields what the names in ``node`` refer to, with as many of their dots as are known."""
        slot = self._find(node) if isinstance(node, ast.expr) else None
        if slot is not None:
            yield slot
            return
        for child in ast.iter_child_nodes(node):
            yield from self._named(child)

    def _forget(self, node: Any) -> None:
        """Gives the names that ``node`` sets a value that is not known."""
        place = self._place(node)
        for name in ast.walk(node):
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                value = _Value(place, SourceText(place.text))
                self.names[name.id] = _Slot(place, value, older=self.names.get(name.id))

    # --- expressions ---

    def _value(self, expr: ast.expr, place: Place) -> _Value:
        """Returns what ``expr`` stands for; ``place`` is its home if it is written out there."""
        found = self._find(expr)
        if found is not None:
            return found.value
        if isinstance(expr, ast.Dict):
            return self._dict(zip(expr.keys, expr.values, strict=True), place)
        if isinstance(expr, ast.Call) and ast.unparse(expr.func) == "dict":
            named = [(_name_node(word), word.value) for word in expr.keywords]
            return self._dict([*((None, item) for item in expr.args), *named], place)
        if isinstance(expr, (ast.List, ast.Tuple)) and not _has_star(expr):
            kind = list if isinstance(expr, ast.List) else tuple
            items = ((item, self._place(item)) for item in expr.elts)
            slots = [_Slot(at, self._value(item, at)) for item, at in items]
            return _Value(place, children=dict(enumerate(slots)), kind=kind)
        return _Value(place, self._literal(expr))

    def _dict(self, items: Iterable[tuple[Any, ast.expr]], place: Place) -> _Value:
        """Returns a dict of key and value nodes; the key None unpacks the value."""
        result = _Value(place, children={})
        for key, expr in items:
            at = self._place(key or expr)
            value = self._value(expr, at)
            if key is None and value.children is not None and value.kind is dict:
                new = {name: replace(slot, place=at) for name, slot in value.items.items()}
            elif isinstance(key, ast.Constant) and isinstance(key.value, (str, int)):
                new = {key.value: _Slot(at, value)}
            else:
                new = {}
                result.touched.append(at)
            result.items.update(new)
        return result

    def _literal(self, expr: ast.expr) -> Any:
        try:
            value = ast.literal_eval(expr)
        except (ValueError, TypeError):
            value = None
        else:
            if not (isinstance(value, str) and "{{" in value):  # MMEngine fills it in
                return value
        if any(isinstance(node, ast.Call) for node in ast.walk(expr)):
            self._touch(expr)
        return SourceText(ast.unparse(expr))

    def _find(self, expr: ast.expr) -> _Slot | None:
        """Returns what a name, ``_base_.x``, ``x['y'][0]`` or ``{{_base_.x}}`` refers to."""
        if isinstance(expr, ast.Set) and isinstance(expr.elts[0], ast.Set):
            return self._find(expr.elts[0].elts[0])
        if isinstance(expr, ast.Name) and expr.id == "_base_":
            return self.base
        children, key = self._children_and_key(expr)
        return None if children is None or key is None else children.get(key)

    def _children_and_key(self, expr: ast.expr) -> tuple[dict[Any, _Slot] | None, Any]:
        """Returns the dict or list that ``expr`` takes something from or puts it into, and where.

        One of the two is None if that cannot be told.
        """
        if isinstance(expr, ast.Name):
            return self.names, expr.id
        if not isinstance(expr, (ast.Subscript, ast.Attribute)):
            return None, None
        parent = self._find(expr.value)
        if parent is None:
            return None, None
        if isinstance(expr, ast.Attribute):
            return parent.value.children, expr.attr
        return parent.value.children, _key(expr.slice, parent.value)


def _key(node: ast.expr, container: _Value) -> str | int | None:
    """Returns what stands in brackets, if that is a name or a number; -1 as the last index."""
    try:
        key = ast.literal_eval(node)
    except (ValueError, TypeError):
        return None
    if container.kind is not dict and isinstance(key, int):
        return key + len(container.items) if key < 0 else key
    return key if isinstance(key, (str, int)) else None


def _has_star(expr: ast.List | ast.Tuple) -> bool:
    return any(isinstance(item, ast.Starred) for item in expr.elts)


def _name_node(word: ast.keyword) -> ast.Constant | None:
    return ast.copy_location(ast.Constant(word.arg), word) if word.arg else None
