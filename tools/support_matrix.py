"""Runs tests with the oldest and the newest versions that fldet allows, and prints a table.

Usage: python tools/support_matrix.py FOLDER [--lines lowest newest-3.12 ...] [--tests PATH ...]

Each line gets an environment of its own in FOLDER, resolved and installed by uv (make lock and make
release install it), and removed afterwards. Interpreters are those that uv finds: put their folders
on PATH. Where torch cannot be had for one, its line says that the code was only compiled, and what
needs no torch imported. docs/support.md has the rows.
"""

import argparse
import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).with_name("uv")
SHOWN = ("torch", "numpy", "opencv-python-headless", "onedl-mmengine", "onedl-mmcv")
DETECTION = ("onedl-mmdetection", "mmdet")  # one of them is installed
TEST_TOOLS = ("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "mpmath>=1.3")

# A few minutes: losses, operators, heads, configs, data, training, resuming, testing, predicting.
TESTS = (
    *("tests/losses/test_values.py", "tests/losses/test_formulas.py", "tests/ops"),
    *("tests/models/test_retina_head.py", "tests/config/test_load.py", "tests/data/test_coco.py"),
    *("tests/evaluation", "tests/checkpoints/test_files.py", "tests/checkpoints/test_content.py"),
    *("tests/engine/test_train_and_test.py", "tests/inference/test_detector.py"),
    *("tests/cli/test_main.py", "tests/test_compat.py"),
)


@dataclass(frozen=True)
class Line:
    """Versions to be tested together.

    Args:
        name: of the row.
        python: version of the interpreter.
        resolution: which versions uv takes, ``lowest-direct`` or ``highest``; empty for those of
            ``requirements/constraints.txt``.
        swap: a distribution that is taken out, and what comes into its place.
    """

    name: str
    python: str
    resolution: str
    swap: tuple[str, str] | None = None


LINES = (
    Line("lowest", "3.10", "lowest-direct"),
    *(Line(f"tested-{python}", python, "") for python in ("3.10", "3.11", "3.12", "3.13")),
    *(Line(f"newest-{python}", python, "highest") for python in ("3.11", "3.12", "3.13")),
    Line("mmdet-3.3", "3.11", "", swap=("onedl-mmdetection", "mmdet==3.3.0")),
)


def main() -> int:
    """Runs the lines; returns 1 if tests failed."""
    names = [line.name for line in LINES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the environments are made")
    parser.add_argument("--lines", nargs="+", choices=names, default=names, metavar="LINE")
    parser.add_argument("--tests", nargs="+", default=list(TESTS), metavar="PATH")
    parser.add_argument("--keep", action="store_true", help="leave the environments there")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows, failed = [], False
    for line in LINES:
        if line.name not in options.lines:
            continue
        environment = options.folder.resolve() / line.name
        python = environment / "bin" / "python"
        if install(line, environment):
            outcome, passed = run_tests(python, options.tests)
        else:
            outcome, passed = compile_only(line, environment)
        failed |= not passed
        rows.append(row(line, python, outcome))
        print(rows[-1], flush=True)
        if not options.keep:
            shutil.rmtree(environment, ignore_errors=True)
    print()
    columns = ("Line", "Python", "torch", "NumPy", "OpenCV", "mmengine", "mmcv", "mmdet")
    print("| " + " | ".join((*columns, "Seen", "Date")) + " |")
    print("|---" * (len(columns) + 2) + "|")
    print("\n".join(rows))
    print(f"\n{platform.system()} {platform.machine()}, no GPU asked for.")
    return int(failed)


def install(line: Line, environment: Path) -> bool:
    """Makes the environment of a line; False if something of it cannot be had."""
    requirements = ROOT / "requirements"
    pins = (requirements / "constraints.txt").read_text().splitlines()
    if line.resolution:  # the empty stand-ins alone
        pins = [pin for pin in pins if re.match("(opencv-python|imaug)==", pin)]
    constraints = environment.with_suffix(".txt")
    constraints.write_text("\n".join(pin for pin in pins if not pin.startswith("--")) + "\n")
    taken = ("--constraint", constraints, "--find-links", requirements / "stand-ins")
    how = ("--resolution", line.resolution) if line.resolution else ()
    into = ("pip", "install", "--python", environment / "bin" / "python")
    out_of = ("pip", "uninstall", "--python", environment / "bin" / "python")
    commands: list[tuple[object, ...]] = [
        ("venv", "--clear", "--python", line.python, environment),
        (*into, *how, *taken, "-r", requirements / "runtime.txt"),
        (*into, *TEST_TOOLS),
    ]
    if line.swap:
        commands += [(*out_of, line.swap[0]), (*into, "--no-deps", line.swap[1])]
    done = all(uv(*command) for command in commands)
    constraints.unlink()
    return done


def uv(*command: object) -> bool:
    """Runs a command of uv; False if it failed."""
    words = [str(UV), "--quiet", "--native-tls", *map(str, command)]
    return subprocess.run(words).returncode == 0


def run_tests(python: Path, tests: list[str]) -> tuple[str, bool]:
    """Runs short tests; returns how many passed, and whether all did.

    Warnings are no errors here: what an old package says about a newer one is not fldet's.
    """
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings="]
    command += ["--disable-warnings", "-m", "not slow and not long and not gpu", *tests]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    before = os.times().children_user
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    sys.stderr.write(done.stdout[-6000:] + done.stderr[-2000:])
    counts = re.findall(r"\d+ (?:passed|failed|errors?|skipped)", done.stdout.splitlines()[-1])
    seconds = os.times().children_user - before
    return f"{', '.join(counts)} ({seconds:.0f} s of a processor)", done.returncode == 0


def compile_only(line: Line, environment: Path) -> tuple[str, bool]:
    """Compiles the package and imports the command line, which needs typer and no torch."""
    python = environment / "bin" / "python"
    made = uv("venv", "--clear", "--python", line.python, environment)
    if not (made and uv("pip", "install", "--python", python, "typer")):
        return "no such Python here", True
    command = [str(python), "-m", "compileall", "-q", "-o", "0", "fldet"]
    environ = os.environ | {"PYTHONPYCACHEPREFIX": str(environment / "compiled")}
    compiled = subprocess.run(command, cwd=ROOT, env=environ).returncode == 0
    command = [str(python), "-c", "import fldet, fldet.cli.main"]
    imported = subprocess.run(command, cwd=ROOT, env=environ).returncode == 0
    outcome = "not installable here; compiled and imported without torch"
    return outcome if compiled and imported else "does not compile", compiled and imported


def row(line: Line, python: Path, outcome: str) -> str:
    """Returns the row of a line in Markdown, with the versions that are installed."""
    code = (
        "import importlib.metadata as m, platform, sys\n"
        "found = {d.name.lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        f"shown = [found.get(name, '-') for name in {SHOWN!r}]\n"
        f"shown += [next((f'{{n}} {{found[n]}}' for n in {DETECTION!r} if n in found), '-')]\n"
        "print(platform.python_version(), *shown, sep=' | ')"
    )
    versions = " | ".join((line.python, *("-" * 6)))
    if python.exists():
        command = [str(python), "-c", code]
        versions = subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()
    today = datetime.datetime.now(datetime.timezone.utc).date()
    return f"| {line.name} | {versions} | {outcome} | {today} |"


if __name__ == "__main__":
    sys.exit(main())
