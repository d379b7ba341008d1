"""Measures what is waited for before a command does anything, beside ``import torch``.

Usage: python tools/benchmarks/first_minute.py [COMMAND ...] [--rounds 5] [--json]

COMMAND is one of the names below, by default all. Each is a new process, in alternating rounds
with ``python -c "import torch"``: processor seconds (with those of child processes) and seconds on
the clock, as medians, and both as shares of torch's. A training, on Shapes in a temporary folder,
ends at its first step.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from startup import CONFIG, HOOK, ROOT, resolve
from timing import Line, machine, table

TORCH = "import torch"
MISSING = "missing.jpg"
COMMANDS: dict[str, tuple[str, ...]] = {
    "help": ("--help",),
    "config show": ("config", "show", str(CONFIG)),
    "train, no such config": ("train", "missing.py"),
    "test, no such config": ("test", "missing.py", "missing.pth"),
    "predict, no such source": ("predict", "missing.pth", MISSING),
    "report, no such folder": ("report", "missing"),
    "data inspect, no such path": ("data", "inspect", "missing"),
    "analyze loss-curves": ("analyze", "loss-curves"),
    "doctor": ("doctor",),
    "train": ("train",),  # completed by the config and a work dir
}
GOALS = {"help": 0.25, "train": 2.0}
AT_FIRST_STEP = HOOK.replace("before_train_iter", "after_train_iter").replace(
    "data_batch=None)", "data_batch=None, outputs=None)"
)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--rounds", type=int, default=5, help="rounds counted (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    unknown = set(args.commands) - set(COMMANDS)
    if unknown:
        parser.error(f"no such command: {', '.join(sorted(unknown))}")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ways = {TORCH: ("-c", TORCH)}
        for command in args.commands or COMMANDS:
            ways[command] = ("-m", "fldet", *COMMANDS[command])
            if command == "train":
                ways[command] += training(folder)
        spent: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for round_ in range(args.rounds + 1):  # the first one fills the caches of the disk
            for way, arguments in ways.items():
                seconds = python(folder, *arguments)
                spent[way] += [seconds] if round_ else []
    results = {
        way: {
            "processor_s": median(cpu for cpu, _ in rounds),
            "clock_s": median(clock for _, clock in rounds),
        }
        for way, rounds in spent.items()
    }
    report = {
        "schema": 1,
        "machine": machine(),
        "rounds": args.rounds,
        "results": results,
        "lines": [
            asdict(Line(f"fldet {way}", TORCH, ratio, GOALS.get(way), "x the processor time", True))
            for way in results.keys() - {TORCH}
            for ratio in [results[way]["processor_s"] / results[TORCH]["processor_s"]]
        ],
    }
    print(json.dumps(report) if args.json else as_text(report))


def training(folder: Path) -> tuple[str, ...]:
    """Returns config and options of a training that ends at its first step."""
    (folder / "stop_at_first_batch.py").write_text(AT_FIRST_STEP)
    config = folder / "resolved.py"
    resolve(CONFIG, folder / "data").dump(config)
    return (str(config), "--work-dir", str(folder / "run"))


def python(folder: Path, *arguments: str) -> tuple[float, float]:
    """Returns processor seconds and seconds on the clock of a new Python, started in a folder."""
    path = os.pathsep.join(filter(None, (str(folder), str(ROOT), os.environ.get("PYTHONPATH"))))
    before, started = _processor_seconds(), time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=False,
    )
    return _processor_seconds() - before, time.perf_counter() - started


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def as_text(report: dict[str, Any]) -> str:
    """Returns the report as the machine's line and a table."""
    results = report["results"]
    torch = results[TORCH]
    rows = [
        (
            way,
            *(f"{row[key]:.2f}" for key in ("processor_s", "clock_s")),
            f"{row['processor_s'] / torch['processor_s']:.2f}",
            f"{row['clock_s'] / torch['clock_s']:.2f}",
        )
        for way, row in results.items()
    ]
    head = ("", "processor s", "clock s", "of torch's processor s", "of its clock s")
    facts = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    return f"{facts}; medians of {report['rounds']} rounds\n\n{table(head, rows)}"


if __name__ == "__main__":
    main()
