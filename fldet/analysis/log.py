"""How training runs went: losses, learning rate, AP and speed from the scalars of their logs."""

import logging
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fldet.errors import DataError, UsageError, shorten
from fldet.files import GIB, parse_json, read_bytes
from fldet.pictures.figure import COLORS, DASHES, figure, label, save

log = logging.getLogger("fldet")

_MOST_STEPS = 2**53  # above, numbers on an axis are no longer whole
_MOST_BITS = 1000  # of a whole number that is a float too
LOG_SCALE_FROM = 50  # largest over smallest loss from which the axis is logarithmic

# MMDetection's own metric calls them otherwise.
_AP = {"AP": "AP", "AP50": "AP50", "AP75": "AP75"}
_AP |= {"bbox_mAP": "AP", "bbox_mAP_50": "AP50", "bbox_mAP_75": "AP75"}
_PANELS = [["losses", "ap"], ["losses", "speed"], ["rate", "waiting"]]
_RUN_COLORS = (*COLORS[1:], COLORS[0])


@dataclass(frozen=True)
class Series:
    """One scalar of a run: ``values``, which may be NaN or infinite, at ``iterations``."""

    iterations: tuple[int, ...] = ()
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class TrainingLog:
    """The scalars of a run.

    Attributes:
        name: of the work dir, or its path where another has the same name.
        starts: how often the run was started, resumed starts counted in.
        train: by the name in the log: ``loss`` and its parts, ``lr``, ``time`` and ``data_time``
            (seconds of an iteration, and of waiting for its data), ...
        val: ``AP``, ``AP50`` and ``AP75`` in [0, 1]; ``loss`` and its parts if they were computed.
    """

    name: str
    starts: int
    train: dict[str, Series]
    val: dict[str, Series]


@dataclass(frozen=True)
class RunSummary:
    """The figures of one run.

    Attributes:
        name: of the run.
        starts: as in ``TrainingLog``.
        iterations: the last that was logged, which is the last of all where the run has ended.
        losses: the last training losses, smoothed; NaN where the last one is not finite.
        val_losses: the last validation losses; empty where none were computed.
        not_finite: logged points with a loss that is NaN or infinite.
        best_ap: in [0, 1]; None without validation.
        best_iteration: where it was reached.
        seconds_per_iteration: median; NaN if not logged.
        data_loading_frac: median share of an iteration that waits for data; NaN if not logged.
        seconds: of all iterations together, validation not counted; NaN if not logged.
    """

    name: str
    starts: int
    iterations: int
    losses: dict[str, float]
    val_losses: dict[str, float]
    not_finite: int
    best_ap: float | None
    best_iteration: int | None
    seconds_per_iteration: float
    data_loading_frac: float
    seconds: float


# --- read ----------------------------------------------------------------------------------------


def read_logs(work_dirs: Sequence[Path]) -> list[TrainingLog]:
    """Returns the log of each run, in the order given.

    Raises:
        DataError: as ``read_log``.
        UsageError: more runs than there are colours.
    """
    if len(work_dirs) > len(_RUN_COLORS):
        raise UsageError(
            f"{len(work_dirs)} runs in one figure", expected=f"at most {len(_RUN_COLORS)}"
        )
    names = Counter(path.resolve().name for path in work_dirs)
    return [
        read_log(path, name=str(path) if names[path.resolve().name] > 1 else "")
        for path in work_dirs
    ]


def read_log(work_dir: Path, *, name: str = "") -> TrainingLog:
    """Returns the scalars of all starts of a run as one.

    A start that was resumed goes on from a checkpoint: what earlier starts logged from its first
    logged iteration onwards is dropped.

    Args:
        work_dir: with a folder for each start, as MMEngine makes them; or one such folder.
        name: of the run; by default that of the folder.

    Raises:
        DataError: there is no such folder, it holds no scalars of a training, or a line is broken
            that others follow. Broken lines at the end are skipped with a warning.
    """
    if not work_dir.is_dir():
        raise DataError(f"no such work dir: {work_dir}", expected="the folder of a training run")
    starts = [records for file in _scalar_files(work_dir) if (records := list(_records(file)))]
    train: list[tuple[int, dict[str, float]]] = []
    val: list[tuple[int, dict[str, float]]] = []
    for records in starts:
        new_train = [(int(one["step"]), one) for one in records if "iter" in one]
        first = new_train[0][0] if new_train else math.inf
        train = [point for point in train if point[0] < first] + new_train
        val = [point for point in val if point[0] < first] + [*_validations(records)]
    if not train:
        raise DataError(
            f"no scalars of a training in {work_dir}",
            expected="TIME/vis_data/scalars.json in it, with at least one logged iteration",
            hint="a run logs every 50 iterations: --cfg-options default_hooks.logger.interval=10",
        )
    return TrainingLog(name or work_dir.resolve().name, len(starts), _series(train), _series(val))


