"""``fldet analyze flops``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, loading
from fldet.cli.printed import FlopsAnalyzed
from fldet.results import ANALYSES
from fldet.text import table

if TYPE_CHECKING:
    from fldet.analysis.flops.report import Cost, FlopCount

EXAMPLES = """
  fldet analyze flops configs/retinanet/r50_fpn_1x.py
  fldet analyze flops configs/retinanet/r101_fpn_1.5x.py --shape 400x667 --json
"""


@command
def flops(
    config: options.Config,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Size of the image, before padding.",
            show_default="800x1333, or what the config warps all images to",
        ),
    ] = None,
    out_dir: options.OutDir = ANALYSES,
    cfg_options: options.CfgOptions = None,
    json: options.Json = False,
) -> None:
    """Count and draw what each part of a model costs.

    Parameters, FLOPs and activations, of the parts and of the levels of the pyramid.
    """
    from fldet.config.load import load_config

    cfg = load_config(config, cfg_options or ())
    with loading(f"analyze flops {config}"):
        from fldet.analysis.flops.analyze import analyze_flops

    size = options.parse_shape(shape) if shape else None
    done = analyze_flops(cfg, shape=size, out_dir=out_dir)
    Output("analyze flops", as_json=json).result(
        FlopsAnalyzed(done.result, done.files),
        text=lambda: cost_text(done.result, done.files),
    )


def cost_text(count: "FlopCount", pictures: Sequence[Path]) -> str:
    """Returns a row for each part and its pieces, what was counted, and the pictures."""
    rows = []
    for part in count.parts:
        rows.append(_cells(part.total, part.total.name, count.total.flops))
        rows += [_cells(piece, f"  {piece.name}", count.total.flops) for piece in part.pieces]
    rows.append(_cells(count.total, "total", count.total.flops))
    height, width = count.shape
    return "\n".join(
        [
            table(("part", "parameters", "GFLOP", "share", "activations", "MiB"), rows),
            f"one image of {height}x{width}, padded; {count.counted}",
            "activations: numbers in the outputs of these, MiB in float32",
            *(f"picture  {path}" for path in pictures),
        ]
    )


def _cells(cost: "Cost", name: str, all_flops: int) -> tuple[str, ...]:
    counts = f"{cost.flops / 1e9:.2f}", f"{100 * cost.flops / all_flops:.1f} %"
    memory = f"{cost.activations:,}", f"{cost.activations_mib:.1f}"
    if not cost.flops:
        counts, memory = ("-", "-"), ("-", "-")
    return name, f"{cost.parameters:,}" if cost.parameters else "-", *counts, *memory
