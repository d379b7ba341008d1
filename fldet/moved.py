"""Names that have moved: they work for one release, with a warning that says where they are now."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def moved(module: str, places: str | Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Returns the ``__getattr__`` of a module whose names are elsewhere.

    ``places`` is the module that has all of them, or the names by the module that has them.
    """

    def find(name: str) -> Any:
        if isinstance(places, str):
            place = None if name.startswith("__") else places
        else:
            place = next((place for place, names in places.items() if name in names), None)
        if place is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        found = getattr(import_module(place), name)
        warnings.warn(f"{module}.{name} is {place}.{name} now", DeprecationWarning, stacklevel=2)
        return found

    return find
