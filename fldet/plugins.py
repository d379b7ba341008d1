"""Plug-ins: installed packages that add names to configs and commands to the command line.

A package says so in its metadata, with entry points, so that looking for them imports nothing:

    [project.entry-points."fldet.plugins"]
    theirs = "theirs.registry"          # MMEngine's scope: type='theirs.X' in a config

    [project.entry-points."fldet.commands.analyze"]
    look = "theirs.look:look"           # fldet analyze look

A plug-in is imported when a config uses its scope, when its command is called, and when all names
are listed or searched; one that fails then stands in nobody else's way.
"""

import importlib
import os
import sys
import traceback
from dataclasses import dataclass
from functools import cache
from glob import escape, glob
from inspect import isfunction
from typing import Any

from fldet.errors import UnavailableError

SCOPES = "fldet.plugins"
COMMANDS = "fldet.commands"


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed package."""

    group: str  # ``fldet.plugins``, or ``fldet.commands`` with the words before the command's own
    name: str  # the scope, or the command's name
    value: str  # the module, for a command with ``:`` and its function
    package: str  # the distribution, as pip knows it
    version: str

    @property
    def is_command(self) -> bool:
        """Whether it adds a command, not a scope."""
        return self.group != SCOPES

    @property
    def title(self) -> str:
        """What it adds, in words: ``scope x`` or ``command analyze x``."""
        words = [*self.group.removeprefix(COMMANDS).split("."), self.name]
        return (
            " ".join(["command", *filter(None, words)]) if self.is_command else f"scope {self.name}"
        )

    @property
    def provider(self) -> str:
        """Package and version."""
        return f"{self.package} {self.version}"


@cache
def installed() -> tuple[Plugin, ...]:
    """Returns the entry points of all plug-ins, sorted by group and name; imports none of them."""
    if not _any_declared():
        return ()
    from importlib.metadata import entry_points

    points = entry_points()
    return tuple(
        sorted(
            (
                Plugin(group, point.name, point.value, point.dist.name, point.dist.version)
                for group in points.groups
                if group == SCOPES or f"{group}.".startswith(f"{COMMANDS}.")
                for point in points.select(group=group)
                if point.dist
            ),
            key=lambda plugin: (plugin.group, plugin.name, plugin.package),
        )
    )


def _any_declared() -> bool:
    """Returns whether a package on the path may be a plug-in, without reading all metadata.

    Mostly there is none, and then the help need not wait for ``importlib.metadata``.
    """
    for folder in sys.path:
        if folder.endswith((".zip", ".egg", ".whl")) and os.path.isfile(folder):
            return True
        for path in glob(os.path.join(escape(folder or "."), "*-info", "entry_points.txt")):
            with open(path, "rb") as file:
                if b"[fldet." in file.read():
                    return True
    return False


def find(group: str, name: str) -> Plugin | None:
    """Returns the plug-in with this entry point, of several the first; None if there is none."""
    return next((one for one in installed() if (one.group, one.name) == (group, name)), None)


def load_scope(scope: str) -> None:
    """Imports the plug-in with this scope, if there is one, so that its names are registered."""
    plugin = find(SCOPES, scope)
    if plugin is not None:
        load(plugin)


def problem_of(plugin: Plugin) -> str:
    """Returns what is wrong with a plug-in, or '' if ``load`` works; imports it."""
    return _load(plugin)[1]


def load(plugin: Plugin) -> Any:
    """Returns the module of a scope, with all its names registered, or the function of a command.

    The second call returns the same, or fails in the same way, without another import.

    Raises:
        UnavailableError: the import fails, or the entry point is not one that can work.
    """
    found, problem = _load(plugin)
    if problem:
        raise UnavailableError(
            f"the plug-in {plugin.provider} ({plugin.title}) does not work: {problem}",
            hint=f"pip install --upgrade {plugin.package}; fldet plugins lists all plug-ins",
        )
    return found


@cache
def _load(plugin: Plugin) -> tuple[Any, str]:
    """Returns what an entry point stands for, and what is wrong with it or ''.

    Cached, failures too: a registry that was made before an import broke cannot be made again.
    """
    problem = _wrong_entry(plugin)
    if problem:
        return None, problem
    module, _, attribute = plugin.value.partition(":")
    try:
        found = importlib.import_module(module)
        if plugin.is_command:
            function = getattr(found, attribute)
            return function, "" if isfunction(function) else f"{plugin.value} is no function"
        return found, _fill(found, plugin.name)
    except (Exception, SystemExit) as error:
        return None, _describe(error)


def _describe(error: BaseException) -> str:
    """Returns kind, first line and place of an error; no place if no file of a plug-in was run."""
    words = f"{type(error).__name__}: {error}".split("\n")[0]
    frames = traceback.extract_tb(error.__traceback__)
    not_theirs = ("<", __file__, os.path.dirname(importlib.__file__))
    theirs = [frame for frame in frames if not frame.filename.startswith(not_theirs)]
    return f"{words} ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else words


def _wrong_entry(plugin: Plugin) -> str:
    first = find(plugin.group, plugin.name)
    if first is not None and first != plugin:
        return f"{first.provider} adds the {plugin.title} too, and comes first"
    if plugin.is_command:
        if plugin.group not in (COMMANDS, f"{COMMANDS}.analyze"):
            return f"the group is {plugin.group}, not {COMMANDS} or {COMMANDS}.analyze"
        return "" if ":" in plugin.value else f"{plugin.value!r} is not MODULE:FUNCTION"
    if plugin.name in ("fldet", "mmdet", "mmengine", "mmcv"):
        return f"the scope {plugin.name} is taken"
    expected = f"{plugin.name}.registry"  # where MMEngine looks by itself
    return "" if plugin.value == expected else f"its module is {plugin.value!r}, not {expected!r}"


def _fill(module: Any, scope: str) -> str:
    """Imports what the registries in ``module`` name as locations; returns what is wrong or ''."""
    from mmengine.registry import Registry

    registries = [value for value in vars(module).values() if isinstance(value, Registry)]
    ours = [registry for registry in registries if registry.scope == scope]
    for registry in ours:
        registry.import_from_location()
    return "" if ours else f"{module.__name__} has no Registry with scope={scope!r}"
