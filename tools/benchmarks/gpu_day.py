"""All that is to be seen on a GPU, in twelve minutes at most: ``make bench-gpu``.

Usage: python tools/benchmarks/gpu_day.py [--dry-run] [--minutes 12] [--out work_dirs/gpu_day]
       [--only NAME ...]

The tests with the marker ``gpu``; the focal loss in Triton against others, its memory, and its
bandwidth against that of a copy; R50 at 800 x 1333, one image and sixteen, in bfloat16, as CUDA
graphs and compiled; training steps of sixteen images; and a row of Table 1b in the tier ``gpu``.
Each part has its own limit in seconds and is stopped there; the folder gets ``benchmarks.json`` and
``benchmarks.md`` after each. The row comes last and gets what time is left; the same command goes
on with it. ``--dry-run`` runs the same commands on the CPU with small sizes: it shows that all of
them run, and its figures mean nothing.
"""

import argparse
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import run_all

ROOT = Path(__file__).resolve().parents[2]
GRAPH = [*run_all.BENCHMARK, "--precision", "bf16", "--cuda-graph"]
R50 = run_all.ON_GPU
WHOLE = ("800x1333", "20")  # (height)x(width), and images or steps
SMALL = ("64x96", "2")


@dataclass(frozen=True)
class Part:
    """A command, and how many seconds it may take."""

    command: list[str]
    seconds: float


def parts(dry: bool, out: Path) -> dict[str, Part]:
    """Returns what runs, by name, in order; the last one is the training of a row."""
    here = Path(__file__).parent
    device = ["--device", "cpu" if dry else "cuda"]
    python = sys.executable
    tests = [
        python,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        str(ROOT / "tests"),
    ]
    losses = [python, str(here / "focal_loss.py"), "--json", "--no-compiled", *device]
    losses += ["--anchors", "1000", "--rounds", "2"] if dry else []
    found = {"tests": Part(tests, 150), "focal_loss": Part(losses, 90)}
    for name, (command, _) in R50.items():
        compiles = "--compile" in command
        if dry:
            command = small(command)
        found[name] = Part([*command, *device], 150 if compiles else 60)
    row = [python, "-m", "fldet", "paper", "run", "table1b", "--rows", "2/.25", "--tier", "gpu"]
    row += ["--seeds", "0", "--work-dir", str(out / "paper"), *device]
    if dry:
        row += ["--cfg-options", "train_cfg.max_iters=2", "train_cfg.val_interval=2"]
        row += [f"data_root={out / 'shapes'}", "train_dataloader.batch_size=2"]
        row += [
            f"{split}_dataloader.dataset.num_{part}={SMALL[1]}"
            for split in ("train", "val")
            for part in ("train", "val")
        ]
    found["table1b 2/.25"] = Part(row, 600)
    return found


def small(command: list[str]) -> list[str]:
    """Returns a command of ``fldet benchmark`` as it can run on a CPU, with small images."""
    words = [word for word in command if word not in ("--cuda-graph", "--compile", "--amp")]
    words = [SMALL[0] if word == WHOLE[0] else word for word in words]
    if "--precision" in words:
        words[words.index("--precision") + 1] = "fp32"
    for option in ("--steps", "--batch-size"):
        if option in words:
            words[words.index(option) + 1] = SMALL[1]
    return words if "train" in words else [*words, "--images", SMALL[1]]


def main() -> None:
    """Runs the parts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="small sizes, on the CPU")
    parser.add_argument("--minutes", type=float, default=12, help="for all parts (default 12)")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/gpu_day"), help="folder")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of these parts")
    args = parser.parse_args()
    if not args.dry_run and run_all.found_device() == "cpu":
        raise SystemExit("torch sees no GPU; --dry-run runs all parts in small on the CPU")
    todo = parts(args.dry_run, args.out)
    if unknown := sorted(set(args.only or ()) - set(todo)):
        raise SystemExit(f"no such part: {', '.join(unknown)}; there is {', '.join(todo)}")
    end = time.monotonic() + 60 * args.minutes
    report: dict[str, Any] = {"schema": 1, "device": "cpu, dry run" if args.dry_run else "cuda"}
    report |= {"machine": {}, "lines": [], "scripts": {}, "failed": {}}
    for name, part in todo.items():
        if args.only and name not in args.only:
            continue
        limit = end - time.monotonic()
        limit = limit if args.dry_run else min(limit, part.seconds)
        if limit < 1:
            report["failed"][name] = [f"not run: the {args.minutes:g} minutes were over"]
        else:
            print(f"{name}: {limit:.0f} seconds at most", file=sys.stderr, flush=True)
            run_part(report, name, part.command, limit)
        run_all.write(report, args.out)
    run_all.finish(report, args.out)


def run_part(report: dict[str, Any], name: str, command: list[str], limit: float) -> None:
    """Runs a part and adds its lines; tests and trainings say in words how far they came."""
    if "--json" in command:
        run_all.add(report, name, command, limit)
        return
    started = time.monotonic()
    out, error, code = run_all.run(command, limit)
    words = last_words(name, out, error)
    stopped = code == run_all.STOPPED
    if code and not stopped:
        report["failed"][name] = [words, *(error or out).strip().splitlines()[-3:]]
        return
    took = f"{time.monotonic() - started:.0f} seconds"
    report["scripts"][name] = {"said": words, "seconds": time.monotonic() - started}
    report.setdefault("words", []).append(f"{name}: {words} ({'stopped after ' * stopped}{took})")


def last_words(name: str, out: str, error: str) -> str:
    """Returns the last line in which a part says how far it is."""
    pattern = r"\d+ (passed|failed|skipped)" if name == "tests" else r"train \d|AP|done"
    lines = [line.strip("= ") for line in (out + error).splitlines() if re.search(pattern, line)]
    return lines[-1] if lines else "nothing was said"


if __name__ == "__main__":
    main()
