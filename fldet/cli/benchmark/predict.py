"""``fldet benchmark predict``."""

from pathlib import Path
from typing import Annotated

import typer

from fldet.cli import options
from fldet.cli.benchmark import options as timing
from fldet.cli.benchmark.text import describe_speed
from fldet.cli.output import Output, command, loading

EXAMPLES = """
  fldet benchmark predict configs/retinanet/r50_fpn_1x.py --shape 800x1333
  fldet benchmark predict configs/shapes/retinanet_r18_shapes.py work_dirs/retinanet_r18_shapes
  fldet benchmark predict CONFIG CHECKPOINT --precision bf16 --against mmdet
"""


@command
def predict(
    config: options.Config,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Weights or a work dir; random weights if left out.", metavar="CHECKPOINT"
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images timed after the warm-up.")] = 50,
    shape: timing.Shape = None,
    precision: timing.Precision = None,
    compile: timing.Compile = False,
    cuda_graph: Annotated[
        bool,
        typer.Option(
            "--cuda-graph",
            help="Time a faster copy whose network is replayed as CUDA graphs; needs a GPU and "
            "--shape.",
        ),
    ] = False,
    against: timing.Against = None,
    out: timing.Out = None,
    out_dir: timing.OutDir = None,
    cfg_options: options.CfgOptions = None,
    device: options.Device = "auto",
    trust_checkpoint: options.TrustCheckpoint = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the milliseconds per image of a config's model."""
    timing.require_new(out)
    size = options.parse_shape(shape) if shape else None
    from fldet.config.load import load_config

    cfg = load_config(config, cfg_options or ())
    with loading(f"benchmark predict {config}"):
        from fldet.benchmark.files import write_speed
        from fldet.benchmark.predict import benchmark

    result = benchmark(
        cfg,
        checkpoint,
        num_images=images,
        shape=size,
        device=device,
        copy=timing.copy_to_time(precision, compile, cuda_graph),
        against=against,
        trust_checkpoint=trust_checkpoint,
    )
    written = write_speed(result, Path(config).stem, out=out, out_dir=out_dir)
    Output(result.command, as_json=json, quiet=quiet).result(
        result,
        text=lambda: describe_speed(result, written),
        essential=f"{result.median_ms:.1f}",
    )
