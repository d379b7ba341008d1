"""The command lines in the blocks of README and docs, and what runs those that no test runs.

A command line is one of three things:

- run by ``tests/docs/test_lines_run.py``, in the sandbox of ``doc_sandbox``;
- marked where it stands: ``# needs COCO``, ``# needs 8 GPUs`` and so on (``MARK``);
- run by something else (``ELSEWHERE``).
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

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

ENGINES = (  # of which docs/predict.md runs another
    "docs/predict.md",
    "fldet benchmark engines work_dirs/mine",
)
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
    "fldet test CONFIG model.onnx": (
        *("docs/predict.md", "fldet test CONFIG mine.onnx --engine openvino"),
    ),
    "fldet export work_dirs/mine --out int8.onnx --int8 --max-images 500": (
        "docs/predict.md",  # nearly the same
        "fldet export work_dirs/mine --out int8.onnx --int8",
    ),
    "fldet export best.pth --post-process outside --out maps.onnx --check 'photos/*.jpg'": (
        "tests/inference/test_export.py",
        'post_process="outside"',
    ),
    "fldet benchmark engines work_dirs/mine --calibrate data/images": ENGINES,
    "fldet benchmark engines CONFIG CHECKPOINT --engines torch openvino --precisions fp32 int8": (
        ENGINES
    ),
    "fldet benchmark engines work_dirs/mine --against mmdet --max-images 200 --out engines.json": (
        ENGINES
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
    "python tools/own_data.py MASKS BCCD VOC --minutes 5 --jobs 2": (  # 45 minutes
        *("tests/tools/test_own_data.py", "tool.contestants(tiny_coco, tmp_path)"),
    ),
    "fldet train shapes_poly.py": ("tests/e2e/test_example_plugin.py", "shapes_poly.py"),
}

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
