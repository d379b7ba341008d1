"""Changes single values of a loaded config: ``key.path=value``, for keys that it has.

MMEngine's own overrides accept a misspelt key and break the text of a value at each comma; these
name the nearest key, and take a value as Python writes it, or as it is.
"""

import ast
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.utils import apply_to

from fldet.errors import ConfigError, nearest, shorten
from fldet.numeric import is_whole

_MISSING = object()
_LONGEST, _DEEPEST = 1000, 50  # characters and names of a key


def apply_overrides(cfg: Config, overrides: Sequence[str] | Mapping[str, Any]) -> None:
    """Sets values of ``cfg`` in place; see ``fldet.config.load.load_config``."""
    for override in overrides.items() if isinstance(overrides, Mapping) else overrides:
        key, value = parse_override(override, cfg) if isinstance(override, str) else override
        old_root = cfg.get("data_root")
        _override(cfg, key, value)
        if key == "data_root" and old_root and isinstance(value, str):
            _move_data(cfg, str(old_root).rstrip("/"), value)


def resolve_key(cfg: Config, key: str) -> tuple[str | int, ...]:
    """Returns the steps of a dotted ``key`` through ``cfg``: names, and numbers where a list is."""
    node: Any = ConfigDict(cfg.items())
    words = _words_of(key)
    path: tuple[str | int, ...] = ()
    for depth in range(len(words)):
        above = tuple(words[:depth])
        if not isinstance(node, (dict, list, tuple)):
            raise ConfigError(
                f"unknown config key {key!r}: {'.'.join(above)} is {shorten(node)}",
                expected=f"nothing after {'.'.join(above)}",
            )
        try:
            step = _index(node, words[depth:], above, create=False)
        except ConfigError as error:
            hint = "fldet config show CONFIG prints every key"
            raise ConfigError(error.message, expected=error.expected, hint=hint) from None
        path, node = (*path, step), node[step]
    return path


# --- what a text says ---


def parse_override(text: str, cfg: Config | None = None) -> tuple[str, Any]:
    """Returns key path and value of ``key.path=value``, split at the first ``=``.

    A value that is a Python literal is that literal, ``dict(a=1)`` for ``{'a': 1}`` included, and
    ``1,2`` for ``[1, 2]``. So are ``true``, ``false``, ``inf`` and MMEngine's lists of bare words,
    ``[a,b]``, ``(a,b)`` and ``a,b``; the latter without spaces or slashes in a word, and not where
    ``cfg`` has a text now. Everything else is the text as it is given, brackets, commas and quotes
    included, but for spaces at its ends.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not all(_words_of(key.removeprefix("+"))):
        raise ConfigError(
            f"override {shorten(text)} is not of the form key.path=value",
            expected="for example optim_wrapper.optimizer.lr=0.01",
        )
    parsed = _literal(value)
    if parsed is _MISSING:
        parsed = _literal(_BARE_WORD.sub(_as_literal, value))
        is_list = isinstance(parsed, (list, tuple))
        is_clear = value[:1] in ("[", "(") or re.fullmatch(r"[\w.+-]+( *, *[\w.+-]+)* *,?", value)
        is_text = isinstance(parsed, str) or parsed is _MISSING
        if is_text or (is_list and (not is_clear or _has_text(cfg, key))):
            return key, value
    return key, parsed


def _words_of(key: str) -> list[str]:
    """Returns the names and numbers that a dotted key is made of, if it is not too long."""
    words = key.split(".")
    if len(key) > _LONGEST or len(words) > _DEEPEST:
        raise ConfigError(
            f"config key {shorten(key)} has {len(words)} parts and {len(key)} characters",
            expected=f"at most {_DEEPEST} parts and {_LONGEST} characters",
        )
    return words


def _require_text(key: Any, above: tuple[str, ...] = ()) -> None:
    if not isinstance(key, str):
        raise ConfigError(
            f"{'.'.join(above) or 'the config'} cannot have the key {shorten(key)}",
            expected=f"a name in quotes: {shorten(key)!r}",
        )


_BARE_WORD = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^][(),'"]+""")
_NAMED_VALUES = {"true": "True", "false": "False", "inf": "1e999", "-inf": "-1e999"}


def _as_literal(match: re.Match[str]) -> str:
    """Returns a part of a value between brackets, commas and quotes as Python writes it."""
    word = match[0].strip()
    if not word or _literal(word) is not _MISSING:
        return match[0]
    return _NAMED_VALUES.get(word.lower(), repr(word))


