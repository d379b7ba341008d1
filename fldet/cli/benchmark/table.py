"""``fldet benchmark table``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fldet.cli import options
from fldet.cli.benchmark import options as timing
from fldet.cli.benchmark.text import cell_text, describe_side_by_side, describe_table
from fldet.cli.output import Output, command, loading, note
from fldet.errors import UsageError

if TYPE_CHECKING:
    from fldet.benchmark.results import SpeedsSideBySide, SpeedTable

EXAMPLES = """
  fldet benchmark table --out table1e.json
  fldet benchmark table --depths 50 101 --scales 400 500 600 700 800 --precision bf16
  fldet benchmark table CONFIG --depths 18 34 --scales 400
  fldet benchmark table configs/systems/ssd513_r101.py configs/systems/faster_rcnn_r101_fpn.py
"""


@command
def table(
    configs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Config file, of which the depth is replaced; without it the RetinaNets of each "
            "depth. Several are timed as they are, each at its own test size.",
            metavar="CONFIG...",
        ),
    ] = None,
    depths: Annotated[
        list[int] | None,
        typer.Option(metavar="N ...", help="Depths of the ResNet.", show_default="50 101"),
    ] = None,
    scales: Annotated[
        list[int] | None,
        typer.Option(
            metavar="PIXELS ...",
            help="Shorter sides of the image.",
            show_default="400 500 600 700 800",
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, help="Images timed for each cell, after the warm-up.")
    ] = 50,
    precision: timing.Precision = None,
    compile: timing.Compile = False,
    cuda_graph: Annotated[
        bool,
        typer.Option(
            "--cuda-graph",
            help="Time a faster copy whose network is replayed as CUDA graphs; needs a GPU.",
        ),
    ] = False,
    against: timing.Against = None,
    out: Annotated[
        Path | None, typer.Option(help="New JSON file, written after each cell.")
    ] = None,
    out_dir: timing.OutDir = None,
    cfg_options: options.CfgOptions = None,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure milliseconds by depth and scale, or of several configs.

    By depth and scale the table has the shape of the paper's Table 1e. Weights and images are
    random. What fails is named and the others go on; the exit code is 1 then.
    """
    timing.require_new(out)
    several = configs is not None and len(configs) > 1
    if several and (depths or scales or out_dir):
        raise UsageError(
            "--depths, --scales and --out-dir are for one config", expected="one, or none of them"
        )
    with loading("benchmark table"):
        copy = timing.copy_to_time(precision, compile, cuda_graph)
    shared = {
        "cfg_options": cfg_options or (),
        "num_images": images,
        "device": device,
        "copy": copy,
        "against": against,
    }
    output = Output("benchmark table", as_json=json, quiet=quiet)
    if several and configs:
        failed = _configs(configs, out, output, shared)
    else:
        failed = _depths_and_scales(
            configs[0] if configs else None, depths, scales, (out, out_dir), output, shared
        )
    if failed:
        note(f"{failed} failed; exit code 1")
        raise typer.Exit(1)


def _configs(configs: list[str], out: Path | None, output: Output, shared: Any) -> int:
    """Times configs at their own sizes; returns how many failed."""
    from fldet.benchmark.files import write_speed
    from fldet.benchmark.side_by_side import speeds_side_by_side

    def row_done(so_far: "SpeedsSideBySide") -> None:
        row = so_far.rows[-1]
        said = f"{row.result.median_ms:.1f} ms" if row.result else row.error
        note(f"{len(so_far.rows)} of {len(configs)}: {row.name}: {said}")
        write_speed(so_far, "", out=out)

    result = speeds_side_by_side(configs, on_row=row_done, **shared)
    medians = (f"{row.result.median_ms:.1f}" if row.result else "-" for row in result.rows)
    output.result(
        result,
        text=lambda: describe_side_by_side(result, [out] if out else []),
        essential=" ".join(medians),
    )
    return sum(bool(row.error) for row in result.rows)


def _depths_and_scales(
    config: str | None,
    depths: list[int] | None,
    scales: list[int] | None,
    places: tuple[Path | None, Path | None],
    output: Output,
    shared: Any,
) -> int:
    """Times a config by depth and scale; returns how many cells failed."""
    from fldet.benchmark.files import write_speed
    from fldet.benchmark.table import DEPTHS, SCALES, speed_table

    out, out_dir = places
    depths, scales = depths or [*DEPTHS], scales or [*SCALES]
    name = f"{Path(config).stem}_table" if config else "table1e"

    def cell_done(so_far: "SpeedTable") -> None:
        cell, done = so_far.cells[-1], f"{len(so_far.cells)} of {len(depths) * len(scales)}"
        said = cell.error or f"{cell_text(cell)} ms"
        note(f"{done}: ResNet-{cell.depth}, {cell.scale} px: {said}")
        write_speed(so_far, name, out=out)

    result = speed_table(config, depths=depths, scales=scales, on_cell=cell_done, **shared)
    written = write_speed(result, name, out=out, out_dir=out_dir)
    medians = (f"{cell.result.median_ms:.1f}" if cell.result else "-" for cell in result.cells)
    output.result(result, text=lambda: describe_table(result, written), essential=" ".join(medians))
    return sum(bool(cell.error) for cell in result.cells)
