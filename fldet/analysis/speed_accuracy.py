"""Figure 2: accuracy against time per image, the paper's points and measured ones."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from fldet.config.load import CONFIGS
from fldet.errors import DataError, shorten
from fldet.files import read_json
from fldet.pictures.figure import COLORS, figure, label, save, set_logarithmic, small_print
from fldet.results import ANALYSES, Analysis, Milliseconds, Share, read_stored

PAPER_HARDWARE = "Nvidia M40"  # of Table 1e

_PAPER = CONFIGS / "paper"
_PUBLISHED = "published"  # name of the comparison of the paper's points
_MARKERS = ("o", "D", "s", "^", "v", "P", "X")


@dataclass(frozen=True)
class Point:
    """A detector."""

    name: str  # what is written at the point
    ap: float  # COCO's box AP in %
    ms: float  # milliseconds per image
    # no other point of the same comparison is as fast and better, or as good and faster
    on_envelope: bool = False


@dataclass(frozen=True)
class Group:
    """Points that belong together in the legend."""

    name: str
    hardware: str  # what the times were measured on
    points: tuple[Point, ...]  # the fastest first
    comparison: str  # groups of the same comparison have one envelope
    is_line: bool = False  # the points are one model at several image sizes


@dataclass(frozen=True)
class SpeedAccuracy:
    """What Figure 2 shows."""

    # the paper's two RetinaNets, the other systems by hardware, then measured points by hardware
    groups: tuple[Group, ...]
    not_plotted: dict[str, str]  # why a system is left out, by its name

    def __str__(self) -> str:
        lines = [f"{'point':20}  {'AP':>5}  {'ms':>7}  envelope  times on", "-" * 70]
        lines += [
            f"{point.name:20}  {point.ap:5.1f}  {point.ms:7.1f}  "
            f"{'yes' if point.on_envelope else 'no':8}  {group.hardware}"
            for group in self.groups
            for point in group.points
        ]
        lines += [f"not plotted: {name}, {why}" for name, why in self.not_plotted.items()]
        return "\n".join(lines)


# --- compute -------------------------------------------------------------------------------------


def analyze_speed_accuracy(
    measured: Iterable[tuple[str, Path, Path]] = (), *, out_dir: Path = ANALYSES
) -> Analysis[SpeedAccuracy]:
    """Draws Figure 2, with measured models beside the paper's, as ``speed_accuracy`` takes them.

    Raises:
        DataError: a file is missing or is not what it should be.
    """
    figure2 = speed_accuracy(measured)
    return Analysis(figure2, plot_speed_accuracy(figure2, out_dir / "figure2_speed_accuracy"))


def speed_accuracy(measured: Iterable[tuple[str, Path, Path]] = ()) -> SpeedAccuracy:
    """Returns the points of Figure 2 and the upper envelope of each comparison.

    Published points are compared with each other, as in the paper; measured ones with those of the
    same hardware.

    Args:
        measured: for each point a name, the output of ``fldet test --json`` and that of
            ``fldet benchmark --json``; those of one name and hardware, as of two seeds, are
            averaged.

    Raises:
        DataError: a file is missing or is not what it should be.
    """
    others, not_plotted = _systems()
    groups = [*_table1e(), *others, *_measured(measured)]
    return SpeedAccuracy(tuple(_with_envelopes(groups)), not_plotted)


def _table1e() -> list[Group]:
    points = defaultdict(list)
    for row in read_json(_PAPER / "rows.json", "file")["tables"]["table1e"]["rows"]:
        paper = row["paper"]
        points[row["name"].split("-")[0]].append(Point(row["name"], paper["AP"], paper["ms"]))
    return [
        Group(f"RetinaNet {depth}", PAPER_HARDWARE, _fastest_first(of_it), _PUBLISHED, True)
        for depth, of_it in points.items()
    ]


def _systems() -> tuple[list[Group], dict[str, str]]:
    """Returns the other systems, a group for each hardware, and why the rest is not plotted."""
    points, left_out = defaultdict(list), {}
    for one in _all_systems()[1:]:
        if one["plotted"]:
            points[one["hardware"]].append(Point(one["name"], one["AP"], one["ms"]))
        else:
            left_out[one["name"]] = f"AP {one['AP']} ({one['note']})"
    groups = [
        Group("other systems", hardware, _fastest_first(of_it), _PUBLISHED)
        for hardware, of_it in points.items()
    ]
    return groups, left_out


def _all_systems() -> list[dict[str, Any]]:
    """Returns RetinaNet and then the other systems, as their file has them."""
    content = read_json(_PAPER / "systems.json", "file")
    return [content["retinanet"], *content["systems"]]


def points_in(folder: Path) -> list[tuple[str, Path, Path]]:
    """Returns what ``speed_accuracy`` takes of all runs that were both tested and timed.

    Args:
        folder: of a tier of ``fldet paper run``, as ``work_dirs/paper/laptop``.

    Raises:
        DataError: there is none.
    """
    systems = [one for one in _all_systems() if one.get("small")]
    names = {Path(one["small"]).stem: f"small {one['name']}" for one in systems}
    found = [
        (names.get(test.parents[2].name, test.parents[2].name), test, timed)
        for test in sorted(folder.glob("*/seed_*/test/result.json"))
        if (timed := test.parents[1] / "benchmark.json").is_file()
    ]
    if not found:
        raise DataError(
            f"no run in {folder} was tested and timed",
            expected="the folder of a tier, with ROW/seed_N/test/result.json and benchmark.json",
            hint="fldet paper run systems",
        )
    return found


def _measured(measured: Iterable[tuple[str, Path, Path]]) -> list[Group]:
    values: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for name, test, benchmark in measured:
        ap = _result(test, "test", Share, "figures", "summary", "AP")
        speed = _result(benchmark, "benchmark", _Speed)
        values[speed.hardware, name].append((100 * ap, speed.median_ms))
    points = defaultdict(list)
    for (hardware, name), of_seeds in values.items():
        ap, ms = (fmean(column) for column in zip(*of_seeds, strict=True))
        points[hardware].append(Point(name, ap, ms))
    return [
        Group("measured", hardware, _fastest_first(of_it), hardware)
        for hardware, of_it in points.items()
    ]


@dataclass(frozen=True)
class _Speed:
    """What is needed of a ``SpeedResult``, which benchmarks of all versions have."""

    median_ms: Milliseconds
    device: str
    precision: str
    threads: int
    machine: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def hardware(self) -> str:
        on_cpu = self.device == "cpu"
        device = self.machine.get("processor", "cpu") if on_cpu else self.device
        threads = f", threads: {self.threads}" if on_cpu else ""
        return f"{device}, {self.precision}{threads}"


def _result(path: Path, command: str, kind: Any, *keys: str) -> Any:
    """Returns a part of the result in a file that ``fldet COMMAND --json`` printed."""
    what = f"output of fldet {command} --json"
    hint = "--point NAME=TEST.json,BENCHMARK.json, in this order"
    found = read_stored(path, str, "command", what=what, hint=hint)
    if found != command:
        raise DataError(f"{path} is of the command {shorten(found)}", expected=what, hint=hint)
    return read_stored(path, kind, "result", *keys, what=what)


def _fastest_first(points: Iterable[Point]) -> tuple[Point, ...]:
    return tuple(sorted(points, key=lambda point: point.ms))


def _with_envelopes(groups: list[Group]) -> list[Group]:
    rivals: dict[str, list[Point]] = defaultdict(list)
    for group in groups:
        rivals[group.comparison] += group.points
    return [
        dataclasses.replace(
            group,
            points=tuple(
                dataclasses.replace(
                    point, on_envelope=not any(beats(r, point) for r in rivals[group.comparison])
                )
                for point in group.points
            ),
        )
        for group in groups
    ]


def beats(a: Point, b: Point) -> bool:
    """Returns True if ``a`` is at least as fast and as good as ``b``, and not equal in both."""
    return a.ms <= b.ms and a.ap >= b.ap and (a.ms, a.ap) != (b.ms, b.ap)


# --- picture -------------------------------------------------------------------------------------


def plot_speed_accuracy(result: SpeedAccuracy, stem: Path) -> list[Path]:
    """Draws Figure 2 and returns the paths of PNG and SVG; ``stem`` is without their ending.

    Measured points have a panel of their own: their AP is of other images.
    """
    published = [group for group in result.groups if group.comparison == _PUBLISHED]
    measured = [group for group in result.groups if group.comparison != _PUBLISHED]
    panels = [("The paper: COCO test-dev", published)]
    panels += [("Measured, on the images of their own test", measured)] if measured else []
    with figure(11.5 if len(panels) == 1 else 18.0, 7.8) as drawn:
        for axes, (title, groups) in zip(
            drawn.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            _draw_envelopes(axes, groups)
            _set_axes(axes, [point for group in groups for point in group.points])
            for index, group in enumerate(groups):
                _draw_group(axes, group, index)
            axes.set_title(title)
            axes.legend(loc="best", handlelength=2.5, fontsize=13)
        lines = [f"Not plotted: {name}, {why}." for name, why in result.not_plotted.items()]
        small_print(drawn, "\n".join(lines))
        return save(drawn, stem)


def _draw_envelopes(axes: Any, groups: Iterable[Group]) -> None:
    """Draws steps: the best AP of a comparison within a time."""
    envelopes: dict[str, list[Point]] = defaultdict(list)
    for group in groups:
        envelopes[group.comparison] += [point for point in group.points if point.on_envelope]
    for index, points in enumerate(envelopes.values()):
        name = "_" if index else "upper envelope: best AP within a time"
        steps = {"where": "post", "color": "0.82", "linewidth": 6, "zorder": 0.5}
        axes.step(*_coordinates(_fastest_first(points)), label=name, **steps)


def _draw_group(axes: Any, group: Group, index: int) -> None:
    from matplotlib.patheffects import withStroke

    axes.plot(
        *_coordinates(group.points),
        color=COLORS[(index + 1) % len(COLORS)],
        marker=_MARKERS[index % len(_MARKERS)],
        markersize=9,
        zorder=4,
        linestyle="solid" if group.is_line else "none",
        label=label(f"{group.name}: {group.hardware}"),
    )
    middle = sum(axes.get_xlim()) / 2
    for point in group.points:
        text = point.name.split("-")[-1] if group.is_line else point.name
        place = {"xytext": (9, 0), "ha": "left", "va": "center"}
        if group.is_line and (index == 0 or point == group.points[0]):
            place = {"xytext": (5, -7), "ha": "left", "va": "top"}
        elif group.is_line or (group.comparison != _PUBLISHED and point.on_envelope):
            # above the upper one of two lines that touch, and where others are near
            place = {"xytext": (0, 9), "ha": "center", "va": "bottom"}
        elif group.comparison != _PUBLISHED and point.ms > middle:
            place = {"xytext": (-9, 0), "ha": "right", "va": "center"}
        axes.annotate(
            label(text),
            (point.ms, point.ap),
            textcoords="offset points",
            fontsize=13,
            path_effects=[withStroke(linewidth=3, foreground="white")],
            **place,
        )


def _coordinates(points: Iterable[Point]) -> tuple[list[float], list[float]]:
    return [point.ms for point in points], [point.ap for point in points]


def _set_axes(axes: Any, points: list[Point]) -> None:
    """Leaves room around the points; of very different times it shows the logarithm."""
    times, precisions = _coordinates(points)
    low, high = min(precisions), max(precisions)
    margin = 0.12 * (high - low) or 1.0
    axes.set(ylim=(low - 2 * margin, high + margin), ylabel="COCO box AP [%]")
    if set_logarithmic(axes, "x", times):
        axes.set_xlabel("time per image [ms], logarithmic")
    else:
        left = max(0.0, min(times) - 0.15 * max(times))
        axes.set(xlim=(left, max(times) * 1.1), xlabel="time per image [ms]")
