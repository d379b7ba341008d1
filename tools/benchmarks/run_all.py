"""Runs every benchmark of this folder one after the other and writes one table of their figures.

Usage: python tools/benchmarks/run_all.py [--device cpu] [--out work_dirs/benchmarks]
       [--only NAME ...] [--data-root DATA_ROOT]

Every script runs with its own settings, those that can with ``--device``; on a GPU the figures of
``fldet benchmark`` for R50 follow: prediction compiled and replayed as CUDA graphs, and training.
The folder gets ``benchmarks.json``, with all that the scripts printed, and ``benchmarks.md``; both
are written after each script. What fails is named, and the rest goes on; the exit code is then 1.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

FOLDER = Path(__file__).parent
NO_BENCHMARKS = ("run_all.py", "gpu_day.py", "timing.py")
STOPPED = -15  # exit code of a command that took too long
CONFIG = "configs/retinanet/r50_fpn_1x.py"
FLDET, R50 = [sys.executable, "-m", "fldet"], [CONFIG, "--shape", "800x1333", "--json"]
BENCHMARK = [*FLDET, "benchmark", "predict", *R50]
TRAIN = [*FLDET, "benchmark", "train", *R50, "--amp", "--against", "mmdet", "--steps", "20"]
# On a GPU alone: name, command, and the goal in milliseconds of an image.
ON_GPU: dict[str, tuple[list[str], float | None]] = {
    "R50-800, bf16": ([*BENCHMARK, "--precision", "bf16", "--against", "mmdet"], None),
    "R50-800, bf16, CUDA graph": ([*BENCHMARK, "--precision", "bf16", "--cuda-graph"], 8.0),
    "R50-800, bf16, compiled, CUDA graph": (
        [*BENCHMARK, "--precision", "bf16", "--compile", "--cuda-graph"],
        8.0,
    ),
    "training R50-800, 2 images": ([*TRAIN, "--batch-size", "2"], None),
    "training R50-800, 16 images": ([*TRAIN, "--batch-size", "16"], None),
}


def main() -> None:
    """Runs the benchmarks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda, or auto (default cpu)")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmarks"), help="folder")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of these scripts, without .py")
    parser.add_argument("--data-root", help="images in the layout of COCO, for data_pipeline")
    args = parser.parse_args()

    device = found_device() if args.device == "auto" else args.device
    todo = commands(device, args.only, args.data_root)
    report: dict[str, Any] = {"schema": 1, "device": device, "machine": {}, "lines": []}
    report |= {"scripts": {}, "failed": {}}
    for number, (name, command) in enumerate(todo.items(), 1):
        print(f"{number} of {len(todo)}: {name}", file=sys.stderr, flush=True)
        add(report, name, command)
        write(report, args.out)
    finish(report, args.out)


def add(report: dict[str, Any], name: str, command: list[str], limit: float | None = None) -> str:
    """Runs a command, for ``limit`` seconds at most, and adds what it prints to the report.

    Returns what it wrote to its standard output.
    """
    started = time.perf_counter()
    out, error, code = run(command, limit)
    printed = printed_json(out)
    if code or printed is None:
        report["failed"][name] = (error or out).strip().splitlines()[-5:]
        if code == STOPPED:
            report["failed"][name].append(f"stopped after {limit:.0f} seconds")
        print(error, file=sys.stderr, flush=True)
    else:
        printed["seconds"] = time.perf_counter() - started
        report["scripts"][name] = printed
        report["machine"] |= machine_of(printed)
        report["lines"] += [{**line, "script": name} for line in lines_of(name, printed)]
    return out


def run(command: list[str], limit: float | None) -> tuple[str, str, int]:
    """Returns output, errors and exit code of a command, ``STOPPED`` if it was beyond its limit.

    It is asked to end (SIGTERM), so that a training saves, and made to after 20 seconds.
    """
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, error = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                out, error = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                out, error = process.communicate()
            return out, error, STOPPED
    return out, error, process.returncode


