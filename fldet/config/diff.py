"""Compares two loaded configs key by key."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from mmengine.config import Config

KeyPath = tuple[str | int, ...]
_MISSING = object()


@dataclass(frozen=True)
class Difference:
    """One key whose value is not the same in two configs."""

    key: str  # dotted; numbers are indices of lists, those of A where A has the element
    a: Any  # None if it is not there
    b: Any
    in_a: bool
    in_b: bool


def diff_configs(a: Config, b: Config) -> list[Difference]:
    """Returns what differs between two configs, one item for each leaf, sorted by key.

    Lists that hold dicts are compared element by element if they are equally long. Otherwise their
    elements are aligned by ``type``, and those that only one list has are shown whole. Any other
    list is one value.

    A variable such as ``train_pipeline`` is left out, as the loaders show its difference: a dict or
    list that, in each config that has it, also stands in a ``*_dataloader``, as it is or, with two
    items or more, unpacked into a dict (``**shapes``). A single value always stays: an equal number
    elsewhere says nothing.
    """
    left, right = a.to_dict(), b.to_dict()
    helpers = {key for key in left | right if _is_helper(key, left) and _is_helper(key, right)}
    found = [item for item in _differences(left, right, ()) if item[0][0] not in helpers]
    return [_difference(*item) for item in sorted(found, key=lambda item: _order(item[0]))]


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yields path and value of what holds no other dict; an empty dict is such a leaf."""
    if is_leaf(value):
        yield path, value
        return
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from leaves(item, (*path, key))


def is_leaf(value: Any) -> bool:
    """Returns whether ``leaves`` takes ``value`` as one."""
    return not (value and _holds_dicts(value))


def dotted(path: KeyPath) -> str:
    """Returns ``a.2.b`` for ``("a", 2, "b")``."""
    return ".".join(map(str, path))


def _holds_dicts(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple))
    return isinstance(value, Mapping) or (is_list and any(map(_holds_dicts, value)))


# --- comparing ---


def _differences(a: Any, b: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any, Any]]:
    """Yields path and both values where ``a`` and ``b`` differ; one may be ``_MISSING``."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in {**a, **b}:
            yield from _differences(a.get(key, _MISSING), b.get(key, _MISSING), (*path, key))
    elif a is _MISSING:
        yield from ((at, a, value) for at, value in leaves(b, path))
    elif b is _MISSING:
        yield from ((at, value, b) for at, value in leaves(a, path))
    elif type(a) is type(b) and _holds_dicts(a) and _holds_dicts(b):
        yield from _list_differences(a, b, path)
    elif a != b:
        yield path, a, b


def _list_differences(a: Any, b: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any, Any]]:
    for i, j in _pairs(a, b):
        if j is None:
            yield (*path, i), a[i], _MISSING
        elif i is None:
            yield (*path, j), _MISSING, b[j]
        else:
            yield from _differences(a[i], b[j], (*path, i))


def _pairs(a: Any, b: Any) -> Iterator[tuple[Any, Any]]:
    """Yields which index of ``a`` goes with which of ``b``; None beside an element left alone."""
    if len(a) == len(b):
        yield from zip(range(len(a)), range(len(b)), strict=True)
        return
    matcher = SequenceMatcher(None, [*map(_kind, a)], [*map(_kind, b)], autojunk=False)
    for tag, i0, i1, j0, j1 in matcher.get_opcodes():
        if tag == "equal":
            yield from zip(range(i0, i1), range(j0, j1), strict=True)
        else:
            yield from ((i, None) for i in range(i0, i1))
            yield from ((None, j) for j in range(j0, j1))


def _kind(element: Any) -> str:
    """Returns by what an element is known to be the same one in another list."""
    return str(element["type"] if isinstance(element, Mapping) and "type" in element else element)


def _difference(path: KeyPath, a: Any, b: Any) -> Difference:
    in_a, in_b = a is not _MISSING, b is not _MISSING
    return Difference(dotted(path), a if in_a else None, b if in_b else None, in_a, in_b)


def _order(path: KeyPath) -> list[tuple[bool, int, str]]:
    """Returns what sorts index 10 after index 2."""
    return [(True, step, "") if isinstance(step, int) else (False, 0, str(step)) for step in path]


# --- helper variables ---


def _is_helper(key: str, cfg: Mapping[str, Any]) -> bool:
    """Returns whether ``cfg`` has ``key`` only to repeat it in a loader, or does not have it."""
    if key not in cfg:
        return True
    value, loaders = cfg[key], [cfg[name] for name in cfg if name.endswith("_dataloader")]
    if key.endswith("_dataloader") or not isinstance(value, (Mapping, list, tuple)) or not value:
        return False
    return any(_contains(loader, value) for loader in loaders)


def _contains(node: Any, value: Any) -> bool:
    if node == value:
        return True
    if isinstance(node, Mapping):
        unpacked = isinstance(value, Mapping) and len(value) > 1 and value.items() <= node.items()
        return unpacked or any(_contains(item, value) for item in node.values())
    return isinstance(node, (list, tuple)) and any(_contains(item, value) for item in node)
