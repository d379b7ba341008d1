"""What configs can name: everything registered in fldet, MMDetection, MMEngine and plug-ins."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from mmengine.registry import Registry

from fldet import _compat, plugins

# What is listed under a word of its own: registry, what the name matches or the class has, kind.
KINDS = (
    ("model", re.compile(r"Loss|^GHM[CR]$"), "", "loss"),
    ("model", re.compile(r"Head$"), "", "head"),
    ("task util", re.compile(""), "mine", "miner"),
    ("task util", re.compile(""), "assign", "assigner"),
)


@dataclass(frozen=True)
class Name:
    """One thing that a config can name, or a command."""

    kind: str  # loss, miner, dataset, command, ...
    name: str  # as it is written in a config
    package: str  # the plug-in's distribution; else the Python package it is from
    version: str


@cache
def registries() -> dict[str, Registry]:
    """Returns all registries by name, filled, MMDetection's in the place of their parents."""
    with _compat.silence_imports():
        import mmdet.registry
        import mmengine.registry
        from mmdet.utils import register_all_modules

        register_all_modules(init_default_scope=False)
        import fldet.registry  # noqa: F401  it hangs itself below MMDetection's
    names = {**vars(mmengine.registry), **vars(mmdet.registry)}
    return {
        name: value
        for name, value in names.items()
        if isinstance(value, Registry) and not name.startswith("MMENGINE_")
    }


def registered() -> list[Name]:
    """Returns everything registered, sorted by kind, package and name; imports all plug-ins."""
    _load_plugins()
    roots = {id(registry.root): registry.root for registry in registries().values()}
    found = {
        Name(_kind(root.name, name, item), _written(tree, name), *_origin(tree, item))
        for root in roots.values()
        for tree in _trees(root)
        for name, item in tree.module_dict.items()
    }
    return sorted(found, key=lambda one: (one.kind, one.package, one.name))


def names_like(registry: Registry) -> dict[str, list[str]]:
    """Returns by the bare name how configs may write the names of a registry and all its scopes."""
    _load_plugins()
    found: dict[str, list[str]] = {}
    for tree in _trees(registry.root):
        for name in tree.module_dict:
            written = _written(tree, name)
            if written not in found.setdefault(name, []):
                found[name].append(written)
    return found


def provider_of(name: str) -> str:
    """Returns package and version of the plug-in that a dotted name of a config needs, or ''."""
    plugin = plugins.find(plugins.SCOPES, name.partition(".")[0])
    return plugin.provider if plugin else ""


def _load_plugins() -> None:
    registries()
    for plugin in plugins.installed():
        if not plugin.is_command:
            plugins.problem_of(plugin)  # imports it; `fldet plugins` says what is wrong


def _trees(registry: Registry) -> Iterator[Registry]:
    """Yields a registry and those below it, filled; what a broken plug-in has is left out."""
    plugin = plugins.find(plugins.SCOPES, registry.scope)
    if plugin and plugins.problem_of(plugin):
        return
    try:
        registry.import_from_location()
    except Exception:  # of a package that is no plug-in: a config that names it gets the error
        return
    yield registry
    for child in registry.children.values():
        yield from _trees(child)


def _written(tree: Registry, name: str) -> str:
    return name if tree.scope in ("mmengine", "mmdet") else f"{tree.scope}.{name}"


def _kind(registry: str, name: str, item: Any) -> str:
    for place, pattern, method, kind in KINDS:
        if place == registry and pattern.search(name) and (not method or hasattr(item, method)):
            return kind
    return re.sub("[ _]", "-", registry)


def _origin(tree: Registry, item: Any) -> tuple[str, str]:
    plugin = plugins.find(plugins.SCOPES, tree.scope)
    if plugin:
        return plugin.package, plugin.version
    package = str(getattr(item, "__module__", tree.scope)).partition(".")[0]
    return package, str(getattr(sys.modules.get(package), "__version__", ""))
