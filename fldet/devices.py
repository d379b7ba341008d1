"""Which device a command computes on, and what it can."""

import platform

import torch

from fldet.errors import UnavailableError, UsageError
from fldet.numeric import is_whole


def select_device(name: str = "auto") -> torch.device:
    """Returns the device by name and makes it the one that MMEngine moves models to.

    That is ``auto`` (CUDA if there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UsageError: a name of another kind.
        UnavailableError: a GPU is asked for, but torch sees no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not is_whole(index)):
        raise UsageError(f"unknown device {name!r}", expected="auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        _check_cuda(name, int(index or 0))
        if index:
            torch.cuda.set_device(int(index))
    elif kind == "mps" and not torch.backends.mps.is_available():
        raise UnavailableError(
            f"--device {name}: torch {torch.__version__} sees no GPU of Apple's",
            expected="macOS on Apple silicon, and torch's build for it",
            hint="use --device cpu",
        )
    import mmengine.device.utils

    mmengine.device.utils.DEVICE = kind  # it settles on one at its import; a run may want another
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """Returns the device with the name of its hardware where torch knows it."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


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


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether the device computes in bfloat16, by what torch and oneDNN say."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):  # oneDNN takes plain AVX512 for enough
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private: they may go
        return any(getattr(torch.cpu, name, bool)() for name in names)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
