"""``fldet benchmark engines``."""

from pathlib import Path
from typing import Annotated

import typer

from fldet.cli import options
from fldet.cli.benchmark import options as timing
from fldet.cli.benchmark.text import describe_engines
from fldet.cli.output import Output, command, loading, note

EXAMPLES = """
  fldet benchmark engines work_dirs/mine --calibrate data/images
  fldet benchmark engines CONFIG CHECKPOINT --engines torch openvino --precisions fp32 int8
  fldet benchmark engines work_dirs/mine --against mmdet --max-images 200 --out engines.json
"""


@command
def engines(
    config: options.Config,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Weights or a work dir; may be left out where CONFIG is a work dir.",
            metavar="CHECKPOINT",
        ),
    ] = None,
    engines: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME ...",
            help="What runs the network.",
            show_default="torch onnxruntime openvino",
        ),
    ] = None,
    precisions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME ...",
            help="What it computes in; what an engine has not is left out for it.",
            show_default="those of fp32 bf16 int8 that the processor has",
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGES",
            help="For int8, images like those of the training: a folder or a quoted glob.",
            show_default="images of the training",
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images timed after the warm-up.")] = 50,
    max_images: Annotated[
        int | None, typer.Option(min=1, help="Measure AP on the first N test images alone.")
    ] = None,
    against: timing.Against = None,
    out: timing.Out = None,
    cfg_options: options.CfgOptions = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure milliseconds and AP of a model by engine and precision.

    On the CPU. All take turns on the same test images, each from loaded pixels to boxes. What fails
    is named and the others go on; the exit code is 1 then. fldet benchmark table --engines is
    another name.
    """
    timing.require_new(out)
    from fldet.checkpoints.paths import checkpoint_of

    checkpoint = checkpoint_of(config, checkpoint, "benchmark engines")
    with loading(f"benchmark engines {config}"):
        from fldet.benchmark.engines import OFFERED, engine_table
        from fldet.benchmark.files import write_speed
        from fldet.checkpoints.model import load_test_config

    result = engine_table(
        load_test_config(config, cfg_options or ()),
        checkpoint,
        engines=engines or tuple(OFFERED),
        precisions=precisions,
        calibrate=calibrate,
        num_images=images,
        max_images=max_images,
        against=against,
    )
    written = write_speed(result, "", out=out)
    best = result.fastest()
    output = Output("benchmark engines", as_json=json, quiet=quiet)
    output.result(
        result,
        text=lambda: describe_engines(result, written),
        essential=f"{best.engine} {best.precision} {best.median_ms:.1f}" if best else "-",
    )
    failed = sum(bool(row.error) for row in result.rows)
    if failed:
        note(f"{failed} failed; exit code 1")
        raise typer.Exit(1)
