"""Groups of commands: imported when they are called, and open to plug-ins (``fldet.plugins``)."""

import sys
from collections import UserDict
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperArgument, TyperGroup
from typer.main import get_command

COMMANDS = "fldet.commands"  # group of entry points


class GroupWithPlugins(TyperGroup):
    """A group that also finds commands among the entry points of installed packages.

    The metadata of packages are read only for a name that is none of its own, and for the help,
    which shows what is in the metadata. A plug-in is imported when its command is called.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns a command of this name, or None; a plug-in that fails ends the process."""
        own = super().get_command(ctx, cmd_name)
        return own or _command_of_plugin(_entry_group(ctx), cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the commands, then those of plug-ins with the packages that have them."""
        from fldet.plugins import installed

        self.format_own_commands(ctx, formatter)
        group = _entry_group(ctx)
        rows = [(one.name, one.provider) for one in installed() if one.group == group]
        rows = [row for row in dict(rows[::-1]).items() if row[0] not in self.commands]
        if rows:
            with formatter.section("Commands of plug-ins"):
                formatter.write_dl(sorted(rows))

    def format_own_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the commands without those of plug-ins."""
        super().format_commands(ctx, formatter)


class GroupOfModules(GroupWithPlugins):
    """A group whose commands are modules of ``fldet.cli``, imported when they are looked up.

    A module has a function of its name, or for a group of commands a Typer ``app``. The help is
    written from ``summaries`` and imports none.
    """

    summaries: ClassVar[dict[str, str]]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Modules(self.summaries)

    def format_own_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the commands."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))


class _Modules(UserDict[str, Any]):
    """Commands by name; the values it is made of are not looked at."""

    def __getitem__(self, name: str) -> Any:
        return _command_of_module(name) if name in self else super().__getitem__(name)


def command_group(
    help: str, *functions: Callable[..., Any], cls: type[TyperGroup] | None = None
) -> typer.Typer:
    """Returns a group of commands, each with the ``EXAMPLES`` of its module below its help."""
    app = typer.Typer(
        cls=cls, help=help, rich_markup_mode=None, no_args_is_help=True, add_completion=False
    )
    for function in functions:
        app.command(epilog=_examples_of(function))(function)
    return app


@cache
def _command_of_module(name: str) -> Any:
    module_name = name.replace("-", "_")
    module = import_module(f"fldet.cli.{module_name}")
    app = getattr(module, "app", None)
    return _click_command(app) if app else _as_command(getattr(module, module_name), name)


def _entry_group(ctx: Any) -> str:
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, ctx.info_name)
        ctx = ctx.parent
    return ".".join([COMMANDS, *words])


def _command_of_plugin(group: str, name: str) -> Any:
    from fldet.errors import UnavailableError
    from fldet.plugins import find, load

    plugin = find(group, name)
    if plugin is None:
        return None
    try:
        return _as_command(load(plugin), name)
    except UnavailableError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None


def _as_command(function: Callable[..., Any], name: str) -> Any:
    """Returns a function as a command; its module's ``EXAMPLES`` end the help."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(name, epilog=_examples_of(function))(function)
    return _click_command(app)


def _examples_of(function: Callable[..., Any]) -> str | None:
    examples = getattr(sys.modules.get(function.__module__), "EXAMPLES", None)
    return examples and epilog(examples)


def epilog(examples: str) -> str:
    """Returns examples as they end a help; the backspace has Click keep their lines."""
    return examples if examples.startswith("\b") else f"\b\nExamples:{examples}"


def _click_command(app: typer.Typer) -> Any:
    """Returns the command or group of an app; its help has no Python types behind arguments."""
    command = get_command(app)
    for one in (command, *getattr(command, "commands", {}).values()):
        for parameter in one.params:
            if isinstance(parameter, TyperArgument):
                vars(parameter)["display_type_rich"] = lambda *_, **__: None
    return command
