"""Tiers: the paper's rows with other data, another size of model and image, another schedule.

A tier is a fragment of a config, in ``configs/_base_/tiers``. The config of a run is the tier's
text with the row as its base, so the rules of inheritance decide what it replaces, and what the
tier does not name stays the row's.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from fldet.config.load import CONFIGS, parse_config
from fldet.errors import ConfigError, UsageError, nearest
from fldet.files import write_atomically

FOLDER = CONFIGS / "_base_" / "tiers"


@dataclass(frozen=True)
class Tier:
    """What replaces the data, size and schedule of every row."""

    name: str  # ``laptop``, ``gpu``, ``full``, or the stem of a file
    file: Path  # the fragment
    text: str  # of the fragment
    header: str  # its docstring
    minutes: float | None  # of one run, as the fragment's header says; None if it does not
    is_paper: bool  # the fragment is empty: the rows are the paper's own
    clips_gradients: bool  # the fragment says so; the paper's rows do not

    @property
    def option(self) -> str:
        """What ``--tier`` takes for it: the name of ours, else that of the file."""
        return self.name if self.file.parent == FOLDER else self.file.name

    def write(self, row: Path, folder: Path, *, alpha: float | None = None) -> Path:
        """Writes the config of a row in this tier and returns its path.

        The file is named after the row; ``alpha`` replaces that of the row's classification loss.
        Only rows below ``configs/paper`` are changed by the tier: the small version of a system
        has its own data and size.
        """
        base = f"fldet::{row.relative_to('configs').as_posix()}"
        path = folder / row.name
        text = self.text if row.is_relative_to("configs/paper") else ""
        _write(path, f"# The row {row.stem} in the tier {self.name}.\n_base_ = {base!r}\n{text}")
        if alpha is None:
            return path
        other = folder / f"{row.stem}-alpha-{alpha:g}.py"
        model = f"model = dict(bbox_head=dict(loss_cls=dict(alpha={alpha!r})))"
        _write(other, f"# {row.stem} with another alpha.\n_base_ = './{path.name}'\n{model}\n")
        return other


def find_tier(name: str) -> Tier:
    """Returns a tier by its name, or from a file of the same kind.

    Raises:
        UsageError: there is none.
        ConfigError: a file that is no Python, or has bases.
    """
    own = Path(name)
    file = own if own.suffix == ".py" else FOLDER / f"{name}.py"
    if not file.is_file():
        names = sorted(path.stem for path in FOLDER.glob("*.py"))
        raise UsageError(
            f"there is no tier {name!r}",
            expected=nearest(name, names) or f"one of: {', '.join(names)}, or a .py file",
        )
    tree = parse_config(file)
    header = ast.get_docstring(tree) or ""
    stated = {target.id for node in tree.body for target in _targets(node)}
    if "_base_" in stated:
        raise ConfigError(
            f"the tier {file} has a _base_", expected="a fragment; the row becomes its base"
        )
    minutes = re.search(r"^Minutes: ([\d.]+)", header, re.MULTILINE)
    return Tier(
        name=file.stem,
        file=file,
        text=file.read_text(encoding="utf-8"),
        header=header,
        minutes=float(minutes[1]) if minutes else None,
        is_paper=not stated,
        clips_gradients=any(
            isinstance(node, ast.keyword) and node.arg == "clip_grad" for node in ast.walk(tree)
        ),
    )


def _targets(node: ast.stmt) -> list[ast.Name]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target for target in targets if isinstance(target, ast.Name)]


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