def write(report: dict[str, Any], folder: Path) -> None:
    """Writes the report into a folder, as JSON and as a table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (folder / "benchmarks.md").write_text(as_markdown(report), encoding="utf-8")


def finish(report: dict[str, Any], folder: Path) -> NoReturn:
    """Prints the table and ends, with exit code 1 if something has failed."""
    print(as_markdown(report))
    print(f"written  {folder / 'benchmarks.json'}\nwritten  {folder / 'benchmarks.md'}")
    sys.exit(1 if report["failed"] else 0)


def printed_json(text: str) -> dict[str, Any] | None:
    """Returns the object at the end of what a script printed; libraries print before it."""
    start = text.find("{")
    try:
        return json.loads(text[start:]) if start >= 0 else None
    except ValueError:
        return None


def found_device() -> str:
    """Returns ``cuda`` where torch sees a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def commands(device: str, only: list[str] | None, data_root: str | None) -> dict[str, list[str]]:
    """Returns what to run, by name.

    Raises:
        SystemExit: there is no script of a name in ``only``.
    """
    scripts = {p.stem: p for p in sorted(FOLDER.glob("*.py")) if p.name not in NO_BENCHMARKS}
    unknown = sorted(set(only or ()) - set(scripts))
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(unknown)}; there is {', '.join(scripts)}")
    todo = {}
    for name, path in scripts.items():
        if only and name not in only:
            continue
        takes_device = '"--device"' in path.read_text(encoding="utf-8")
        todo[name] = [sys.executable, str(path), "--json"]
        todo[name] += ["--device", device] if takes_device else []
        todo[name] += [data_root] if data_root and name == "data_pipeline" else []
    if device != "cpu" and not only:
        todo |= {name: [*command, "--device", device] for name, (command, _) in ON_GPU.items()}
    return todo


def machine_of(printed: dict[str, Any]) -> dict[str, Any]:
    """Returns the facts of the machine in what a script or ``fldet benchmark`` printed."""
    result = printed.get("result", printed)
    return {
        **result.get("machine", {}),
        **({"device": result["device"]} if "device" in result else {}),
    }


def lines_of(name: str, printed: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the lines for the table of what a script or ``fldet benchmark`` printed."""
    if "result" not in printed:
        return printed.get("lines", [])
    result = printed["result"]
    against = result.get("against")
    lines: list[dict[str, Any]] = []
    if result["training"]:
        rate = result["images_per_second"]
        lines.append({"what": name, "against": "", "reached": rate, "unit": "images/s"})
    else:
        lines.append(
            {
                "what": name,
                "against": "",
                "reached": result["median_ms"],
                "goal": ON_GPU[name][1],
                "unit": "ms",
                "at_most": True,
            }
        )
    share = result["peak_share"]
    if share is not None:
        lines.append({"what": f"{name}, share of the peak", "against": "", "reached": share})
        lines[-1] |= {"unit": "of it"}
    if against:
        words = f"{against['name']} in float32"
        lines.append({"what": name, "against": words, "reached": against["speedup"], "unit": "x"})
    return lines


def as_markdown(report: dict[str, Any]) -> str:
    """Returns the facts of the machine, the table, and what failed."""
    facts = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    rows = [
        (
            line["what"],
            line["against"] or "-",
            goal_text(line),
            f"{line['reached']:.3g} {line.get('unit', 'x')}",
            verdict(line),
            line["script"],
        )
        for line in report["lines"]
    ]
    head = ("what", "against", "goal", "reached", "met", "script")
    table = [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
    remarks = [f"- {words}" for words in report.get("words", [])]
    remarks += [f"- {name} failed: {' / '.join(last)}" for name, last in report["failed"].items()]
    known = {line["script"] for line in report["lines"]}
    silent = sorted(
        n for n, one in report["scripts"].items() if n not in known and "said" not in one
    )
    remarks += [f"- {name} has no lines for this table: see the JSON" for name in silent]
    return "\n".join(
        [f"{report['device']}: {facts}", "", *table, *([""] if remarks else []), *remarks, ""]
    )


def goal_text(line: dict[str, Any]) -> str:
    """Returns the goal of a line, a dash without one."""
    if line.get("goal") is None:
        return "-"
    return f"{'<=' if line.get('at_most') else '>='} {line['goal']:g} {line.get('unit', 'x')}"


def verdict(line: dict[str, Any]) -> str:
    """Returns whether a line reaches its goal, a dash without one."""
    goal, reached = line.get("goal"), line["reached"]
    if goal is None:
        return "-"
    return "yes" if (reached <= goal if line.get("at_most") else reached >= goal) else "NO"


if __name__ == "__main__":
    main()
