"""What a device reaches: operations and bytes per second."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

_SECONDS = 1.0  # after which no further repetition of a measurement begins


def measured_rates(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Returns the best GFLOP/s of a convolution and of a matrix product, 2 FLOP a multiply-add.

    ``conv`` is the 3x3 convolution of RetinaNet's head, 256 to 256 channels in channels_last, on
    its largest map of an image of 800 x 1333; ``matmul`` the product of square matrices. Each is
    the best of up to six runs, so that another process on the machine does little harm. A device,
    type and number of threads is measured once in a process, in up to a few seconds.
    """
    return dict(_rates(device, dtype, torch.get_num_threads()))


@cache
def _rates(device: torch.device, dtype: torch.dtype, _threads: int) -> dict[str, float]:
    images, side = (16, 8192) if device.type == "cuda" else (1, 2048)
    like: Any = {"device": device, "dtype": dtype}
    with torch.inference_mode():
        maps = torch.randn(images, 256, 100, 168, **like)
        maps = maps.contiguous(memory_format=torch.channels_last)
        weight = torch.randn(256, 256, 3, 3, **like)
        weight = weight.contiguous(memory_format=torch.channels_last)
        square = torch.randn(side, side, **like)
        conv = _fastest(lambda: F.conv2d(maps, weight, padding=1), device)
        matmul = _fastest(lambda: square @ square, device)
    work = 2 * 256 * 256 * 9 * maps[:, 0].numel()
    return {"conv": work / conv / 1e9, "matmul": 2 * side**3 / matmul / 1e9}


def _fastest(function: Callable[[], Any], device: torch.device) -> float:
    """Returns the seconds of the fastest of some runs after the first."""
    function()
    seconds: list[float] = []
    while len(seconds) < 6 and (not seconds or sum(seconds) < _SECONDS):
        _wait(device)
        start = time.perf_counter()
        function()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
