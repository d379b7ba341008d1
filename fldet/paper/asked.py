"""The list of the runs of a tier that were asked for, by table."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from fldet.errors import DataError, shorten
from fldet.files import write_atomically
from fldet.results import read_stored
from fldet.runs.run import Run

ASKED = "asked.json"
_NAME = re.compile(r"(?!\.)[\w.+-]{1,200}/seed_[0-9]{1,19}")
_NAMED = "folders of runs, as fl_gamma_2/seed_0"


def ask_for(runs: Sequence[Run], folder: Path) -> None:
    """Adds runs to the list in a tier's folder of those asked for, and for which tables.

    A run that several tables share counts for those that it was asked for only, so that all rows
    of a table have the same seeds.
    """
    asked = asked_for(folder)
    for run in runs:
        for label in run.rows:
            asked.setdefault(label.split()[0], set()).add(run.name)
    content = {table: sorted(names) for table, names in sorted(asked.items())}
    write_atomically(folder / ASKED, json.dumps(content, indent=1))


def asked_for(folder: Path) -> dict[str, set[str]]:
    """Returns the names of the runs that were asked for by table; a bad list is a DataError."""
    path = folder / ASKED
    if not path.is_file():
        return {}
    what, hint = "list of fldet paper run", f"remove {path}, and run again"
    content = read_stored(path, dict[str, tuple[str, ...]], what=what, hint=hint)
    for name in (name for names in content.values() for name in names):
        if not _NAME.fullmatch(name):
            raise DataError(f"{path} is no {what}: {shorten(name)}", expected=_NAMED, hint=hint)
    return {table: set(names) for table, names in content.items()}
