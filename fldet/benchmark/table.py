"""Times by depth and scale, in the shape of the paper's Table 1e."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from fldet.benchmark.predict import OptimizedCopy, benchmark
from fldet.benchmark.results import SpeedCell, SpeedResult, SpeedTable
from fldet.benchmark.summary import check_against
from fldet.config.load import load_config
from fldet.devices import select_device
from fldet.errors import FldetError, UsageError
from fldet.paper import find_table

DEPTHS = (50, 101)
SCALES = (400, 500, 600, 700, 800)
# The most frequent image of COCO is 480 x 640; its longer side is below the cap at every scale.
ASPECT = 640 / 480


def speed_table(
    config: str | None = None,
    *,
    depths: Sequence[int] = DEPTHS,
    scales: Sequence[int] = SCALES,
    cfg_options: Iterable[str] = (),
    on_cell: Callable[[SpeedTable], None] | None = None,
    **options: Any,
) -> SpeedTable:
    """Times a model at each depth and scale on a random image; a cell that fails is kept as such.

    The image has the shape of COCO's most frequent one, 480 x 640 pixels, its shorter side resized
    to the scale. The weights are random: times of a network do not depend on them, those of the
    post-processing are a lower bound.

    Args:
        config: whose ``model.backbone.depth`` is replaced; None takes ``retinanet/rN_fpn_1x.py`` of
            each depth N and puts the paper's times beside.
        depths: of the ResNet.
        scales: shorter sides of the image in pixels.
        cfg_options: overrides as for ``load_config``.
        on_cell: gets the table so far after each cell.
        **options: of ``benchmark``, for every cell: ``num_images``, ``device``, ``copy``,
            ``against``.

    Raises:
        UsageError: a depth or scale twice or below 1, or an option that no cell could use.
        UnavailableError: the device is not there, or lacks what an option needs.
    """
    for name, values in (("depths", depths), ("scales", scales)):
        if len(set(values)) != len(values) or min(values) < 1:
            raise UsageError(
                f"--{name} {' '.join(map(str, values))}", expected="numbers above 0, each once"
            )
    check_against(options.get("against"))
    device = select_device(options.get("device", "auto"))
    copy: OptimizedCopy | None = options.get("copy")
    if copy:
        copy.require(device)
    paper = {} if config else {row.name: row.paper["ms"] for row in find_table("table1e").rows}
    name = config or "retinanet/rDEPTH_fpn_1x.py"
    table, overrides = SpeedTable(name, ()), tuple(cfg_options)
    for depth in depths:
        for scale in scales:
            if copy and copy.compile:
                torch._dynamo.reset()  # it gives up compiling after some shapes
            options["shape"] = (scale, round(scale * ASPECT))
            result, error = _time_cell(config, depth, overrides, options)
            cell = SpeedCell(depth, scale, paper.get(f"R{depth}-{scale}"), result, error)
            table = SpeedTable(name, (*table.cells, cell))
            if on_cell:
                on_cell(table)
    return table


def _time_cell(
    config: str | None, depth: int, cfg_options: tuple[str, ...], options: dict[str, Any]
) -> tuple[SpeedResult | None, str]:
    """Returns a result, or why there is none."""
    overrides = (*cfg_options, f"model.backbone.depth={depth}") if config else cfg_options
    try:
        cfg = load_config(config or f"retinanet/r{depth}_fpn_1x.py", overrides)
        return benchmark(cfg, **options), ""
    except FldetError as error:
        return None, error.message
    except Exception as error:  # a lack of memory, or whatever a library raises for a depth
        return None, f"{type(error).__name__}: {error}"
