"""The command lines and the Python of README and docs do what they say.

A command line in a block of code is one of three things:

- run here, in a sandbox where each name of the docs is something tiny (``Sandbox``, ``SHORT``);
- marked where it stands: ``# needs COCO``, ``# needs 8 GPUs`` and so on (``MARK``);
- run by something else (``ELSEWHERE``).

Each line of fldet, marked or not, is also parsed, and its config loaded with its overrides.
"""

import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.core import TyperCommand
from typer.main import get_command

from fldet.cli.main import app, expand_lists, main
from fldet.config import find_config, load_config

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    str(path.relative_to(ROOT))
    for path in (
        *(ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "tools" / "README.md"),
        *sorted((ROOT / "docs").rglob("*.md")),
    )
]
PROGRAMS = {"fldet", "make", "pip", "python", "python3", "torchrun", "find", "git", "cd", "srun"}
OTHER_LANGUAGES = {"python", "toml", "json", "text"}  # of fenced blocks
MARK = re.compile(r"\bneeds (COCO|a GPU|\d+ GPUs|the network|a cluster|BCCD)\b")

# A page made from the code is marked by a sentence: what it says, and of which lines.
MARKED_PAGES = {
    "docs/cli.md": (
        "Examples with `--gpus`, `--executor slurm` or `/data/coco` need what these name.",
        re.compile("--gpus|--executor slurm|/data/coco"),
    )
}

# What runs or proves a line that is not run here: a file, and what must stand in it.
ELSEWHERE = {
    "make test": ("Makefile", "$(BIN)/pytest -n 2 $(TESTS)"),  # runs this file
    "make test 'TESTS=-m \"not gpu\"'": ("Makefile", "$(BIN)/pytest -n 2 $(TESTS)"),
    "make check": ("Makefile", "generate_docs.py --check"),
    "make bench": ("tests/test_benchmark_scripts.py", 'commands("cpu", None, None)'),
    "make bench 'BENCH=--only focal_loss startup'": ("tests/test_benchmark_scripts.py", "--only"),
    "python3 -m venv .venv && . .venv/bin/activate": ("Makefile", "$(PYTHON) -m venv $(VENV)"),
    "pip install -c requirements/constraints.txt -e .": (
        "Makefile",
        "pip install --quiet -c requirements/constraints.txt -e",
    ),
    "pip install ./fldet-example-plugin": ("tests/e2e/test_example_plugin.py", '"pip", "install"'),
    "fldet train shapes_poly.py": ("tests/e2e/test_example_plugin.py", "shapes_poly.py"),
    "fldet train CONFIG --replay work_dirs/NAME/nonfinite_iter_N.pth": (
        "tests/hooks/test_nonfinite.py",
        "--replay",
    ),
}

FEW_STEPS = (
    "model.backbone.init_cfg=None train_cfg.max_iters=2 train_cfg.val_interval=2 "
    "train_dataloader.batch_size=2 train_dataloader.num_workers=0 "
    "train_dataloader.persistent_workers=False val_dataloader.num_workers=0 "
    "val_dataloader.persistent_workers=False"
)

# Replaced in a line before it is run, where the words on the left are found: (pattern, by what).
SHORT = (
    (r"^(fldet train my_config.py.*)", rf"\1 --cfg-options {FEW_STEPS}"),
    (r"^(fldet paper run .*)", r"\1 --dry-run"),
    (r"^(fldet benchmark .*)", r"\1 --images 2"),
    (r"--depths 50 101 --scales 400 500 600 700 800", "--depths 18 --scales 64"),
    (r"--shape \d+x\d+", "--shape 64x96"),
    (r"--tier TIER", "--tier laptop"),
    (r"FOLDER/data.yaml", "yolo/data.yaml"),
    (r"FOLDER/annotations/train.json", "FOLDER/annotations/instances_train2017.json"),
)

