"""``fldet analyze``: each module here is a command of its name, with its ``EXAMPLES``."""

from importlib import import_module
from pkgutil import iter_modules

from fldet.cli.group import GroupWithPlugins, command_group

_names = [found.name for found in iter_modules(__path__)]
app = command_group(
    "Look at data and results.",
    *(getattr(import_module(f"{__name__}.{name}"), name) for name in _names),
    cls=GroupWithPlugins,
)