def _scalar_files(work_dir: Path) -> Iterator[Path]:
    """Yields one file for each start, the earliest first; MMEngine may have written copies."""
    for folder in (work_dir, *sorted(path for path in work_dir.iterdir() if path.is_dir())):
        copies = sorted(folder.glob("vis_data/*.json"))
        names = (Path("vis_data", "scalars.json"), Path("vis_data", f"{folder.name}.json"))
        choice = [*(folder / name for name in names), *copies, folder / f"{folder.name}.json"]
        yield from [path for path in choice if path.is_file()][:1]


def _records(file: Path) -> Iterator[dict[str, float]]:
    """Yields the numbers of each line that belongs to a training; a test's figures have no step."""
    text = read_bytes(file, "log", most=GIB).decode(errors="replace")
    broken = 0  # lines, as far as seen: a kill cuts the last one off, a power loss leaves anything
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line, str(file))
            if not isinstance(record, dict) or not _is_step(record.get("step", 0)):
                raise DataError(str(file))
        except DataError:
            broken = broken or number
            continue
        if broken:
            line = text.split("\n")[broken - 1]
            raise DataError(
                f"{file}, line {broken} is broken: {shorten(line.strip(), 60)}",
                expected="one JSON object with an integer 'step', as MMEngine writes them",
            )
        if "step" in record:
            yield _numbers(record)
    if broken:
        log.warning("%s: from line %d on it is cut off or damaged, and was skipped", file, broken)


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_STEPS


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a line by plain names: no phase in front, AP as COCO calls it."""
    plain: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, (int, float)):
            name = key.removeprefix("train/").removeprefix("val/").removeprefix("val/")
            # a whole number of hundreds of digits is no float
            small = not isinstance(value, int) or value.bit_length() < _MOST_BITS
            plain[_AP.get(name.rpartition("/")[2], name)] = value if small else math.inf
    return plain


def _validations(records: Sequence[dict[str, float]]) -> Iterator[tuple[int, dict[str, float]]]:
    """Yields each validation with its iteration.

    MMEngine writes the epoch as the step by default, 0 where there are none; then the iteration is
    that of the training line before.
    """
    last = next((int(one["step"]) for one in records if "iter" in one), 0)
    for one in records:
        if "iter" in one:
            last = int(one["step"])
        else:
            yield max(last, int(one["step"])), one


def _series(points: Sequence[tuple[int, dict[str, float]]]) -> dict[str, Series]:
    names = dict.fromkeys(name for _, record in points for name in record)
    return {
        name: Series(
            tuple(step for step, record in points if name in record),
            tuple(float(record[name]) for _, record in points if name in record),
        )
        for name in names
    }


# --- compute -------------------------------------------------------------------------------------


def compute(run: TrainingLog, *, smooth: int = 1) -> RunSummary:
    """Returns the figures of a run.

    Args:
        run: as ``read_log`` returned it.
        smooth: logged points that a loss is averaged over, >= 1.
    """
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


def loss_parts(scalars: Mapping[str, Series]) -> dict[str, Series]:
    """Returns the losses among scalars, in the order of the log: their sum first."""
    return {name: one for name, one in scalars.items() if name.startswith("loss")}


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


# --- plot ----------------------------------------------------------------------------------------


def plot(runs: Sequence[TrainingLog], stem: Path, *, smooth: int = 1) -> list[Path]:
    """Draws runs over each other and returns the paths of the figure, PNG and SVG.

    Args:
        runs: as ``read_logs`` returned them; each has a colour, the parts of a loss have dashes.
        stem: path without an ending.
        smooth: logged points that a loss is averaged over; above 1 the points lie pale behind.
    """
    with figure(15, 11) as drawn:
        panels = drawn.subplot_mosaic(_PANELS, width_ratios=(1.2, 1), sharex=True)
        _draw_losses(panels["losses"], runs, smooth)
        _draw_rates(panels["rate"], runs)
        _draw_ap(panels["ap"], runs)
        _draw_speed(panels["speed"], runs)
        _draw_waiting(panels["waiting"], runs)
        panels["rate"].set_xlim(left=0)
        panels["rate"].xaxis.set_major_formatter("{x:,.0f}")
        panels["rate"].xaxis.get_major_locator().set_params(nbins=6)
        for name in ("rate", "waiting"):
            panels[name].set_xlabel("iterations")
        _name_runs(drawn, runs)
        return save(drawn, stem)


def _name_runs(drawn: Any, runs: Sequence[TrainingLog]) -> None:
    if len(runs) == 1:
        drawn.suptitle(label(runs[0].name))
        return
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=color, linewidth=6, label=label(run.name))
        for run, color in zip(runs, _RUN_COLORS, strict=False)
    ]
    drawn.legend(handles=handles, loc="outside upper center", ncols=min(len(runs), 3))


def _draw_losses(axes: Any, runs: Sequence[TrainingLog], smooth: int) -> None:
    names = list(dict.fromkeys(name for run in runs for name in loss_parts(run.train)))
    styles = dict(zip(names, DASHES * len(names), strict=False))
    for run, color in zip(runs, _RUN_COLORS, strict=False):
        for name, one in loss_parts(run.train).items():
            style = {"color": color, "linestyle": styles[name]}
            if smooth > 1:
                axes.plot(one.iterations, _drawable(one.values), color=color, alpha=0.25, lw=1.5)
            axes.plot(one.iterations, smoothed(one.values, smooth), **style, **_lone(one))
            _mark(axes, not_finite(one), color)
        for name, one in loss_parts(run.val).items():
            style = {"color": color, "linestyle": styles.get(name, "solid")}
            axes.plot(one.iterations, _drawable(one.values), **style, marker="D", ms=8, lw=1.2)
    values = [v for run in runs for scalars in (run.train, run.val) for v in _positive(scalars)]
    if values and max(values) > LOG_SCALE_FROM * min(values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    averaged = f", mean of the last {smooth} logged points" if smooth > 1 else ""
    axes.set_ylabel(f"loss{averaged}")
    _loss_legend(axes, runs, styles)


def _loss_legend(axes: Any, runs: Sequence[TrainingLog], styles: Mapping[str, Any]) -> None:
    from matplotlib.lines import Line2D

    grey: dict[str, Any] = {"color": "0.3"}
    handles = [Line2D([], [], ls=style, label=name, **grey) for name, style in styles.items()]
    if any(loss_parts(run.val) for run in runs):
        handles.append(Line2D([], [], marker="D", ms=8, lw=1.2, label="on validation", **grey))
    if any(not_finite(one) for run in runs for one in loss_parts(run.train).values()):
        handles.append(Line2D([], [], ls="", **_CROSS, label="NaN or infinite", **grey))
    axes.legend(handles=handles, loc="upper right", handlelength=3)


_CROSS: dict[str, Any] = {"marker": "x", "ms": 11, "mew": 3}


def _mark(axes: Any, iterations: Sequence[int], color: str) -> None:
    """Draws crosses at the lower edge, where a value cannot be drawn."""
    if not iterations:  # the empty line would count for the layout
        return
    heights = [0.02] * len(iterations)
    transform = axes.get_xaxis_transform()
    axes.plot(iterations, heights, ls="", color=color, transform=transform, clip_on=False, **_CROSS)


def _draw_rates(axes: Any, runs: Sequence[TrainingLog]) -> None:
    for run, color in zip(runs, _RUN_COLORS, strict=False):
        rate = run.train.get("lr", Series())
        axes.plot(rate.iterations, _drawable(rate.values), color=color, **_lone(rate))
    axes.set_ylim(bottom=0)
    axes.set(ylabel="learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))


def _draw_ap(axes: Any, runs: Sequence[TrainingLog]) -> None:
    from matplotlib.lines import Line2D

    styles = dict(zip(("AP", "AP50", "AP75"), DASHES, strict=False))
    for run, color in zip(runs, _RUN_COLORS, strict=False):
        for name, style in styles.items():
            one = run.val.get(name, Series())
            axes.plot(
                one.iterations, _drawable(one.values), color=color, ls=style, marker="o", ms=6
            )
            _mark(axes, not_finite(one), color)
    axes.set(ylabel="AP on validation", ylim=(0, None))
    if any("AP" in run.val for run in runs):
        axes.set_ylim(0, 1.25 * max(0.05, axes.get_ylim()[1]))  # room for the legend
        handles = [Line2D([], [], ls=ls, color="0.3", label=name) for name, ls in styles.items()]
        axes.legend(handles=handles, loc="upper left", handlelength=3, ncols=3)
    else:
        axes.text(0.5, 0.5, "no validation", ha="center", transform=axes.transAxes)


def _draw_speed(axes: Any, runs: Sequence[TrainingLog]) -> None:
    for run, color in zip(runs, _RUN_COLORS, strict=False):
        times = run.train.get("time", Series())
        rates = [1 / value if value > 0 else math.nan for value in times.values]
        axes.plot(times.iterations, rates, color=color, **_lone(times))
    axes.set(ylabel="iterations / s", ylim=(0, None))


def _draw_waiting(axes: Any, runs: Sequence[TrainingLog]) -> None:
    for run, color in zip(runs, _RUN_COLORS, strict=False):
        part = shares(run.train.get("data_time", Series()), run.train.get("time", Series()))
        percent = [100 * value for value in part.values]
        axes.plot(part.iterations, percent, color=color, **_lone(part))
    axes.set(ylabel="waiting for data [%]")
    axes.set_ylim(0, min(100, max(10, axes.get_ylim()[1])))


def _lone(series: Series) -> dict[str, Any]:
    """Returns a marker for a series of one point, of which no line is seen."""
    return {"marker": "o"} if len(series.values) == 1 else {}


def _drawable(values: Sequence[float]) -> list[float]:
    return np.where(np.isfinite(values), values, np.nan).tolist()


def _positive(scalars: Mapping[str, Series]) -> Iterator[float]:
    for one in loss_parts(scalars).values():
        yield from (value for value in one.values if math.isfinite(value) and value > 0)