# Commands that are quick, and run on the configs that the line names and not on tiny ones.
QUICK = {("config",), ("data",), ("doctor",), ("init",), ("paper",), ("plugins",)}


# --- what stands in a page ---


@dataclass(frozen=True)
class Block:
    """Code in a page, from ``line`` on; ``language`` is that of a fence, else empty."""

    page: str
    line: int
    language: str
    lines: tuple[str, ...]

    @property
    def is_commands(self) -> bool:
        return self.language not in OTHER_LANGUAGES and any(
            line.split(" ")[0] in PROGRAMS for line in self.lines
        )

    @property
    def is_python(self) -> bool:
        if self.language:
            return self.language == "python"
        return not self.is_commands and self.lines[0].startswith(("import ", "from "))


@dataclass(frozen=True)
class Line:
    """A command line without its comment, continued lines joined."""

    page: str
    number: int
    text: str
    marked: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.number}: {self.text}"

    @property
    def before_pipe(self) -> str:
        return self.text.rpartition(" | ")[0]

    @property
    def arguments(self) -> list[str] | None:
        """The words after ``fldet``, without pipes; None for other programs."""
        words = shlex.split(self.text.rpartition(" | ")[2].partition(" > ")[0])
        return words[1:] if words[0] == "fldet" else None

    @property
    def is_quick(self) -> bool:
        return self.arguments is not None and tuple(self.arguments[:1]) in QUICK

    @property
    def is_run_here(self) -> bool:
        runs = self.arguments is not None or self.text == "make demo"
        return runs and not self.marked and self.text not in ELSEWHERE


def blocks(page: str) -> list[Block]:
    """Returns the fenced and the indented blocks of a page."""
    found: list[Block] = []
    fence, start, lines = None, 0, []
    before = ""
    for number, line in enumerate([*(ROOT / page).read_text().splitlines(), "end"], 1):
        mark = re.match(r"```(\w*)$", line)
        if fence is not None and mark:
            found.append(Block(page, start, fence, tuple(lines)))
            fence, lines = None, []
        elif fence is not None:
            lines.append(line)
        elif line.startswith("    ") and (lines or not before.strip()):
            start = start if lines else number
            lines.append(line[4:])
        elif lines and not line.strip():
            lines.append("")
        else:
            if lines:
                found.append(Block(page, start, "", tuple(lines)))
            lines = []
            if mark:
                fence, start = mark[1], number + 1
        before = line
    assert fence is None, f"{page}: a fence is not closed"
    return found


def command_lines(page: str) -> list[Line]:
    """Returns the command lines in blocks of a page; of help texts those of the examples."""
    _, pattern = MARKED_PAGES.get(page, ("", re.compile("$ never")))
    found: list[Line] = []
    for block in blocks(page):
        is_help = bool(block.lines) and block.lines[0].startswith("Usage: fldet")
        if is_help and "  Examples:" not in block.lines:
            continue
        if not is_help and not block.is_commands:
            continue
        first = block.lines.index("  Examples:") + 1 if is_help else 0
        whole = ""
        for number, line in enumerate(block.lines[first:], block.line + first):
            whole += line.strip()
            if whole.endswith("\\"):
                whole = whole[:-1]
            elif whole:
                text = shlex.join(shlex.split(whole, comments=True))
                text = re.sub(r" '(\||>|&&)' ", r" \1 ", text)
                comment = re.search(r"\s# (.*)$", whole)
                marked = bool(comment and MARK.search(comment[1])) or bool(pattern.search(text))
                found.append(Line(page, number, text, marked))
                whole = ""
    return found


LINES = [line for page in PAGES for line in command_lines(page)]


def test_the_lines_of_readme_and_docs_are_found():
    assert len(LINES) > 120
    texts = {line.text: line for line in LINES}
    assert "fldet config show CONFIG" in texts
    assert texts["find . -name '*.jpg' | fldet predict best.pth - --format jsonl"].before_pipe
    assert any(line.marked for line in LINES)
    assert not texts["fldet doctor"].marked


