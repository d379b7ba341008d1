"""The command lines and the Python of README and docs do what they say."""

import io
import re
import shlex
import subprocess
from pathlib import Path

import cv2
import pytest
from doc_lines import LINES, PAGES, ROOT, Line, blocks
from doc_sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("exports_once")
WRITES = ("--out", "--out-dir", "--show-dir")
FAILS = {
    # the batch that is shown again: exit code and words
    "fldet train CONFIG --replay work_dirs/NAME/nonfinite_iter_N.pth": (1, "is not finite"),
}


@pytest.fixture
def run_line(fldet, monkeypatch):
    """Runs a line in a sandbox, in this process, and checks exit code and files."""

    def run(sandbox: Sandbox, line: Line) -> None:
        monkeypatch.chdir(sandbox.folder)
        text, _, file = line.text.rpartition(" | ")[2].partition(" > ")
        words = sandbox.arguments(text)
        sandbox.clear(words)
        if "--replay" in words:
            bad = "--work-dir work_dirs/NAME --cfg-options optim_wrapper.optimizer.lr=1e30"
            assert fldet("train", "CONFIG", *bad.split()).returncode == 1
            (found,) = Path("work_dirs/NAME").glob("nonfinite_iter_*.pth")
            found.rename(words[-1])
        if line.before_pipe:
            command = ["bash", "-c", line.before_pipe]
            before = subprocess.run(command, capture_output=True, text=True, check=True)
            names = io.TextIOWrapper(io.BytesIO(before.stdout.encode()))
            monkeypatch.setattr("sys.stdin", names)
        done = fldet(*words)
        if "bf16" in words and "no arithmetic for bfloat16" in done.stderr:
            return  # of this processor
        expected, words_of_error = FAILS.get(line.text, (0, ""))
        assert done.returncode == expected, f"{line}\n{words}\n{done.stdout}{done.stderr}"
        assert words_of_error in done.stderr, f"{line}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{line}\n{done.stderr}"
        for option in WRITES:
            if option in words and "--dry-run" not in words:
                assert Path(words[words.index(option) + 1]).exists(), f"{line}: {option}"
        if file:
            Path(file).write_text(done.stdout)

    return run


def lines_of_make(line: Line) -> list[Line]:
    """Returns the lines of fldet in the recipe of a target of the Makefile."""
    command = [*shlex.split(line.text), "-n", "VENV=.venv"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    recipe = [one for one in shown.stdout.splitlines() if one.startswith(".venv/bin/fldet ")]
    assert recipe, f"{line} runs no fldet"
    return [Line(line.page, line.number, one.removeprefix(".venv/bin/"), False) for one in recipe]


@pytest.fixture(scope="session")
def tiny_text(write_tiny_config, tmp_path_factory) -> str:
    """The config of ``tiny_run``, whose prior lets a model that has learnt little find boxes."""
    text = write_tiny_config(tmp_path_factory.mktemp("tiny_text")).read_text()
    return text.replace("bbox_head=dict(", "bbox_head=dict(prior_prob=0.2, ")


@pytest.fixture
def sandbox(tmp_path, tiny_coco, voc_mini, bccd_yolo, tiny_text, example_plugin):
    """Makes a sandbox, with the work dir of a tiny training if one is given."""

    def make(run: Path | None = None) -> Sandbox:
        made = Sandbox(tmp_path / "reader", tiny_coco, tiny_text, run)
        (made.folder / "VOCdevkit").symlink_to(voc_mini / "VOCdevkit")
        (made.folder / "yolo").symlink_to(bccd_yolo)
        return made

    return make


def test_quick_lines_run(sandbox, run_line):
    made = sandbox()
    done = set()
    for line in LINES:
        if line.is_quick and line.is_run_here and line.text not in done:
            done.add(line.text)
            run_line(made, line)
    assert len(done) > 30


# The lines of a page are run one after the other; so are the examples of a command.
SCRIPTS: dict[str, list[Line]] = {}
for _line in LINES:
    if _line.is_run_here and (not _line.is_quick or _line.arguments[0] == "init"):
        SCRIPTS.setdefault(f"{_line.page} {_line.part}".strip(), []).append(_line)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_lines_of_a_page_run(script, sandbox, tiny_run, run_line):
    made = sandbox(tiny_run[1])
    for line in SCRIPTS[script]:
        for one in lines_of_make(line) if line.text.startswith("make ") else [line]:
            run_line(made, one)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.is_script for block in blocks(page))]
)
def test_the_python_of_a_page_runs(page, sandbox, tiny_run, monkeypatch):
    """The blocks of a page one after the other, as one script."""
    made = sandbox(tiny_run[1])
    monkeypatch.chdir(made.folder)
    names: dict[str, object] = {"array": cv2.imread("a.jpg")}
    for block in blocks(page):
        if block.is_script:
            text = re.sub(r"configs/[\w./]+\.py", lambda name: made.tiny(name[0]), block.text)
            exec(compile(text, f"{page}:{block.line}", "exec"), names)
