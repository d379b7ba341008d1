"""``fldet benchmark train``."""

from pathlib import Path
from typing import Annotated

import typer

from fldet.cli import options
from fldet.cli.benchmark import options as timing
from fldet.cli.benchmark.text import describe_speed
from fldet.cli.output import Output, command, loading

EXAMPLES = """
  fldet benchmark train configs/retinanet/r50_fpn_1x.py --shape 800x1333
  fldet benchmark train CONFIG --shape 480x640 --batch-size 2 --amp --against mmdet
"""


@command
def train(
    config: options.Config,
    steps: Annotated[
        int, typer.Option("--steps", "--images", min=1, help="Steps timed after the warm-up.")
    ] = 50,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per step, instead of the config's.")
    ] = None,
    shape: timing.Shape = None,
    amp: Annotated[
        bool, typer.Option("--amp", help="Run the step as fldet train --amp does.")
    ] = False,
    against: timing.Against = None,
    out: timing.Out = None,
    out_dir: timing.OutDir = None,
    cfg_options: options.CfgOptions = None,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the milliseconds of a config's training step.

    The weights are random, and the learning rate is 0, so that they stay.
    """
    timing.require_new(out)
    size = options.parse_shape(shape) if shape else None
    from fldet.config.load import load_config

    cfg = load_config(config, cfg_options or ())
    with loading(f"benchmark train {config}"):
        from fldet.benchmark.files import write_speed
        from fldet.benchmark.training import benchmark_training

    result = benchmark_training(
        cfg,
        steps=steps,
        batch_size=batch_size,
        shape=size,
        device=device,
        amp=amp,
        against=against,
    )
    written = write_speed(result, Path(config).stem, out=out, out_dir=out_dir)
    Output(result.command, as_json=json, quiet=quiet).result(
        result,
        text=lambda: describe_speed(result, written),
        essential=f"{result.median_ms:.1f}",
    )
