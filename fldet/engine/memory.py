"""What a machine can do at most, and what a run takes of its memory."""

import contextlib
import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MEMINFO, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_GROUPS = (  # limit, use, and a file that says how much of it is cache; of both versions
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def peak_memory(function: Callable[[], Any], device: torch.device) -> tuple[float, str]:
    """Runs a function and returns the peak of memory in MiB, and in words what was measured.

    On a GPU it is all that torch has allocated there. On a CPU it is how far the resident memory
    of the process rises; call this before anything alike has run, because what a first run loads
    and keeps counts, and freed memory that a library keeps hides some of it. NaN where the system
    does not tell.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) / 2**20
        return peak, "allocated on the GPU at most, weights included"
    _give_back()
    try:
        _CLEAR.write_text("5")  # sets the peak back to the present
        before = _mib_of(_STATUS.read_text(), "VmRSS")
    except OSError:
        function()
        return float("nan"), "not measured: this system has no /proc/self/clear_refs to write to"
    function()
    rise = _mib_of(_STATUS.read_text(), "VmHWM") - before
    return rise, "rise of the resident memory of the process in its first run, weights not included"


def available_memory() -> float:
    """Returns how many MiB a new process could take on this machine; NaN where it does not tell.

    A limit that the process has been given, as containers have, counts.
    """
    try:
        room = _mib_of(_MEMINFO.read_text(), "MemAvailable")
    except (OSError, StopIteration):
        return float("nan")
    for limit, used, stat in _GROUPS:
        with contextlib.suppress(OSError, ValueError, StopIteration):  # no limit, or no such file
            most = int((_GROUP / limit).read_text()) - int((_GROUP / used).read_text())
            lines = (_GROUP / stat).read_text().splitlines()
            most += next(int(line.split()[1]) for line in lines if "inactive_file" in line)
            room = min(room, most / 2**20)
    return room


def _give_back() -> None:
    """Has the C library return memory that is free, which would hide some of a rise."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another system or library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _mib_of(text: str, field: str) -> float:
    """Returns a line ``Field:  123 kB`` in MiB."""
    lines = text.splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
