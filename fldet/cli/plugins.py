"""``fldet plugins``."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.cli.printed import ListedPlugin, PluginList
from fldet.errors import UsageError, nearest
from fldet.text import table

if TYPE_CHECKING:
    from fldet.config.names import Name
    from fldet.plugins import Plugin

EXAMPLES = """
  fldet plugins
  fldet plugins --kind loss --all
  fldet plugins --package mmdet --json
"""


@command
def plugins(
    kind: Annotated[
        str | None, typer.Option(help="loss, miner, head, dataset, hook, command, ...")
    ] = None,
    package: Annotated[
        str | None, typer.Option(help="Only names of this package, as in the last column.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Include names of MMDetection, MMEngine and torch.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Print the installed plug-ins, what is wrong with them, and all names for configs.

    Without --all and --package, the names are those of fldet and of plug-ins. Exit code 1: a
    plug-in does not work.
    """
    note("fldet plugins: importing MMDetection and the plug-ins")
    from fldet.config.names import registered
    from fldet.plugins import installed, problem_of

    found = [*sorted(_commands(), key=lambda one: one.name), *registered()]
    problems = {plugin: problem_of(plugin) for plugin in installed()}
    if kind:
        found = _only(found, "kind", kind)
    if package:
        found = _only(found, "package", package)
    elif not everything:
        shown = {"fldet", *(plugin.package for plugin in problems)}
        found = [name for name in found if name.package in shown]
    listed = [ListedPlugin(**vars(plugin), problem=text) for plugin, text in problems.items()]
    result = PluginList(listed, found)
    Output("plugins", as_json=json).result(result, text=lambda: plugins_text(problems, found))
    if any(problems.values()):
        raise typer.Exit(1)


def plugins_text(problems: "dict[Plugin, str]", names: "list[Name]") -> str:
    """Returns the plug-ins as lines, each with its problem below, and the names as a table."""
    lines = []
    for plugin, problem in problems.items():
        lines.append(f"{'X' if problem else ' '} {plugin.provider}  {plugin.title}")
        lines += [f"    -> {problem}"] if problem else []
    rows = [(one.kind, one.name, f"{one.package} {one.version}") for one in names]
    return "\n".join(
        [*(lines or ["  no plug-in is installed"]), ""]
        + ([table(("kind", "name", "from"), rows, align="left")] if rows else ["no such name"])
    )


def _only(names: "list[Name]", field: str, wanted: str) -> "list[Name]":
    values = sorted({getattr(name, field) for name in names})
    if wanted not in values:
        raise UsageError(
            f"nothing of the {field} {wanted!r} is registered",
            expected=nearest(wanted, values) or ", ".join(values),
            hint="fldet plugins --all lists everything",
        )
    return [name for name in names if getattr(name, field) == wanted]


def _commands() -> "Iterator[Name]":
    """Yields the commands of fldet and those of plug-ins."""
    from typer.main import get_command

    from fldet import __version__
    from fldet.cli.main import app
    from fldet.config.names import Name
    from fldet.plugins import installed, problem_of

    todo: list[tuple[str, Any]] = [("", get_command(app))]
    while todo:
        words, group = todo.pop()
        for name, member in group.commands.items():
            path = f"{words} {name}".strip()
            if hasattr(member, "commands"):
                todo.append((path, member))
            else:
                yield Name("command", path, "fldet", __version__)
    for plugin in installed():
        if plugin.is_command and not problem_of(plugin):
            path = plugin.title.removeprefix("command ")
            yield Name("command", path, plugin.package, plugin.version)
