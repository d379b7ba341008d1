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
from fldet.config.load import load_config

ROOT = Path(__file__).resolve().parent.parent
# What tests/docs, which runs the examples on tiny data, leaves out.
NEEDS = "Examples with `--gpus`, `--executor slurm` or `/data/coco` need what these name.\n"
HEAD = "<!-- Made by tools/generate_docs.py: change the code, then run make docs. -->\n\n"
FIGURES = (
    "Figures in the last column are the paper's or another project's. No COCO config has been\n"
    "trained by us: [what has been measured](evidence/results.md)."
)

# Options of a config that are one line: an example of the value, and what it does.
FASTER, MACHINE = (
    "[faster training](faster-training.md)",
    "[own data](fitting.md)",
)
ONE_LINE = {
    "amp": ("True", f"the network in bfloat16 or float16: {FASTER}"),
    "channels_last": ("True", f"channels side by side in memory: {FASTER}"),
    "fold_batch_norms": ("True", f"fixed norms multiplied into the weights: {FASTER}"),
    "compile": ("True", f"the network compiled by torch: {FASTER}"),
    "gradient_checkpointing": ("True", f"less memory for more time: {FASTER}"),
    "ema": ("True", f"a moving average of the weights is validated and saved: {MACHINE}"),
    "early_stopping": ("5", f"ends after validations without a better score: {MACHINE}"),
    "max_time": ("'2h30m'", f"ends when the time is used up: {MACHINE}"),
    "loggers": ("['tensorboard']", "tools that get what is logged: [loggers](loggers.md)"),
    "accumulate": ("4", f"gradients of so many batches make a step: {MACHINE}"),
    "augment": ("'small'", f"images are scaled, cropped, distorted at random: {MACHINE}"),
    "oversample": (
        "0.1",
        "images of rare classes more often: [own data](own-data.md#rare-classes)",
    ),
    "decoder": (
        "'fast'",
        "large JPEGs decoded at a part of their size: "
        "[large photographs](faster-training.md#large-photographs)",
    ),
    "skip_nonfinite": (
        "3",
        "batches whose loss is not finite are passed over: [reliability](reliability.md#runs)",
    ),
    "val_loss": ("True", "the losses of the validation images beside their figures"),
}


def main() -> None:
    """Writes or checks every page; exits with 1 where a page is stale."""
    pages = {
        "docs/cli.md": cli_page(),
        "docs/configs.md": config_page(),
        "docs/evidence/paper-map.md": HEAD + paper_map(),
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
            app,
            [*words, "--help"],
            env={"COLUMNS": "100"},
            prog_name="fldet",
            catch_exceptions=False,
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
    rows = ["| config | what it is | aims at |", "|---|---|---|"]
    for path in sorted((ROOT / "configs").rglob("*.py")):
        if "_base_" in path.parts:
            continue
        header = ast.get_docstring(ast.parse(path.read_text())) or ""
        first = header.split("\n")[0].rstrip(".")
        found = re.search(r"Reproduces: (.+?)(?:\.\s|\n[A-Z]\w*:|\n*$)", header, re.DOTALL)
        reproduces = " ".join(found.group(1).split()).rstrip(".") if found else "-"
        rows.append(f"| `{path.relative_to(ROOT)}` | {first} | {reproduces} |")
    return HEAD + "# Configs\n\n" + FIGURES + "\n\n" + "\n".join(rows) + "\n\n" + option_table()


def option_table() -> str:
    """Returns the options of a config that are one line, with their defaults."""
    defaults = load_config("retinanet/r50_fpn_1x.py")
    rows = ["| line | off | what it does |", "|---|---|---|"]
    for name, (example, text) in ONE_LINE.items():
        rows.append(f"| `{name} = {example}` | `{defaults.get(name, False)!r}` | {text} |")
    return "## Options of one line\n\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
