"""``fldet benchmark``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note

if TYPE_CHECKING:
    from fldet.results import SpeedResult

EXAMPLES = """\b
Examples:
  fldet benchmark configs/retinanet/r50_fpn_1x.py --shape 800x1333
  fldet benchmark configs/shapes/retinanet_r18_shapes.py work_dirs/retinanet_r18_shapes
"""


@command
def benchmark(
    config: options.Config,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="Weights or a work dir; random without.", show_default=False),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images timed, after three more.")] = 50,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Time one random image of this size instead of the test images.",
            show_default=False,
        ),
    ] = None,
    cfg_options: options.CfgOptions = None,
    device: options.Device = "auto",
    trust_checkpoint: options.TrustCheckpoint = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the milliseconds per image of a config's model."""
    note(f"fldet benchmark {config}: loading torch and MMDetection")
    from fldet.config import load_config
    from fldet.engine.benchmark import benchmark as run

    result = run(
        load_config(config, cfg_options or ()),
        checkpoint,
        num_images=images,
        shape=parse_shape(shape) if shape else None,
        device=device,
        trust_checkpoint=trust_checkpoint,
    )
    out = Output("benchmark", as_json=json, quiet=quiet)
    out.result(result, text=lambda: describe(result), essential=f"{result.median_ms:.1f}")


def parse_shape(text: str) -> tuple[int, int]:
    """Returns (height, width) of a text like ``800x1333``.

    Raises:
        UsageError: another kind of text.
    """
    from fldet.errors import UsageError

    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise UsageError(f"--shape {text!r} is not a size", expected="HEIGHTxWIDTH, as in 800x1333")
    return int(height), int(width)


def describe(result: "SpeedResult") -> str:
    """Returns the times and what they were measured on."""
    height, width = result.image_shape
    return (
        f"median {result.median_ms:.1f} ms per image, 90th percentile {result.p90_ms:.1f} ms\n"
        f"{result.num_images} images of {height}x{width} (most frequent size), one at a time, "
        f"without reading the file\n"
        f"{result.device}, {result.precision}, {result.threads} CPU threads"
    )
