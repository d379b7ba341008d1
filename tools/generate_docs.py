"""Writes the pages of docs/ that are made from the code; ``--check`` only compares.

Usage: python tools/generate_docs.py [--check]
"""

import ast
import re
import sys
from pathlib import Path

from paper_map import paper_map
from typer.main import get_command
from typer.testing import CliRunner

from fldet import plugins
from fldet.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
# What tests/test_docs_commands.py, which runs the examples on tiny data, leaves out.
NEEDS = "Examples with `--gpus`, `--executor slurm` or `/data/coco` need what these name.\n"
HEAD = "<!-- Made by tools/generate_docs.py: change the code, then run make docs. -->\n\n"


def main() -> None:
    """Writes or checks every page; exits with 1 where a page is stale."""
    pages = {
        "docs/cli.md": cli_page(),
        "docs/configs.md": config_page(),
        "docs/paper-map.md": HEAD + paper_map(),
    }
    if "--check" not in sys.argv[1:]:
        for name, text in pages.items():
            (ROOT / name).write_text(text)
        return
    stale = [
        name
        for name, text in pages.items()
        if not (ROOT / name).exists() or (ROOT / name).read_text() != text
    ]
    if stale:
        sys.exit(f"stale: {', '.join(stale)}\nHint: make docs")


def cli_page() -> str:
    """Returns the help of every command of fldet; plug-ins of this environment are left out."""
    plugins.installed = tuple
    lines = [HEAD + "# Command line\n\n" + NEEDS]
    for words in command_paths():
        result = CliRunner().invoke(
            app, [*words, "--help"], env={"COLUMNS": "100"}, prog_name="fldet"
        )
        text = re.sub(r"[ \t]+$", "", result.output.strip(), flags=re.MULTILINE)
        lines.append(f"## {' '.join(['fldet', *words])}\n\n```\n{text}\n```\n")
    return "\n".join(lines)


def command_paths() -> list[list[str]]:
    """Returns the words of every command, groups before their members."""
    paths: list[list[str]] = []
    todo = [([], get_command(app))]
    while todo:
        words, command = todo.pop(0)
        paths.append(words)
        members = getattr(command, "commands", {})
        todo += [([*words, name], member) for name, member in members.items()]
    return sorted(paths)


def config_page() -> str:
    """Returns a table of all configs with the first line of their headers."""
    rows = ["| config | what it is | reproduces |", "|---|---|---|"]
    for path in sorted((ROOT / "configs").rglob("*.py")):
        if "_base_" in path.parts:
            continue
        header = ast.get_docstring(ast.parse(path.read_text())) or ""
        first = header.split("\n")[0].rstrip(".")
        found = re.search(r"Reproduces: (.+?)(?:\.\s|\n\w|\n*$)", header, re.DOTALL)
        reproduces = " ".join(found.group(1).split()).rstrip(".") if found else "-"
        rows.append(f"| `{path.relative_to(ROOT)}` | {first} | {reproduces} |")
    return HEAD + "# Configs\n\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
