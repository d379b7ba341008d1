"""Reads a config as a syntax tree and keeps the line beside every value.

What is merged, copied and deleted follows MMEngine's rules. What only Python can evaluate is kept
as source text, and statements that are not followed leave a mark on what they may have touched.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fldet.config.diff import KeyPath
from fldet.config.load import parse_config

__all__ = [
    "Place",
    "Reader",
    "Setting",
    "Slot",
    "SourceText",
    "Value",
    "copied",
    "descend",
    "dict_in",
    "merged",
    "settings_of",
    "unclear",
    "written",
]


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


# --- what is known of one value ---


class SourceText(str):
    """An expression that only Python itself can evaluate."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(eq=False)
class Value:
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
    children: dict[str | int, "Slot"] | None = None
    kind: type = dict
    touched: list[Place] = field(default_factory=list)

    @property
    def items(self) -> dict[str | int, "Slot"]:
        """Returns the children, none for a literal."""
        return {} if self.children is None else self.children

    def plain(self) -> Any:
        """Returns the value as Python has it."""
        if self.children is None:
            return self.literal
        if self.kind is dict:
            return {key: slot.value.plain() for key, slot in self.children.items()}
        return self.kind(slot.value.plain() for slot in self.children.values())


@dataclass(eq=False)
class Slot:
    """What stands below one key, and what it has replaced.

    Attributes:
        place: where it was put here; not where it is written if a variable handed it on.
        value: the value.
        older: the slot before it.
        merged: it was merged with ``older``, so that its children know their own past.
        deleted: the ``_delete_`` by which ``older`` no longer counts.
    """

    place: Place
    value: Value
    older: "Slot | None" = None
    merged: bool = False
    deleted: Place | None = None


@dataclass(frozen=True)
class Setting:
    """One value that a key had, or its deletion; see ``Slot``."""

    place: Place
    value: Any
    via: tuple[Place, ...] = ()
    deleted: bool = False


def dict_in(file: Path, children: "dict[str | int, Slot]") -> Slot:
    """Returns the slot of a whole file."""
    place = Place(str(file), None, "")
    return Slot(place, Value(place, children=children))


def settings_of(slot: Slot, path: KeyPath, via: tuple[Place, ...] = ()) -> Iterator[Setting]:
    """Yields what was set at ``path`` below ``slot``, latest first."""
    if slot.place != slot.value.home:
        via = (*via, slot.place)
    if path and path[0] in slot.value.items:
        yield from settings_of(slot.value.items[path[0]], path[1:], via)
    if not path:
        yield from _own_settings(slot.value, via)
    while slot.merged and slot.older:  # that past is in the slots below
        slot = slot.older
    older = list(settings_of(slot.older, path)) if slot.older else []
    if older and slot.deleted:
        yield Setting(slot.deleted, None, deleted=True)
    else:
        yield from older


def _own_settings(value: Value, via: tuple[Place, ...]) -> Iterator[Setting]:
    """Yields the last assignment to an item of a list of plain values, then the value at home."""
    items = value.items
    changed = [item.place for item in items.values() if item.older]
    if changed and value.kind is list and not any(item.value.children for item in items.values()):
        last = max(changed, key=lambda place: place.statement)
        yield Setting(last, value.plain(), via)
        value = replace(value, children={key: _oldest(item) for key, item in items.items()})
    yield Setting(value.home, value.plain(), via)


def _oldest(slot: Slot) -> Slot:
    return slot if slot.older is None else _oldest(slot.older)


def descend(slot: Slot | None, path: KeyPath) -> Slot | None:
    """Returns the slot at ``path`` below ``slot``, None if there is none."""
    for step in path:
        slot = slot.value.items.get(step) if slot else None
    return slot


def written(slot: Slot | None) -> Iterator[Place]:
    """Yields where the dicts are written that were merged into this one, oldest first."""
    if slot is None:
        return
    if slot.merged:
        yield from written(slot.older)
    yield slot.value.home


