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
  fldet benchmark CONFIG CHECKPOINT --precision bf16 --against mmdet
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
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="fp32|bf16",
            help="Time a faster copy, batch norms folded, in this precision.",
            show_default=False,
        ),
    ] = None,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Time a faster copy under torch.compile, which takes tens of seconds before the "
            "clock starts, for each size of image.",
        ),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="mmdet",
            help="Time MMDetection's own code in float32 too, in turns.",
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
        precision=precision,
        compile=compile,
        against=against,
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
    lines = [
        f"median {result.median_ms:.1f} ms per image, 90th percentile {result.p90_ms:.1f} ms, "
        f"99th {result.p99_ms:.1f} ms; {result.images_per_second:.2f} images per second",
    ]
    if result.against:
        lines.append(
            f"x{result.against.speedup:.2f} as fast as {result.against.name} in float32 "
            f"(median {result.against.median_ms:.1f} ms; median of the ratios image by image)"
        )
    if result.stages_ms:
        stages = ", ".join(f"{name} {value:.1f}" for name, value in result.stages_ms.items())
        lines.append(f"stages in ms, from a second run: {stages}")
    way = "an optimized copy" if result.optimized else "the model as it is"
    lines += [
        f"{result.num_images} images of {height}x{width} (most frequent size), one at a time",
        f"timed: {result.timed}",
        f"{result.device}, {way} in {result.precision}{', compiled' * result.compiled}, "
        f"{result.threads} CPU threads",
        ", ".join(f"{name} {value}" for name, value in result.machine.items()),
    ]
    return "\n".join(lines)
