"""Times of a model: where they go, and how they grow with depth and scale, as pictures."""

from pathlib import Path
from typing import Any

from fldet.benchmark.results import SpeedResult, SpeedTable
from fldet.pictures.figure import COLORS, DASHES, figure, save, set_logarithmic, small_print


def conditions(result: SpeedResult) -> str:
    """Returns device, data type and threads, and how the network ran, in a few words."""
    words = [result.device, result.precision]
    words += ["optimized copy"] * result.optimized + ["compiled"] * result.compiled
    words += ["CUDA graph"] * result.cuda_graph
    return ", ".join([*words, f"threads: {result.threads}", f"weights: {result.weights}"])


def plot_stages(result: SpeedResult, stem: Path, *, title: str) -> list[Path]:
    """Draws a bar for each stage of an image or a training step; returns PNG and SVG."""
    if not result.stages_ms:
        raise ValueError("no stages to draw")
    height, width = result.image_shape
    images = f"training step of {result.batch_size} images of " if result.training else ""
    what = "step" if result.training else "image"
    second = "" if result.training else ", from a second run"
    names, values = list(result.stages_ms), list(result.stages_ms.values())
    counted = sum(ms for name, ms in result.stages_ms.items() if name != "load")
    with figure(11, 1.9 + 0.62 * len(names)) as drawn:
        axes = drawn.add_subplot()
        colors = ["0.7" if name == "load" else COLORS[1] for name in names]
        axes.barh(names, values, 0.72, color=colors)
        for place, (name, ms) in enumerate(result.stages_ms.items()):
            share = "not counted" if name == "load" else f"{100 * ms / counted:.0f} %"
            text = f" {_ms(ms)} ms, {share}"
            axes.text(ms, place, text, va="center", ha="left", fontsize=14)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.set(
            xlim=(0, 1.25 * max(values)), xlabel=f"ms per {what}, median of each stage{second}"
        )
        axes.set_title(
            f"{title}, {images}{height}x{width}: {_ms(result.median_ms)} ms",
            loc="left",
            fontsize=16,
        )
        small_print(drawn, conditions(result))
        return save(drawn, stem)


def plot_table(table: SpeedTable, stem: Path) -> list[Path]:
    """Draws a line of times over the scale for each depth, the paper's dashed; returns PNG and SVG.

    At least one cell has not failed.
    """
    results = [cell.result for cell in table.cells if cell.result]
    if not results:
        raise ValueError("no times to draw")
    with figure(10.5, 7) as drawn:
        axes = drawn.add_subplot()
        times: list[float] = []
        for index, depth in enumerate(dict.fromkeys(cell.depth for cell in table.cells)):
            of_it = sorted((c for c in table.cells if c.depth == depth), key=lambda c: c.scale)
            measured = [(c.scale, c.result.median_ms) for c in of_it if c.result]
            stated = [(c.scale, c.paper_ms) for c in of_it if c.paper_ms]
            style = {"color": COLORS[(index + 1) % len(COLORS)], "marker": "o", "markersize": 8}
            _line(axes, measured, label=f"ResNet-{depth}", **style)
            dashed = {"linestyle": DASHES[1], "linewidth": 1.8, "markerfacecolor": "white"}
            _line(axes, stated, label=f"ResNet-{depth}, paper (Nvidia M40)", **style, **dashed)
            times += [ms for _, ms in [*measured, *stated]]
        if set_logarithmic(axes, "y", times):
            axes.set_ylabel("ms per image, logarithmic")
        else:
            axes.set(ylim=(0, 1.1 * max(times)), ylabel="ms per image")
        axes.set_xticks(sorted({cell.scale for cell in table.cells}))
        axes.set_xlabel("shorter side of the image [px]")
        axes.set_title("Time per image by depth and scale", loc="left")
        axes.legend(loc="best", fontsize=13)
        small_print(drawn, conditions(results[0]))
        return save(drawn, stem)


def _line(axes: Any, points: list[tuple[int, float]], **style: Any) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), **style)


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
