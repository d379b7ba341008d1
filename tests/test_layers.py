"""Imports go one way, from low floors to high ones; docs/how-it-works.md draws them."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import fldet

ROOT = Path(fldet.__file__).parent

# A room may import those of lower floors, and itself; modules beside the rooms are the ground.
FLOORS = (
    ("ground",),
    ("losses",),
    ("ops",),
    ("data",),
    ("pictures", "models", "evaluation", "config"),
    ("anchors", "checkpoints"),
    ("engine",),
    ("runs",),
    ("package",),
    ("inference", "analysis", "paper"),
    ("benchmark", "report"),
    ("compare", "folds"),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
OUTSIDE = {"__init__.py", "__main__.py", "analyze.py"}  # lazy public names, and the command

MOST_FILES, MOST_LINES = 20, 450


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / parts[1]).is_dir() else "ground"


def imported_modules(path: Path) -> set[str]:
    """Modules of fldet that a file imports anywhere, inside functions and for types too."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in modules if name.startswith("fldet.")}


FILES = [
    path for path in sorted(ROOT.rglob("*.py")) if path.name not in OUTSIDE or path.parent != ROOT
]


def test_every_room_has_a_floor():
    rooms = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert rooms | {"ground"} == set(FLOOR)


def test_imports_only_of_lower_floors_and_of_the_same_room():
    faults = []
    for path in FILES:
        own = room_of(f"fldet.{path.relative_to(ROOT).parts[0].removesuffix('.py')}")
        for module in sorted(imported_modules(path)):
            room = room_of(module)
            if room != own and FLOOR[room] >= FLOOR[own]:
                faults.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not faults, "\n".join(faults)


def test_no_two_analyses_import_each_other():
    faults = []
    for path in (ROOT / "analysis").glob("*/*.py"):
        others = {
            module.split(".")[2] for module in imported_modules(path) if ".analysis." in module
        }
        faults += [f"{path.relative_to(ROOT)}: {name}" for name in others - {path.parent.name}]
    assert not faults, "\n".join(faults)


def test_folders_and_files_are_small_enough_to_look_at():
    folders = {path.parent for path in FILES}
    crowded = [folder for folder in folders if len(list(folder.glob("*.py"))) > MOST_FILES]
    long = [path for path in FILES if len(path.read_text().splitlines()) > MOST_LINES]
    assert (crowded, long) == ([], [])


def test_rooms_that_use_openmmlab_prepare_it_first():
    """Whatever of fldet is imported first, mmdet is imported in the way that it works here."""
    faults = []
    for path in FILES:
        names = {
            alias for alias in _outer_imports(path) if alias.split(".")[0] in ("mmdet", "mmcv")
        }
        inits = (parent / "__init__.py" for parent in path.parents if ROOT in parent.parents)
        if names and path.parent != ROOT and not any(_prepares(one) for one in inits):
            faults.append(str(path.relative_to(ROOT)))
    assert not faults, "\n".join(faults)


def _outer_imports(path: Path) -> set[str]:
    body = ast.parse(path.read_text()).body
    froms = {node.module for node in body if isinstance(node, ast.ImportFrom) and node.module}
    plain = [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
    return froms.union(plain)


def _prepares(init: Path) -> bool:
    text = init.read_text()
    return "_compat.install()" in text or "from fldet.registry import" in text


def test_only_config_reads_config_files():
    for path in FILES:
        if room_of(f"fldet.{path.relative_to(ROOT).parts[0]}") != "config":
            assert "Config.fromfile(" not in path.read_text(), path


UNCHANGED = """
import sys
before = list(sys.meta_path), dict(os.environ)
import fldet
assert before == (sys.meta_path, dict(os.environ))
import torch
before = list(sys.meta_path), dict(os.environ)
import fldet.losses, fldet.losses.normalizers
assert before == (sys.meta_path, dict(os.environ))
"""
WITHOUT = """
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmdet', 'mmcv', 'mmengine', 'cv2'):
            raise ImportError(name)

import sys
sys.meta_path.insert(0, Blocked())
"""


def test_importing_fldet_changes_nothing_in_the_process():
    """And the losses need torch alone."""
    for before in ("import os\n", "import os\n" + WITHOUT):
        done = subprocess.run(
            [sys.executable, "-c", before + UNCHANGED],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
        )
        assert done.returncode == 0, done.stderr
