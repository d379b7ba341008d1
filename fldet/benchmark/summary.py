"""What times say: their median and percentiles, a ratio, the share of what the device reaches."""

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fldet.benchmark.rates import measured_rates
from fldet.benchmark.results import SpeedComparison, SpeedResult
from fldet.devices import device_name
from fldet.engine.doctor import machine
from fldet.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Timing:
    """Times of a model, and what they were measured on."""

    # milliseconds of each image or step (row), of the model and of what it is compared with
    # (columns)
    rows: NDArray[np.float64]
    device: torch.device
    precision: str  # in which its network computes: a data type of torch, and maybe more words
    shape: tuple[int, int]  # (height, width) of most images, in pixels
    gflop: float  # billions of operations of an image or step; NaN where they are not known
    memory: tuple[float, str]  # as ``peak_memory`` returned it
    batch_size: int = 1  # images of a row


def check_against(against: str | None) -> None:
    """Raises a UsageError where there is no such comparison."""
    if against not in (None, "mmdet"):
        raise UsageError(f"unknown comparison {against!r}", expected="mmdet")


def summarize(timing: Timing, against: str | None, **facts: Any) -> SpeedResult:
    """Returns what times say, with what they were measured on and ``facts``, fields as they are.

    ``against`` is the name of the second column, None if there is none.
    """
    times = timing.rows[:, 0]
    median = float(np.median(times))
    rates = measured_rates(timing.device, getattr(torch, timing.precision.split()[0]))
    return SpeedResult(
        median_ms=median,
        p90_ms=float(np.percentile(times, 90)),
        p99_ms=float(np.percentile(times, 99)),
        num_images=len(times),
        image_shape=timing.shape,
        device=device_name(timing.device),
        precision=timing.precision,
        threads=torch.get_num_threads(),
        images_per_second=1000 * timing.batch_size / float(np.mean(times)),
        batch_size=timing.batch_size,
        against=_comparison(against, timing.rows) if against else None,
        machine=machine(),
        gflop=timing.gflop,
        machine_gflops=rates,
        peak_share=timing.gflop / (median / 1000) / max(rates.values()),
        peak_memory_mib=timing.memory[0],
        memory=timing.memory[1],
        **facts,
    )


def _comparison(name: str, rows: NDArray[np.float64]) -> SpeedComparison:
    """Returns how the second column of ``time_in_turns`` compares with the first."""
    ratios = rows[:, 1] / rows[:, 0]
    return SpeedComparison(name, float(np.median(rows[:, 1])), float(np.median(ratios)))
