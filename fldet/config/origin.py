"""Finds which file and line set a value of a config, and what that overrode.

The files are read as syntax trees and merged like the configs themselves, with the line beside each
value. What the trees say is then compared with the loaded configs, which have the last word: where
a loop or a function made a value, the file is found by its value alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fldet.config.diff import KeyPath, dotted, is_leaf, leaves
from fldet.config.load import find_config, load_config, parse_override, read_chain, resolve_key
from fldet.config.trees import (
    Place,
    Reader,
    Setting,
    Slot,
    SourceText,
    copied,
    descend,
    dict_in,
    merged,
    settings_of,
    unclear,
    written,
)

__all__ = ["COMMAND_LINE", "Place", "Step", "Origin", "origin_of"]

COMMAND_LINE = "--cfg-options"
_MISSING = object()


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
        self._trees: dict[Path, Slot] = {}
        self._loaded: dict[tuple[Path, int], Any] = {}

    def of_leaf(self, path: KeyPath) -> list[Step]:
        """Returns the steps of a value, latest first."""
        return [*self._overridden(path), *self._in_files(self.file, path)]

    def of_container(self, path: KeyPath, value: Any) -> list[Step]:
        """Returns the parts of a dict by statement, latest first, then what was there before."""
        slot = descend(self._tree(self.file), path)
        own = {(place.file, place.statement): place for place in written(slot)}
        parts: dict[tuple[str, int], Step] = {}
        for relative, item in leaves(value):
            step = self.of_leaf((*path, *relative))[0]
            at = (step.place.file, step.place.statement)
            part = parts.get(at) or Step("part", {}, own.get(at, step.place), step.via)
            parts[at] = replace(part, value={**part.value, dotted(relative): item})
        files = [*map(str, self.chain), COMMAND_LINE]
        latest_first = sorted(parts, key=lambda at: (files.index(at[0]), at[1]), reverse=True)
        whole = list(self._steps(settings_of(self._tree(self.file), path), path))
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
        steps = list(self._steps(settings_of(self._tree(file), path), path))
        if steps and _agree(steps[0].value, real):
            return steps
        # The trees do not tell: the first file that has the value is the one that made it.
        for base in self.chain[file]:
            older = self._in_files(base, path)
            if older and _agree(older[0].value, real):
                return older
            steps = steps or older
        return [self._computed(file, path, real), *steps]

    def _steps(self, settings: Iterable["Setting"], path: KeyPath) -> Iterator[Step]:
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
        place = unclear(self._tree(file), path, str(file))
        return Step("computed", value, place or Place(str(file), None, ""))

    def _tree(self, file: Path) -> "Slot":
        """Returns ``file`` merged over its bases, as MMEngine does it."""
        if file not in self._trees:
            base = dict_in(file, {})
            for tree in map(self._tree, self.chain[file]):
                base.value.items.update(copied(tree.value).items)
            self._trees[file] = merged(Reader(file, base).read(), base)
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
