"""``fldet benchmark table``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.benchmark import options as timing
from fldet.cli.benchmark.text import cell_text, describe_table
from fldet.cli.output import Output, command, note

if TYPE_CHECKING:
    from fldet.benchmark.results import SpeedTable

EXAMPLES = """
  fldet benchmark table --out table1e.json
  fldet benchmark table --depths 50 101 --scales 400 500 600 700 800 --precision bf16
  fldet benchmark table CONFIG --depths 18 34 --scales 400
"""


@command
def table(
    config: Annotated[
        str | None,
        typer.Argument(
            help="Config file, of which the depth is replaced; without it the RetinaNets of each "
            "depth.",
            metavar="CONFIG",
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
    """Measure the milliseconds per image by depth and scale.

    The table has the shape of the paper's Table 1e. Weights and images are random. A cell that
    fails is named and the others go on; the exit code is 1 then.
    """
    timing.require_new(out)
    note("fldet benchmark table: loading torch and MMDetection")
    from fldet.benchmark.files import write_speed
    from fldet.benchmark.table import DEPTHS, SCALES, speed_table

    depths, scales = depths or [*DEPTHS], scales or [*SCALES]
    name = f"{Path(config).stem}_table" if config else "table1e"

    def cell_done(so_far: "SpeedTable") -> None:
        cell, done = so_far.cells[-1], f"{len(so_far.cells)} of {len(depths) * len(scales)}"
        said = cell.error or f"{cell_text(cell)} ms"
        note(f"{done}: ResNet-{cell.depth}, {cell.scale} px: {said}")
        write_speed(so_far, name, out=out)

    result = speed_table(
        config,
        depths=depths,
        scales=scales,
        cfg_options=cfg_options or (),
        on_cell=cell_done,
        num_images=images,
        device=device,
        copy=timing.copy_to_time(precision, compile, cuda_graph),
        against=against,
    )
    written = write_speed(result, name, out=out, out_dir=out_dir)
    medians = (f"{cell.result.median_ms:.1f}" if cell.result else "-" for cell in result.cells)
    Output(result.command, as_json=json, quiet=quiet).result(
        result, text=lambda: describe_table(result, written), essential=" ".join(medians)
    )
    if any(cell.error for cell in result.cells):
        note("cells have failed; exit code 1")
        raise typer.Exit(1)
