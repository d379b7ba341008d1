"""``fldet export``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import TOLERANCE_MISSED, Output, command, loading, note
from fldet.errors import UsageError

if TYPE_CHECKING:
    from fldet.inference.results import ExportResult, Int8Result

EXAMPLES = """
  fldet export work_dirs/retinanet_r18_shapes --out shapes.onnx --check data/shapes/val2017
  fldet export best.pth --post-process outside --out maps.onnx --check 'photos/*.jpg'
  fldet export best.pth --format torchscript --check photo.jpg
  fldet export work_dirs/mine --out int8.onnx --int8 --max-images 500
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
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Write the convolutions of an ONNX file in 8-bit integers, test both."
        ),
    ] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGES",
            help="For --int8, images like those of the training, 64 of which say what range the "
            "integers cover: a folder or a quoted glob.",
            show_default="images of the training",
        ),
    ] = None,
    max_ap_drop: Annotated[
        float, typer.Option(min=0.0, help="AP points that --int8 may cost; else exit code 3.")
    ] = 0.5,
    max_images: Annotated[
        int | None, typer.Option(min=1, help="Measure AP on the first N test images alone.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="Config, for a checkpoint that carries none, or whose work dir is not around it: "
            "--int8 tests on its images."
        ),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model as ONNX or TorchScript, and compare it with the checkpoint."""
    from fldet.checkpoints.paths import require_checkpoints

    require_checkpoints(checkpoint)
    if calibrate is not None and not int8:
        raise UsageError("--calibrate is for --int8", expected="both, or --int8 alone")
    with loading(f"export {checkpoint}"):
        from fldet.inference.export import Int8Options
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
        int8=Int8Options(calibrate, max_ap_drop, max_images) if int8 else None,
    )
    output = Output("export", as_json=json, quiet=quiet)
    output.result(result, text=lambda: export_text(result), essential=result.file)
    if result.within_tolerance is False:
        note("the exported model differs from the checkpoint by more than the tolerance")
        raise typer.Exit(TOLERANCE_MISSED)
    if result.int8 and not result.int8.within:
        note("8-bit integers cost more AP than --max-ap-drop")
        raise typer.Exit(TOLERANCE_MISSED)


def export_text(result: "ExportResult") -> str:
    """Returns the file, then how it compares with the checkpoint."""
    lines = [f"{result.file} ({result.size_mib:.1f} MiB, post-processing {result.post_process})"]
    lines += [f"{result.card} tells of the model"] if result.card else []
    parity = result.parity
    if result.int8:
        lines += describe_int8(result.int8)
    elif parity is None:
        lines.append("not compared with the checkpoint: --check IMAGES does")
    else:
        lines += [
            f"{parity.boxes} boxes on {parity.images} images: at most {parity.box_px:.1e} px and "
            f"{parity.score:.1e} in score apart, {parity.unmatched} without a partner",
            f"per image {parity.torch_ms:.1f} ms with torch, {parity.exported_ms:.1f} ms exported "
            "(median, one at a time on the CPU, without reading the file)",
        ]
    return "\n".join(lines)


def describe_int8(cost: "Int8Result") -> list[str]:
    """Returns both APs in points, what was lost, and the times."""
    verdict = "within" if cost.within else "MORE than"
    return [
        f"AP in float32 {100 * cost.float_ap:.2f}, in int8 {100 * cost.int8_ap:.2f} on "
        f"{cost.images} images: {cost.lost:.2f} points lost, {verdict} the {cost.max_lost:g} "
        "allowed",
        f"per image {cost.float_ms:.1f} ms in float32, {cost.int8_ms:.1f} ms in int8 (onnxruntime, "
        "all of the test counted)",
    ]
