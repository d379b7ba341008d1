"""Trains a small model for many iterations and watches memory, open files and processes.

A short training on Shapes with loader processes; validations and saves come in between. Every
hundred iterations the resident memory of this process and of its loader processes is noted, with
the open file descriptors and the number of child processes. Before that, memory that the program
has freed is given back to the system, where the C library can do that. A line is fitted to the
memory over the second half of the run, when caches are full.

Usage: python tools/memory_growth.py [--iterations 2000] [--workers 2] [--folder DIR]
       [--bound KIB] [--cfg-options KEY=VALUE ...]
Exit code 1 if memory grows by more than --bound KiB an iteration (main process, or all loader
processes together), if open files grow, or if files or processes are left at the end.
"""

import argparse
import ctypes
import gc
import os
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ROOT / "configs" / "shapes" / "retinanet_r18_shapes_short.py"
SMALL = (
    "train_dataloader.batch_size=2 train_dataloader.dataset.num_train=60 "
    "train_dataloader.dataset.num_val=6 train_dataloader.dataset.image_size=64 "
    "val_dataloader.dataset.num_train=60 val_dataloader.dataset.num_val=6 "
    "val_dataloader.dataset.image_size=64 val_dataloader.num_workers=1 "
    "model.backbone.base_channels=8 model.neck.in_channels=[8,16,32,64]"
)
EVERY = 100
COLUMNS = ("iteration", "main MiB", "loaders MiB", "open files", "children")


def main() -> int:
    """Trains, prints the table and the verdict; returns the exit code."""
    options = parse()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    before = len(open_files()), len(children())
    rows = run(options)
    processes = len(children())
    gc.collect()
    after = len(open_files()), processes
    print("  ".join(COLUMNS))
    for row in rows:
        print("  ".join(f"{value:>{len(name)}g}" for name, value in zip(COLUMNS, row, strict=True)))
    second_half = rows[len(rows) // 2 :]
    slopes = [1024 * slope([(row[0], row[column]) for row in second_half]) for column in (1, 2)]
    files = [row[3] for row in second_half]
    print(f"growth over the second half: main {slopes[0]:+.2f}, loaders {slopes[1]:+.2f} KiB an")
    print(f"iteration (bound {options.bound:g}); open files {files[0]:g} to {files[-1]:g}")
    print(f"open files and children before {before}, after the run {after}")
    grown = max(slopes) > options.bound or files[-1] > files[0]
    left = after[1] > before[1] or after[0] > before[0]
    return 1 if grown or left else 0


def parse() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder")
    parser.add_argument("--bound", type=float, default=4.0, help="KiB an iteration")
    parser.add_argument("--cfg-options", nargs="*", default=[])
    return parser.parse_args()


def run(options: argparse.Namespace) -> list[tuple[float, ...]]:
    """Returns a row of ``COLUMNS`` for every hundredth iteration of a training."""
    from mmengine.hooks import Hook

    import fldet.engine.train as engine
    from fldet.config.load import load_config

    folder = Path(options.folder or tempfile.mkdtemp(prefix="memory_growth_"))
    rows: list[tuple[float, ...]] = []

    class Watch(Hook):
        """Notes a row."""

        def after_train_iter(self, runner: Any, *_args: Any, **_kwargs: Any) -> None:
            if (runner.iter + 1) % EVERY == 0:
                give_freed_memory_back()
                loaders = sum(map(resident_mib, children()))
                memory = resident_mib(os.getpid()), loaders
                rows.append((runner.iter + 1, *memory, len(open_files()), len(children())))

    cfg = load_config(
        str(SHAPES),
        [
            *SMALL.split(),
            f"data_root={folder / 'data'}",
            f"train_cfg.max_iters={options.iterations}",
            "train_cfg.val_interval=250",
            "default_hooks.checkpoint.interval=250",
            "default_hooks.logger.interval=10",
            "custom_hooks.0.interval=500",
            f"train_dataloader.num_workers={options.workers}",
            *options.cfg_options,
        ],
    )
    build = engine.build_runner

    def build_watched(*arguments: Any) -> Any:
        runner = build(*arguments)
        runner.register_hook(Watch())
        return runner

    engine.build_runner = build_watched
    started = time.perf_counter()
    engine.train(cfg, work_dir=folder / "run", device="cpu")
    print(f"{options.iterations} iterations, {time.perf_counter() - started:.0f} s, {folder}")
    return rows


def slope(points: list[tuple[float, float]]) -> float:
    """Returns the slope of the line of least squares through points (x, y)."""
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def give_freed_memory_back() -> None:
    """Lets the C library hand free pages to the system; glibc only."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def resident_mib(pid: int) -> float:
    """Returns the resident memory of a process, 0 for one that has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2)


def open_files() -> list[str]:
    """Returns the open file descriptors of this process."""
    return os.listdir("/proc/self/fd")


def children() -> list[int]:
    """Returns the child processes of this process, those that are not joined included."""
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in text.split()]


if __name__ == "__main__":
    raise SystemExit(main())