def unclear(slot: Slot | None, path: KeyPath, file: str) -> Place | None:
    """Returns the last statement of ``file`` that may have computed what is at ``path``."""
    places: list[Place] = []
    for depth in range(len(path) + 1):
        here = descend(slot, path[:depth])
        if here is None:
            break
        places += here.value.touched
        if depth < len(path) and isinstance(here.value.literal, SourceText):
            places.append(here.value.home)
    mine = [place for place in places if place.file == file]
    return max(mine, key=lambda place: place.statement, default=None)


def copied(value: Value) -> Value:
    """Returns a copy in which nothing is shared, as MMEngine makes one of every base."""
    if value.children is None:
        return replace(value, touched=[*value.touched])
    children = {key: replace(slot, value=copied(slot.value)) for key, slot in value.items.items()}
    return replace(value, children=children, touched=[*value.touched])


def merged(new: Slot, old: Slot) -> Slot:
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
        children[key] = merged(children[key], slot) if key in children else slot
    touched = [*old.value.touched, *new.value.touched]
    value = replace(new.value, children=children, touched=touched)
    return replace(new, value=value, older=old, merged=True)


def _chained(newer: Slot | None, old: Slot) -> Slot:
    """Returns ``newer`` with ``old`` as the oldest of its past."""
    return old if newer is None else replace(newer, older=_chained(newer.older, old))


# --- reading one file ---


class Reader:
    """Follows the statements of one file and keeps the line beside every value.

    Args:
        file: the config.
        base: its bases, merged; what the file does to ``_base_`` is done to it.
    """

    def __init__(self, file: Path, base: Slot) -> None:
        self.file = file
        self.lines = file.read_text(encoding="utf-8").split("\n")
        self.base = base
        self.names: dict[str | int, Slot] = {}
        self.statement = 0

    def read(self) -> Slot:
        """Returns the variables of the file as one dict."""
        for statement in parse_config(self.file).body:
            self.statement = statement.lineno
            self._run(statement)
        return dict_in(self.file, self.names)

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
                children[key] = Slot(place, value, older=children.get(key))
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

    def _named(self, node: ast.AST) -> Iterator[Slot]:
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
                value = Value(place, SourceText(place.text))
                self.names[name.id] = Slot(place, value, older=self.names.get(name.id))

    # --- expressions ---

    def _value(self, expr: ast.expr, place: Place) -> Value:
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
            slots = [Slot(at, self._value(item, at)) for item, at in items]
            return Value(place, children=dict(enumerate(slots)), kind=kind)
        return Value(place, self._literal(expr))

    def _dict(self, items: Iterable[tuple[Any, ast.expr]], place: Place) -> Value:
        """Returns a dict of key and value nodes; the key None unpacks the value."""
        result = Value(place, children={})
        for key, expr in items:
            at = self._place(key or expr)
            value = self._value(expr, at)
            if key is None and value.children is not None and value.kind is dict:
                new = {name: replace(slot, place=at) for name, slot in value.items.items()}
            elif isinstance(key, ast.Constant) and isinstance(key.value, (str, int)):
                new = {key.value: Slot(at, value)}
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

    def _find(self, expr: ast.expr) -> Slot | None:
        """Returns what a name, ``_base_.x``, ``x['y'][0]`` or ``{{_base_.x}}`` refers to."""
        if isinstance(expr, ast.Set) and isinstance(expr.elts[0], ast.Set):
            return self._find(expr.elts[0].elts[0])
        if isinstance(expr, ast.Name) and expr.id == "_base_":
            return self.base
        children, key = self._children_and_key(expr)
        return None if children is None or key is None else children.get(key)

    def _children_and_key(self, expr: ast.expr) -> tuple[dict[Any, Slot] | None, Any]:
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


def _key(node: ast.expr, container: Value) -> str | int | None:
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