def _literal(text: str) -> Any:
    """Returns the value that a text is in Python, ``_MISSING`` where it is none for a config."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in quotes that are none
            ast.parse(f"({text})", mode="eval")  # a comment would hide the bracket
            tree = ast.parse(text, mode="eval")
        value = ast.literal_eval(_DictCalls().visit(tree))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return _MISSING
    if not _is_plain(value):
        return _MISSING
    body = tree.body
    is_bare = isinstance(body, ast.Tuple) and body.elts and body.elts[0].col_offset == 0
    return list(value) if is_bare else value


def _is_plain(value: Any) -> bool:
    """Returns whether a literal is of the types of configs: no bytes, complex number or ``...``."""
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, (list, tuple, set)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _has_text(cfg: Config | None, key: str) -> bool:
    """Returns whether the value of a key is a text now."""
    node: Any = cfg or Config()
    try:
        for step in resolve_key(node, key.removeprefix("+")):
            node = node[step]
    except ConfigError:
        return False
    return isinstance(node, str)


class _DictCalls(ast.NodeTransformer):
    """Makes ``{'a': 1}`` of ``dict(a=1)``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Returns the literal, or the call as it is where it is another."""
        self.generic_visit(node)
        names = [word.arg for word in node.keywords]
        if ast.unparse(node.func) != "dict" or node.args or None in names:
            return node
        keys: list[ast.expr | None] = [ast.Constant(name) for name in names]
        return ast.Dict(keys, [word.value for word in node.keywords])


# --- setting it ---


def _override(cfg: Config, key: str, value: Any) -> None:
    """Sets ``key`` in place; containers on the way are copied, as variables may share them."""
    _require_text(key)
    name = key.removeprefix("+")
    keys = _words_of(name)
    root = ConfigDict(cfg.items())
    cfg[keys[0]] = _replaced(root, keys, (), value, create=key != name)[keys[0]]


def _move_data(cfg: Config, old: str, new: str) -> None:
    """Puts ``new`` for ``old`` at the start of every path in loaders and evaluators, in place."""

    def is_below(value: Any) -> bool:
        return isinstance(value, str) and (value == old or value.startswith(f"{old}/"))

    for key in cfg:
        if key.endswith(("_dataloader", "_evaluator")):
            cfg[key] = apply_to(
                cfg[key], is_below, lambda path: os.path.join(new, path[len(old) + 1 :])
            )


def _replaced(
    node: Any, keys: list[str], above: tuple[str, ...], value: Any, *, create: bool
) -> Any:
    """Returns a copy of ``node`` with ``value`` at ``keys``; ``above`` is the path to ``node``."""
    index = _index(node, keys, above, create)
    path = (*above, keys[0])
    new = list(node) if isinstance(node, tuple) else node.copy()
    exists = not isinstance(node, dict) or index in node
    old = new[index] if exists else _MISSING
    if len(keys) > 1:
        child = ConfigDict() if old is _MISSING else old
        new[index] = _replaced(child, keys[1:], path, value, create=create)
    else:
        new[index] = _fitted(old, value, path, create)
    return tuple(new) if isinstance(node, tuple) else new


def _index(node: Any, keys: list[str], above: tuple[str, ...], create: bool) -> Any:
    """Returns the key or index of the next step; an error if ``node`` has none of that name."""
    key, parent, full = keys[0], ".".join(above), ".".join((*above, *keys))
    if isinstance(node, dict):
        if key in node or create:
            return key
        raise ConfigError(
            f"unknown config key {full!r}: {parent or 'the config'} has no {key!r}",
            expected=nearest(key, node) or f"one of: {', '.join(map(str, node))}",
            hint=f"to add a key on purpose, put + before it: +{full}=...",
        )
    if not isinstance(node, (list, tuple)):
        raise ConfigError(
            f"cannot set config key {full!r}: {parent} is {node!r}",
            expected=f"{parent} to be a dict or a list",
            hint=f"to make it a dict: {parent}=\"{{'{key}': ...}}\"",
        )
    if is_whole(key) and int(key) < len(node):
        return int(key)
    raise ConfigError(
        f"unknown config key {full!r}: {parent} is a list of {len(node)} and has no {key!r}",
        expected=f"an index from 0 to {len(node) - 1}" if node else "",
        hint=f"to replace the list: {parent}=[...]",
    )


def _fitted(old: Any, value: Any, path: tuple[str, ...], create: bool) -> Any:
    """Returns what to put in the place of ``old``: mappings are merged, text is no number."""
    if isinstance(value, Mapping):
        fresh = ConfigDict(value)
        if fresh.pop("_delete_", False) or not isinstance(old, dict):
            return fresh
        for key, item in fresh.items():
            _require_text(key, path)
            old = _replaced(old, [key], path, item, create=create)
        return old
    if isinstance(old, (bool, int, float)) and isinstance(value, str) and not create:
        kind = "True or False" if isinstance(old, bool) else "a number"
        raise ConfigError(
            f"config key {'.'.join(path)} cannot be {value!r}",
            expected=f"{kind}; it is {old!r} now",
            hint=f"{'.'.join(path)}={old!r}",
        )
    looks_like_one = isinstance(value, str) and value.startswith(("[", "(", "{", "dict("))
    if isinstance(old, (dict, list, tuple)) and looks_like_one and not create:
        raise ConfigError(
            f"config key {'.'.join(path)} cannot be the text {shorten(value)}",
            expected=f"a value as Python writes it; it is {shorten(old)} now",
            hint="brackets and quotes must match; put words in quotes: [dict(type='X')]",
        )
    return value
