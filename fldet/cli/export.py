"""``fldet export``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import TOLERANCE_MISSED, Output, command, loading, note

if TYPE_CHECKING:
    from fldet.inference.results import ExportResult

EXAMPLES = """
  fldet export work_dirs/retinanet_r18_shapes --out shapes.onnx --check data/shapes/val2017
  fldet export best.pth --post-process outside --out maps.onnx --check 'photos/*.jpg'
  fldet export best.pth --format torchscript --check photo.jpg
"""


@command
def export(
    checkpoint: options.Checkpoint,
    format: Annotated[str, typer.Option(metavar="onnx|torchscript")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="beside the checkpoint")
    ] = None,
    post_process: Annotated[
        str | None,
        typer.Option(
            metavar="inside|outside",
            help="Whether the file gives boxes after NMS, or raw maps.",
            show_default="inside for onnx, outside for torchscript",
        ),
    ] = None,
    opset: Annotated[
        int | None, typer.Option(min=18, help="ONNX opset version.", show_default="torch's choice")
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGES",
            help="Compare with the checkpoint on these: an image, a folder or a quoted glob; the "
            "first 20. Exit code 3 if boxes differ by 0.001 px or scores by 0.0001.",
        ),
    ] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(
            help="Lowest score of each class, a file of fldet analyze thresholds, for the exported "
            "file to carry; fldet predict uses them."
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            help="Licence of the model, by its SPDX name, for its card.", show_default="not stated"
        ),
    ] = None,
    config: options.ConfigOfCheckpoint = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model as ONNX or TorchScript, and compare it with the checkpoint."""
    from fldet.checkpoints.paths import require_checkpoints

    require_checkpoints(checkpoint)
    with loading(f"export {checkpoint}"):
        from fldet.inference.export import export as run

    result = run(
        checkpoint,
        format=format,
        out=out,
        post_process=post_process,
        opset=opset,
        check=check,
        thresholds=thresholds,
        config=config,
        licence=licence,
    )
    output = Output("export", as_json=json, quiet=quiet)
    output.result(result, text=lambda: export_text(result), essential=result.file)
    if result.within_tolerance is False:
        note("the exported model differs from the checkpoint by more than the tolerance")
        raise typer.Exit(TOLERANCE_MISSED)


def export_text(result: "ExportResult") -> str:
    """Returns the file, then how it compares with the checkpoint."""
    lines = [f"{result.file} ({result.size_mib:.1f} MiB, post-processing {result.post_process})"]
    lines += [f"{result.card} tells of the model"] if result.card else []
    parity = result.parity
    if parity is None:
        lines.append("not compared with the checkpoint: --check IMAGES does")
    else:
        lines += [
            f"{parity.boxes} boxes on {parity.images} images: at most {parity.box_px:.1e} px and "
            f"{parity.score:.1e} in score apart, {parity.unmatched} without a partner",
            f"per image {parity.torch_ms:.1f} ms with torch, {parity.exported_ms:.1f} ms exported "
            "(median, one at a time on the CPU, without reading the file)",
        ]
    return "\n".join(lines)
