"""Times how long fldet takes to start: its help page, and a training up to its first batch.

Usage: python tools/benchmarks/startup.py [--config CONFIG] [--rounds 5] [--json]

The help page is compared with ``import typer``. A training counts from the start of the process
until the first batch is there, compared with ``Runner.from_cfg(cfg).train()`` on the same resolved
config, as MMDetection's ``tools/train.py`` does it, with the operators and the postponed imports of
fldet. Every process is a new one, in alternating rounds. CONFIG is by default a small one, on
Shapes drawn into a temporary folder.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from timing import Line, machine, paired, table

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "shapes" / "retinanet_r18_shapes_short.py"
GOALS = (
    ("help", "fldet --help", "fldet --help", "import typer", 1.5),
    ("first batch", "fldet train", "fldet train to its first batch", "MMDetection's runner", 1.0),
)
# Ends a process at its first batch, without waiting for the teardown of either side, nor for the
# loader's processes, which look for their parent every five seconds and hold its pipes until then.
HOOK = """
import multiprocessing
import os
import signal

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class StopAtFirstBatch(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        print("first batch of", len(data_batch["inputs"]), flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's raises
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(0)
"""
# mmdet cannot be imported everywhere without what fldet does about it: operators that mmcv lacks,
# and imports that are put off until a function of mmdet needs them. It gets both.
MMDET = """
import sys

from mmengine.config import Config
from mmengine.runner import Runner

from fldet._compat import install

install()
cfg = Config.fromfile(sys.argv[1])
cfg.work_dir = sys.argv[2]
Runner.from_cfg(cfg).train()
"""


def main() -> None:
    """Prints the two comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=CONFIG, help="of the training")
    parser.add_argument("--rounds", type=int, default=5, help="rounds counted (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        cases = {"help": help_page(), "first batch": first_batch(args.config, Path(folder))}
        results = {
            name: {way: asdict(timing) for way, timing in timings.items()}
            for name, case in cases.items()
            for timings in [paired(case, rounds=args.rounds, warmup=1)]
        }
    report = {
        "schema": 1,
        "machine": machine(),
        "rounds": args.rounds,
        "results": results,
        "lines": [
            asdict(Line(what, against, 1 / results[case][way]["speedup"], goal, "x the time", True))
            for case, way, what, against, goal in GOALS
        ],
    }
    print(json.dumps(report) if args.json else as_text(report))


def help_page() -> dict[str, Callable[[], Any]]:
    """Returns what is timed for the help page."""
    return {
        "import typer": partial(python, "-c", "import typer"),
        "fldet --help": partial(python, "-m", "fldet", "--help"),
    }


def first_batch(config: Path, folder: Path) -> dict[str, Callable[[], Any]]:
    """Returns what is timed for a training; its files go into ``folder``."""
    (folder / "stop_at_first_batch.py").write_text(HOOK)
    (folder / "mmdet_train.py").write_text(MMDET)
    resolved = folder / "resolved.py"
    resolve(config, folder / "data").dump(resolved)
    ours = ("-m", "fldet", "train", resolved, "--work-dir")
    return {
        "mmdet": partial(train, folder, folder / "mmdet_train.py", resolved),
        "fldet train": partial(train, folder, *ours),
    }


def resolve(config: Path, data: Path) -> Any:
    """Returns a config that both sides take as it is, with the hook that ends the process."""
    from fldet.config.load import load_config
    from fldet.config.prepare import prepare_config

    options = [f"data_root={data}"] if config == CONFIG else []
    cfg = prepare_config(load_config(config, options), phases=("train", "val"))
    cfg.custom_imports = {"imports": ["fldet", "stop_at_first_batch"]}
    cfg.custom_hooks = [*cfg.get("custom_hooks", []), {"type": "StopAtFirstBatch"}]
    return cfg


def train(folder: Path, *command: Any) -> None:
    """Runs a training up to its first batch, in a new work dir.

    Raises:
        SystemExit: it did not get there.
    """
    with tempfile.TemporaryDirectory(dir=folder) as work_dir:
        printed = python(*command, work_dir, path=folder)
    if "first batch of" not in printed:
        raise SystemExit(f"no batch was read:\n{printed}")


def python(*arguments: Any, path: Path = ROOT) -> str:
    """Returns what a new Python prints that has the modules in ``path`` too.

    Raises:
        SystemExit: it failed.
    """
    folders = [str(path), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout + done.stderr


def as_text(report: dict[str, Any]) -> str:
    """Returns the report as the machine's line and a table."""
    head = ("", "", "seconds", "least", "most", "of the first")
    rows = [
        (
            name,
            way,
            *(f"{row[key] / 1000:.3f}" for key in ("median_ms", "min_ms", "max_ms")),
            f"{1 / row['speedup']:.2f}",
        )
        for name, ways in report["results"].items()
        for way, row in ways.items()
    ]
    facts = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    return f"{facts}; medians of {report['rounds']} rounds\n\n{table(head, rows)}"


if __name__ == "__main__":
    main()
