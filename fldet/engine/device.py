"""Where a run computes: the device, and the processes that share the work."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from fldet.errors import PeerError, UnavailableError, UsageError
from fldet.hooks.agreement import GROUP_TIMEOUT


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
def process_group(
    launcher: str, device: torch.device, *, timeout: timedelta = GROUP_TIMEOUT
) -> Iterator[None]:
    """Is in the group of the processes that the launcher started, and leaves it at the end.

    On a GPU MMEngine joins the group by itself. On a CPU it cannot: it sets a CUDA device for every
    process; where a group exists already it does not.

    Args:
        launcher: what ``adopt_launcher`` returned.
        device: of this process.
        timeout: how long to wait for another process, on a CPU.

    Raises:
        PeerError: another process has ended, or does not answer.
    """
    if launcher != "none" and device.type == "cuda":
        # Slurm may show each process its own device alone, which is then number 0.
        local = int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count()
        os.environ["LOCAL_RANK"] = str(local)
    try:
        if launcher != "none" and device.type == "cpu":
            torch.distributed.init_process_group("gloo", timeout=timeout)
        yield
    except BaseException as error:
        if device.type == "cpu":  # NCCL would wait for what will never come
            _leave_group()
        if isinstance(error, RuntimeError) and is_lost_connection(error):
            reason = str(error).split("] ", 1)[-1].split(". ")[0].splitlines()[0]
            raise PeerError(
                f"another process of the run has ended or does not answer ({reason})"
            ) from error
        raise
    _leave_group()


def is_lost_connection(error: RuntimeError) -> bool:
    """Returns whether an exception only says that another process could not be reached."""
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)


def describe(device: torch.device) -> str:
    """Returns the device with the name of its hardware where torch knows it."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def _leave_group() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


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
