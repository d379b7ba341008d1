"""The figures of a training run: losses, best AP and speed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fldet.analysis.log.read import Series, TrainingLog, loss_parts


@dataclass(frozen=True)
class RunSummary:
    """The figures of one run."""

    name: str
    starts: int  # as in ``TrainingLog``
    iterations: int  # the last that was logged, which is the last of all where the run has ended
    # the last training losses, smoothed; NaN where the last one is not finite
    losses: dict[str, float]
    val_losses: dict[str, float]  # the last validation losses; empty where none were computed
    not_finite: int  # logged points with a loss that is NaN or infinite
    best_ap: float | None  # in [0, 1]; None without validation
    best_iteration: int | None  # where it was reached
    seconds_per_iteration: float  # median; NaN if not logged
    data_loading_frac: float  # median share of an iteration that waits for data; NaN if not logged
    seconds: float  # of all iterations together, validation not counted; NaN if not logged


def summarize_log(run: TrainingLog, *, smooth: int = 1) -> RunSummary:
    """Returns the figures of a run, losses averaged over ``smooth`` >= 1 logged points."""
    times = run.train.get("time", Series())
    waits = run.train.get("data_time", Series())
    ap = run.val.get("AP", Series())
    best = max(
        (pair for pair in zip(ap.values, ap.iterations, strict=True) if math.isfinite(pair[0])),
        key=lambda pair: pair[0],
        default=(None, None),
    )
    steps = pairwise((0, *times.iterations))
    losses = loss_parts(run.train)
    return RunSummary(
        name=run.name,
        starts=run.starts,
        iterations=max(series.iterations[-1] for series in run.train.values()),
        losses={name: smoothed(one.values, smooth)[-1] for name, one in losses.items()},
        val_losses={name: one.values[-1] for name, one in loss_parts(run.val).items()},
        not_finite=len({step for one in losses.values() for step in not_finite(one)}),
        best_ap=best[0],
        best_iteration=best[1],
        seconds_per_iteration=_median(times.values),
        data_loading_frac=_median(shares(waits, times).values),
        seconds=sum((b - a) * time for (a, b), time in zip(steps, times.values, strict=True))
        if times.values
        else math.nan,
    )


def not_finite(series: Series) -> list[int]:
    """Returns the iterations where the value is NaN or infinite."""
    pairs = zip(series.iterations, series.values, strict=True)
    return [step for step, value in pairs if not math.isfinite(value)]


def smoothed(values: Sequence[float], count: int) -> list[float]:
    """Returns at each point the mean of the finite ones among the last ``count`` values.

    Where the value itself is not finite, so that a diverged run shows, it is NaN.
    """
    means = []
    for end, value in enumerate(values, start=1):
        finite = [one for one in values[max(0, end - count) : end] if math.isfinite(one)]
        means.append(statistics.fmean(finite) if math.isfinite(value) else math.nan)
    return means


def shares(part: Series, whole: Series) -> Series:
    """Returns part / whole at the iterations that both have, ``whole`` being > 0."""
    of = dict(zip(part.iterations, part.values, strict=True))
    pairs = [
        (step, of[step] / value)
        for step, value in zip(whole.iterations, whole.values, strict=True)
        if step in of and value > 0
    ]
    return Series(tuple(step for step, _ in pairs), tuple(value for _, value in pairs))


def _median(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else math.nan
