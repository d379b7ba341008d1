"""What the benchmarks share: paired timing, peak memory, goals, a table, the machine in words.

A script prints one JSON object with ``--json``: ``schema``, ``machine``, what it measured, and
``lines``, what ``run_all.py`` collects. One that can use a GPU takes ``--device``.
"""

import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one function, and how many times faster it is than the first one."""

    median_ms: float
    min_ms: float
    max_ms: float
    speedup: float


@dataclass(frozen=True)
class Line:
    """A figure with what it was compared with, for the table over all scripts.

    Attributes:
        what: was measured.
        against: what ``reached`` is relative to; empty for a figure by itself.
        reached: the figure.
        goal: what it should be at least, or at most; None for none.
        unit: of the figure, ``x`` for how many times as fast.
        at_most: whether less is better.
    """

    what: str
    against: str
    reached: float
    goal: float | None = None
    unit: str = "x"
    at_most: bool = False


def paired(
    functions: dict[str, Callable[[], Any]], *, rounds: int, warmup: int = 2
) -> dict[str, Timing]:
    """Returns the timing of each function; the first one is what the others are compared with.

    Each function runs once per round, and the order rotates. The speedup is the median of the
    ratios within the rounds, so that a slow spell of a shared machine hits both sides alike. A GPU
    in use is waited for before and after each run.

    Args:
        functions: by name, in any number.
        rounds: how many are counted, at least 1.
        warmup: how many come before them.
    """
    names = list(functions)
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(warmup + rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            _wait()
            start = time.perf_counter()
            functions[name]()
            _wait()
            elapsed_ms = 1000 * (time.perf_counter() - start)
            if index >= warmup:
                times[name].append(elapsed_ms)
    base = times[names[0]]
    return {
        name: Timing(
            statistics.median(own),
            min(own),
            max(own),
            statistics.median(b / o for b, o in zip(base, own, strict=True)),
        )
        for name, own in times.items()
    }


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def event_ms(function: Callable[[], Any], *, calls: int) -> float:
    """Returns the milliseconds of a call on the GPU, the mean of many in a row after three."""
    for _ in range(3):
        function()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def peak_extra_mib(function: Callable[[], Any], device: str = "cpu") -> float:
    """Returns the MiB by which memory rises at most while the function runs.

    On a GPU it is the memory that torch allocates there, on a CPU the resident memory. There it
    runs in a forked child, and there for the second time: a child reads the pages of libraries
    anew, which the first run does, and the memory that this run has freed is given back before the
    second. Linux with glibc only; NaN elsewhere, or where the function fails.
    """
    if device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        _wait()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            function()
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present
            resident = _resident_mib("VmRSS")
            function()
            os.write(write_end, str(_resident_mib("VmHWM") - resident).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return float(answer or "nan")


def _resident_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table, its columns aligned to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * (width - 1) + ":" for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def machine() -> dict[str, Any]:
    """Returns what the figures depend on: processor, cores, threads, versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_initialized() else {}
    return {
        **gpu,
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
