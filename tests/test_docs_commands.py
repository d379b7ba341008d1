"""The command lines and the Python of README and docs do what they say.

A command line in a block of code is one of three things:

- run here, in a sandbox where each name of the docs is something tiny (``Sandbox``, ``SHORT``);
- marked where it stands: ``# needs COCO``, ``# needs 8 GPUs`` and so on (``MARK``);
- run by something else (``ELSEWHERE``).

Each line of fldet, marked or not, is also parsed, and its config loaded with its overrides.
"""

import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.core import TyperCommand
from typer.main import get_command

from fldet.cli.main import app, expand_lists
from fldet.config.load import find_config, load_config
from fldet.data.folds.files import Folds, list_of_fold, write_folds
from fldet.devices import has_bfloat16
from fldet.evaluation.out_of_fold import write_out_of_fold

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    str(path.relative_to(ROOT))
    for path in (
        *(ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md"),
        ROOT / "tools" / "README.md",
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

# It wants a checkpoint of a whole ResNet-18.
FINETUNE = ("tests/analysis/test_init.py", 'finetune=tmp_path / "r18.pth"')

FOLDS = ("tests/folds/test_cross_validate.py", "cross_validate(config, TWO, work)")

COMPARED = ("tests/compare/test_run.py", "warm.Started(command, cwd=tmp_path)")

# What runs or proves a line that is not run here: a file, and what must stand in it.
ELSEWHERE = {
    "make test": ("Makefile", "$(BIN)/pytest -n 3 --dist worksteal $(TESTS)"),  # runs this file
    "make demo DATA=FOLDER": (
        "Makefile",
        "$(BIN)/fldet init '$(DATA)' --out '$(DEMO_CONFIG)' --model lite",
    ),
    "make lock": ("Makefile", "bin/uv pip compile"),
    "make release": ("Makefile", "python tools/release.py"),
    "make check": ("Makefile", "generate_docs.py --check"),
    "make bench-gpu GPU_DAY=--dry-run": (
        *("tests/test_benchmark_scripts.py", "gpu_day.parts(True, tmp_path)"),
    ),
    "make bench": ("tests/test_benchmark_scripts.py", 'commands("cpu", None, None)'),
    "make bench 'BENCH=--only focal_loss startup'": (
        "tests/test_benchmark_scripts.py",
        'commands("cpu", ["nms"], None)',
    ),
    "python3 -m venv .venv && . .venv/bin/activate": ("Makefile", "$(PYTHON) -m venv $(VENV)"),
    "pip install -c requirements/constraints.txt -e '.[weights]'": (
        "Makefile",
        "pip install --quiet -c requirements/constraints.txt -e",
    ),
    "fldet init FOLDER --out my_config.py --finetune work_dirs/other/best_coco_AP_iter_9000.pth": (
        FINETUNE
    ),
    "fldet init PATH --out my_config.py --finetune CHECKPOINT": FINETUNE,
    "fldet init FOLDER --out my_config.py --val 0.3": (  # the data of the sandbox has a split
        "tests/analysis/test_init_val.py",
        '"--val", "0.3"',
    ),
    "pip install ./fldet-example-plugin": (
        "tests/e2e/test_example_plugin.py",
        '"install", *options',
    ),
    "fldet export work_dirs/retinanet_r18_shapes --out shapes.onnx --check data/shapes/val2017": (
        "docs/predict.md",  # runs the same: exporting is slow
        "fldet export work_dirs/mine --out mine.onnx --check data/val2017",
    ),
    "fldet export best.pth --post-process outside --out maps.onnx --check 'photos/*.jpg'": (
        "tests/inference/test_export.py",
        'post_process="outside"',
    ),
    "fldet compare FOLDER": COMPARED,  # minutes
    "fldet compare FOLDER_OF_YOUR_DATA": COMPARED,
    "fldet analyze speed-accuracy --points work_dirs/paper/laptop": (
        *("tests/analysis/test_speed_accuracy.py", 'points_in(tmp_path / "laptop")'),
    ),
    "fldet benchmark table configs/systems/ssd513_r101.py configs/systems/"
    "faster_rcnn_r101_fpn.py": (
        *("tests/cli/test_benchmark.py", 'run_benchmark(capfd, "table", *configs'),
    ),
    "fldet compare FOLDER --minutes 30 --models retinanet ssd": COMPARED,
    "fldet compare FOLDER my_config.py --iterations 2000 --jobs 2": COMPARED,
    "fldet cross-validate my_config.py --folds 5 --stratify": FOLDS,  # many commands
    "fldet cross-validate my_config.py --folds FOLDS --jobs 2": FOLDS,
    "fldet cross-validate my_config.py --folds FOLDS --jobs 2 --work-dir work_dirs/cv": FOLDS,
    "fldet predict work_dirs/my_config_folds photo.jpg": (
        *("tests/folds/test_cross_validate.py", 'Detector.load(work, device="cpu")'),
    ),
    "fldet predict work_dirs/cv photos --score-thr 0.3": (
        *("tests/folds/test_cross_validate.py", 'Detector.load(work, device="cpu")'),
    ),
    "fldet train my_config.py --folds FOLDS --fold 2 --work-dir work_dirs/fold_2": (
        *("tests/engine/test_fold_runs.py", '"--folds", "FOLDS", "--fold", 2'),
    ),
    "fldet data split FOLDER --group-by '^([^_]+)_' --out folds_by_patient": (  # other names
        *("tests/data/folds/test_split.py", 'group_by="^([01])"'),
    ),
    "fldet train my_config.py --logger tensorboard": (  # the package may not be there
        *("tests/engine/test_loggers.py", 'run("tensorboard")'),
    ),
    "fldet data inspect found/yolo": (  # what another line has written
        *("tests/inference/writers/test_writers.py", "recognise(path, None if name in"),
    ),
    "fldet data inspect found/dataset.json --images photos": (
        *("tests/inference/writers/test_writers.py", '"coco-dataset": "dataset.json"'),
    ),
    "fldet data convert boxes.csv all.json --columns 'image=photo label=kind'": (
        *("tests/data/imported/test_readers.py", 'columns = "image=photo label=kind'),
    ),
    "fldet export best.pth --thresholds thresholds.json --out mine.onnx": (
        *("tests/inference/test_export.py", "out=file, thresholds=path"),
    ),
    "fldet package work_dirs/mine --name 'Blood cells' --folds work_dirs/mine_folds": (
        *("tests/package/test_write.py", "sources = Sources(folds=tmp_path"),
    ),
    "fldet train shapes_poly.py": ("tests/e2e/test_example_plugin.py", "shapes_poly.py"),
}

FEW_STEPS = (
    "model.backbone.init_cfg=None train_cfg.max_iters=2 train_cfg.val_interval=2 "
    "train_dataloader.batch_size=2 train_dataloader.num_workers=0"
)

# Replaced in a line before it is run: (pattern, by what). Slow settings, and placeholders that are
# not the name of anything in the sandbox.
SHORT = (
    (r"^(fldet train my_config.py.*)", rf"\1 --cfg-options {FEW_STEPS}"),
    (r"^(fldet paper run .*)", r"\1 --dry-run"),
    (r"^(fldet benchmark .*)", r"\1 --images 2"),
    (r"^(fldet benchmark table)(?!.*--depths)(.*)", r"\1 --depths 18 --scales 64\2"),
    (r"--depths 50 101 --scales 400 500 600 700 800", "--depths 18 --scales 64"),
    (r"--shape \d+x\d+", "--shape 64x96"),
    (r"--tier TIER", "--tier laptop"),
    (r"FOLDER/data.yaml", "yolo/data.yaml"),
    (r"predict model.onnx", "predict best.pth"),
    (r"FOLDER/annotations/train.json", "FOLDER/annotations/instances_train2017.json"),
    (r"--images PICTURES", "--images FOLDER/train2017"),
)

if not has_bfloat16(torch.device("cpu")):  # emulated, it takes minutes
    SHORT = (*SHORT, (r" --amp\b", ""))

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
    is_fenced: bool = True

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def is_commands(self) -> bool:
        return self.language not in OTHER_LANGUAGES and any(
            line.split(" ")[0] in PROGRAMS for line in self.lines
        )

    @property
    def is_script(self) -> bool:
        """Whether it is Python to be run: files that a page shows begin with their docstring."""
        starts = bool(self.lines) and self.lines[0].startswith(("import ", "from "))
        return starts and self.language in ("", "python")


@dataclass(frozen=True)
class Line:
    """A command line without its comment, continued lines joined."""

    page: str
    number: int
    text: str
    marked: bool
    part: str = ""  # of a page of help texts: the command whose help it is

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
                found.append(Block(page, start, "", tuple(lines), is_fenced=False))
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
        usage = block.lines[0].partition(" [")[0].removeprefix("Usage: ")
        part = usage if is_help else ""
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
                found.append(Line(page, number, text, marked, part))
                whole = ""
    return found


LINES = [line for page in PAGES for line in command_lines(page)]


def test_the_lines_of_readme_and_docs_are_found():
    assert len(LINES) > 120
    texts = {line.text: line for line in LINES}
    assert "fldet config show CONFIG" in texts
    assert texts[
        "find . -name '*.jpg' | fldet predict best.pth - --format jsonl --out listed"
    ].before_pipe
    assert any(line.marked for line in LINES)
    assert not texts["fldet doctor"].marked


@pytest.mark.parametrize("page", PAGES)
def test_an_indented_block_is_commands_or_python(page):
    for line in command_lines(page):
        program = line.text.split(" ")[0]
        assert program in PROGRAMS, f"{line}: name {program} in PROGRAMS"
    for block in blocks(page):
        if (
            not block.language and not block.is_commands and not block.is_fenced
        ) or block.is_script:
            compile(block.text, f"{page}:{block.line}", "exec")


def test_each_line_is_run_here_or_marked_or_run_elsewhere():
    """Lines of fldet are run here unless they are marked; others have to be dealt with."""
    for line in LINES:
        dealt_with = [line.is_run_here, line.marked, line.text in ELSEWHERE]
        assert sum(dealt_with) == 1, (
            f"{line}\nmark it ('# needs COCO', '# needs the network', ...), or name in ELSEWHERE "
            "what runs it"
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
    with pytest.raises(Exception, match="valid integer"):
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
                if not lacks and type(error).__name__ not in (
                    "MissingParameter",
                    "NoArgsIsHelpError",
                ):
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


# --- the lines are run ---


class Sandbox:
    """A folder in which the names that the docs use are tiny things.

    ``configs/...`` of a command that trains, tests or measures is the tiny config under that name.

    Args:
        folder: where; made.
        coco: a tiny data set in the COCO 2017 layout.
        config: text of a tiny config for it.
        run: work dir of a tiny training, None if no line needs one.
    """

    def __init__(self, folder: Path, coco: Path, config: str, run: Path | None) -> None:
        self.folder = folder
        self.config = config
        self.run = run
        folder.mkdir()
        for name in ("FOLDER", "FOLDER_OF_BCCD", "FOLDER_OF_YOUR_DATA", "PATH"):
            (folder / name).symlink_to(coco)
        self._write_images()
        self._write_out_of_fold(coco)
        self._link("images", coco / "val2017")
        for split in ("train", "val"):
            truth = coco / "annotations" / f"instances_{split}2017.json"
            self._link(f"annotations/{split}.json", truth)
            self._link(f"data/shapes/annotations/instances_{split}2017.json", truth)
        for name in ("data/shapes/val2017", "data/val2017", "data/images"):
            self._link(name, folder / "photos")
        for name in ("CONFIG.py", "OTHER.py", "tiny.py", "my_config.py"):
            (folder / name).write_text(config)
        for name in (
            "mine",
            "retinanet_r18_shapes",
            "r50_fpn_1x",
            "r101_600px",
            "fl_gamma_2",
            "ce",
        ):
            self.add_run(f"work_dirs/{name}")
            for stem in ("r50_fpn_1x", name):
                (folder / "work_dirs" / name / f"{stem}.py").write_text(config)
        for name in ("CHECKPOINT", "WORK_DIR"):
            self.add_run(name)
        if run:
            shutil.copy(run / "iter_4.pth", folder / "best.pth")

    def _link(self, name: str, target: Path) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    def _write_images(self) -> None:
        """Noise: on even areas a hardly trained model scores alike, and NMS may choose either."""
        rng = np.random.default_rng(1)
        (self.folder / "photos").mkdir()
        for name in ("photo.jpg", "a.jpg", "photos/1.jpg", "photos/2.jpg"):
            image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            cv2.imwrite(str(self.folder / name), image)
        codec = cv2.VideoWriter_fourcc(*"mp4v")
        film = cv2.VideoWriter(str(self.folder / "film.mp4"), codec, 10, (64, 64))
        for _ in range(30):
            film.write(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        film.release()

    def _write_out_of_fold(self, coco: Path) -> None:
        """What a cross-validation leaves, whose models have found everything, and thresholds."""
        content = json.loads((coco / "annotations" / "instances_val2017.json").read_text())
        for place, one in enumerate(content["images"]):
            path = str(coco.resolve() / "val2017" / one["file_name"])
            one |= {"fold": 1 + place % 2, "file_name": path}
        keys = ("image_id", "category_id", "bbox")
        found = [
            {**{key: one[key] for key in keys}, "score": 0.5} for one in content["annotations"]
        ]
        folder, number = self.folder / "FOLDS_DIR", len(content["images"])
        write_folds(Folds(2, 0, False, "", number, number), folder)
        for fold in (1, 2):
            list_of_fold(folder, fold).write_text("[]")
        write_out_of_fold(folder, content, found)
        (self.folder / "results.json").write_text(json.dumps(found))
        scores = {one["name"]: 0.3 for one in content["categories"]}
        (self.folder / "thresholds.json").write_text(json.dumps({"scores": scores}))

    def add_run(self, name: str) -> None:
        folder = self.folder / name
        if self.run:
            shutil.copytree(self.run, folder)
        else:
            folder.mkdir(parents=True)

    def arguments(self, line: str) -> list[str]:
        """Returns the words after ``fldet`` of a line as it is run here."""
        for pattern, by in SHORT:
            line = re.sub(pattern, by, line)
        words = shlex.split(line)[1:]
        return words if (words[0],) in QUICK - {("data",)} else [self.tiny(word) for word in words]

    def tiny(self, word: str) -> str:
        """Returns a config under the name of a large one, other words as they are."""
        if not re.match(r"configs/.*\.py$", word):
            return word
        path = self.folder / "tiny" / word
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.config)
        return f"tiny/{word}"

    def clear(self, words: list[str]) -> None:
        """Removes what an earlier line wrote, where this one would write: lines are examples."""
        if "--resume" in words:
            return
        if words[0] == "train" and "--replay" not in words:
            shutil.rmtree(self.folder / "work_dirs" / Path(words[1]).stem, ignore_errors=True)
        if words[0] == "init":
            (self.folder / words[words.index("--out") + 1]).unlink(missing_ok=True)
        if words[0] == "predict":
            out = words[words.index("--out") + 1] if "--out" in words else "predictions"
            shutil.rmtree(self.folder / out, ignore_errors=True)


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
    return write_tiny_config(tmp_path_factory.mktemp("tiny_text")).read_text()


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


# --- links ---


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}"
