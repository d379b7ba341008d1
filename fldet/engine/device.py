"""Where a run computes: the device, and the processes that share the work."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fldet.errors import UnavailableError, UsageError

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")


def select_device(name: str = "auto") -> torch.device:
    """Returns the device by name and makes it the one that MMEngine moves models to.

    Args:
        name: ``auto`` (CUDA if there is one, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: a name of another kind.
        UnavailableError: CUDA is asked for, but torch sees no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise UsageError(f"unknown device {name!r}", expected="auto, cpu, cuda or cuda:N")
    if kind == "cuda":
        _check_cuda(name, int(index or 0))
        if index:
            torch.cuda.set_device(int(index))
    _set_mmengine_device(kind)
    return torch.device(name)


@contextmanager
def process_group(launcher: str, device: torch.device) -> Iterator[None]:
    """Is in the group of the processes that the launcher started, and leaves it at the end.

    On a GPU MMEngine joins the group by itself. On a CPU it cannot: it sets a CUDA device for every
    process; where a group exists already it does not.

    Raises:
        UsageError: the launcher is not one of ``LAUNCHERS``, or its variables are not set.
        UnavailableError: a launcher that needs GPUs on a machine without.
    """
    _check_launcher(launcher, device)
    if launcher != "none" and device.type == "cpu":
        torch.distributed.init_process_group("gloo")
    try:
        yield
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def world_size(launcher: str) -> int:
    """Returns how many processes the launcher has started, before any group exists."""
    names = {"none": None, "pytorch": "WORLD_SIZE", "slurm": "SLURM_NTASKS"}
    name = names.get(launcher, "OMPI_COMM_WORLD_SIZE")
    return int(os.environ.get(name, 1)) if name else 1


def is_first_process(launcher: str) -> bool:
    """Returns whether this process speaks and writes for all, before any group exists."""
    names = {"none": None, "pytorch": "RANK", "slurm": "SLURM_PROCID"}
    name = names.get(launcher, "OMPI_COMM_WORLD_RANK")
    return not name or os.environ.get(name, "0") == "0"


def describe(device: torch.device) -> str:
    """Returns the device with the name of its hardware where torch knows it."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def _check_launcher(launcher: str, device: torch.device) -> None:
    if launcher not in LAUNCHERS:
        raise UsageError(f"unknown launcher {launcher!r}", expected=", ".join(LAUNCHERS))
    if launcher == "pytorch" and "RANK" not in os.environ:
        raise UsageError(
            "--launcher pytorch needs the variables that torchrun sets (RANK, WORLD_SIZE, ...)",
            hint="start with --gpus N, or with: torchrun --nproc_per_node N -m fldet ...",
        )
    if device.type == "cpu" and launcher not in ("none", "pytorch"):
        raise UnavailableError(
            f"--launcher {launcher} needs CUDA devices; this machine has none in use",
            expected="on a CPU, --launcher pytorch",
        )


def _check_cuda(name: str, index: int) -> None:
    if not torch.cuda.is_available():
        raise UnavailableError(
            f"--device {name}: torch {torch.__version__} sees no CUDA device",
            expected="a CUDA build of torch and a driver that fits it",
            hint="use --device cpu, or see what is missing with: fldet doctor",
        )
    if index >= torch.cuda.device_count():
        raise UnavailableError(
            f"--device {name}: there are {torch.cuda.device_count()} CUDA devices",
            expected=f"cuda:0 to cuda:{torch.cuda.device_count() - 1}",
        )


def _set_mmengine_device(kind: str) -> None:
    """MMEngine settles on a device when it is imported; a run may want another."""
    import mmengine.device.utils

    mmengine.device.utils.DEVICE = kind
