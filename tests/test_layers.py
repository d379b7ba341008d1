"""Imports go one way, from low to high; docs/how-it-works.md draws the layers."""

import ast
from pathlib import Path

import pytest

import fldet

ROOT = Path(fldet.__file__).parent

# Each may import its own layer and those before it.
LAYERS = [
    {"_compat", "config_text", "errors", "plugins", "results", "annotations", "functional"}
    | {"anchor_cover", "drawing", "environment", "image_files", "lettering", "ops", "processes"}
    | {"reading", "text"},
    {"config"},
    {"registry"},
    {
        "catalog",
        "config_bounds",
        "config_check",
        "config_diff",
        "config_origin",
        "config_trees",
        "paper",
    }
    | {"data", "models", "evaluation", "hooks"},
    {"engine"},
    {"cli"},
]
ANALYSIS_MAY_USE = LAYERS[0]
OUTSIDE = {"__init__", "__main__"}  # the lazy public names, and the command


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """Parts of fldet that a file imports anywhere, inside functions too; not for annotations."""
    tree = ast.parse(path.read_text())
    only_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = []
    for node in ast.walk(tree):
        if id(node) in only_types:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "fldet":
            names += [f"fldet.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    parts = {name.split(".")[1] for name in names if name.startswith("fldet.")}
    return {part for part in parts if not part.startswith("__")}


def layer_of(part: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if part in layer)


FILES = [path for path in sorted(ROOT.rglob("*.py")) if part_of(path) not in OUTSIDE]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_its_own_layer_and_lower_ones(path):
    part = part_of(path)
    imported = imported_parts(path) - {part}
    if part == "analysis":
        assert imported <= ANALYSIS_MAY_USE
    elif part == "cli":
        assert imported <= set().union(*LAYERS, {"analysis"})
    else:
        assert {i for i in imported if layer_of(i) > layer_of(part)} == set()


def test_every_part_has_a_layer():
    parts = {part_of(path) for path in FILES} - {"analysis"}
    assert parts == set().union(*LAYERS)


def test_only_config_reads_config_files_and_only_the_engine_runs():
    for path in FILES:
        text = path.read_text()
        assert "Config.fromfile(" not in text or part_of(path) == "config"
        assert "Runner" not in text.replace("Runner's", "") or part_of(path) in (
            "engine",
            "config_check",
        )