@pytest.mark.parametrize("page", PAGES)
def test_a_block_is_commands_or_python_or_has_a_language(page):
    for block in blocks(page):
        where = f"{page}:{block.line}"
        if block.is_commands:
            for line in command_lines(page):
                program = line.text.split(" ")[0]
                assert program in PROGRAMS, f"{line}: name {program} in PROGRAMS"
        elif block.is_python:
            compile("\n".join(block.lines), where, "exec")
        elif not block.language and block.lines[0].startswith("    "):
            raise AssertionError(f"{where} is neither commands nor Python: use a fence")


@pytest.mark.parametrize("line", [line for line in LINES if line.arguments is None], ids=str)
def test_a_line_of_another_program_is_marked_or_run_by_something(line):
    if line.marked or line.is_run_here:
        return
    assert line.text in ELSEWHERE, (
        f"{line}\nmark it ('# needs COCO', '# needs the network', ...), or name in ELSEWHERE what "
        "runs it"
    )


def test_what_runs_other_lines_is_there():
    texts = {line.text for line in LINES}
    for text, (file, words) in ELSEWHERE.items():
        assert text in texts, f"{text!r} stands in no page any more"
        assert words in (ROOT / file).read_text(), f"{file} has no {words!r}"
    for page, (sentence, _) in MARKED_PAGES.items():
        assert sentence in (ROOT / page).read_text()


# --- every line of fldet, and every `fldet ...` in a sentence, against the command line ---


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, example_plugin: Path) -> Callable[[list[str]], None]:
    """Parses arguments as ``fldet`` does, types of values included, and runs nothing."""
    monkeypatch.setattr(TyperCommand, "invoke", lambda self, ctx: None)
    tree = get_command(app)

    def check(arguments: list[str]) -> None:
        tree.main(expand_lists(arguments), prog_name="fldet", standalone_mode=False)

    return check


def test_every_line_of_fldet_is_understood(parse):
    wrong = []
    for line in LINES:
        if line.arguments is None:
            continue
        try:
            parse(line.arguments)
        except Exception as error:  # Typer's own kinds
            wrong.append(f"{line}\n    {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


def test_a_wrong_line_is_not_understood(parse):
    for arguments in (["train", "c.py", "--gpuss", "2"], ["traim", "c.py"], ["train"]):
        with pytest.raises(Exception, match=r"No such|Missing"):
            parse(arguments)
    with pytest.raises(Exception, match="Invalid value"):
        parse(["train", "c.py", "--gpus", "many"])


def test_commands_within_sentences_have_the_options_that_they_name(parse):
    wrong = []
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.M | re.S)
        for text in re.findall(r"`(fldet [^`]+)`", prose):
            arguments = [word for word in shlex.split(text.replace("\n", " "))[1:] if word != "..."]
            try:
                parse(arguments)
            except Exception as error:
                # arguments may be left out in a sentence, the last value of an option too
                lacks = re.match(r"Missing|Option '\S+' requires an argument", str(error))
                if not lacks and type(error).__name__ not in ("MissingParameter", "NoArgsIsHelpError"):
                    wrong.append(f"{page}: {text}\n    {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


def test_the_configs_that_lines_name_exist_and_take_their_overrides(monkeypatch):
    monkeypatch.chdir(ROOT)
    done = set()
    for line in LINES:
        words = line.arguments or []
        overrides = tuple(word for word in words if re.match(r"\+?[a-z_]+(\.\w+)*=", word))
        for word in words:
            key = (word, overrides)
            if not re.match(r"(configs/|fldet::).*\.py$", word) or key in done:
                continue
            done.add(key)
            if words[0] in ("train", "test", "analyze", "benchmark") and overrides:
                load_config(word, overrides)
            else:
                find_config(word)
    assert len(done) > 10
