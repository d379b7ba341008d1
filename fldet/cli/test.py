"""``fldet test``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import TOLERANCE_MISSED, Output, command, loading
from fldet.errors import UsageError
from fldet.text import cell, table

if TYPE_CHECKING:
    from fldet.engine.results import PrecisionCheck, TestResult
    from fldet.evaluation.figures import Figures

EXAMPLES = """
  fldet test configs/shapes/retinanet_r18_shapes.py work_dirs/retinanet_r18_shapes
  fldet test work_dirs/retinanet_r18_shapes
  fldet test CONFIG CHECKPOINT --show-dir pictures --max-images 20
  fldet test CONFIG CHECKPOINT --slice 640 --overlap 0.25 --tta flip
  fldet test CONFIG CHECKPOINT --out results.json --json
  fldet test CONFIG model.onnx
  fldet test CONFIG CHECKPOINT --precision bf16 --compare
"""


@command
def test(
    config: options.Config,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Weights (.pth), a work dir: its best checkpoint, else its newest, or an exported "
            "model. With a work dir as CONFIG it can be left out.",
            metavar="CHECKPOINT",
        ),
    ] = None,
    show_dir: Annotated[
        Path | None, typer.Option(help="Draw each image here, prediction beside truth.")
    ] = None,
    score_thr: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Lowest score that is drawn.")
    ] = 0.3,
    agnostic_nms: options.AgnosticNms = False,
    hide_labels: options.HideLabels = False,
    hide_scores: options.HideScores = False,
    line_width: options.LineWidth = None,
    max_images: Annotated[int | None, typer.Option(min=1, help="Only the first N images.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write all detections, as the COCO server takes them.",
            show_default="detections.json in the work dir",
        ),
    ] = None,
    slice_size: options.Slice = None,
    overlap: options.Overlap = 0.2,
    whole: options.Whole = False,
    tta: options.Tta = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="fp32|bf16",
            help="Test a faster copy, batch norms folded, in this precision. Without it the "
            "detections are MMDetection's, bit by bit; with fp32 scores are within 1e-5. Of an "
            "ONNX file, what the engine computes in.",
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Test MMDetection's own code in float32 too; exit with 3 if the APs differ.",
        ),
    ] = False,
    max_difference: Annotated[
        float, typer.Option(min=0.0, help="AP points that --compare allows, up or down.")
    ] = 0.5,
    work_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the log, the figures and the detections.",
            show_default="test in the work dir of the config",
        ),
    ] = None,
    engine: options.Engine = None,
    cfg_options: options.CfgOptions = None,
    device: options.Device = "auto",
    launcher: options.Launcher = "auto",
    gpus: options.Gpus = 1,
    trust_checkpoint: options.TrustCheckpoint = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Test a model: COCO or VOC figures, AP of each class, pictures."""
    from fldet.checkpoints.paths import EXPORTED, checkpoint_of
    from fldet.config.load import load_config
    from fldet.files import is_model_folder

    packaged = is_model_folder(Path(config))
    if not packaged:
        cfg = load_config(config, cfg_options or ())
    checkpoint = checkpoint_of(config, checkpoint, "test")
    with loading(f"test {config}"):
        from fldet.checkpoints.model import load_test_config
        from fldet.data.slicing.views import parse_views
        from fldet.engine.launch import relaunch
        from fldet.engine.test import test as run
        from fldet.pictures.boxes import DrawOptions

    if packaged:
        cfg = load_test_config(config, cfg_options or ())
    views = parse_views(slice_size, overlap, whole=whole, tta=tta or ())
    if Path(config).is_dir():  # which may have moved since the config was written
        work_dir = work_dir or Path(config) / "test"
    if gpus > 1:
        if compare:
            raise UsageError("--compare runs in one process", expected="no --gpus, no --launcher")
        relaunch(cfg, gpus, phases=("test",), device=device)
        return
    exported = None
    if checkpoint.suffix in EXPORTED or engine:
        from fldet.inference.exported import ExportedModel, load_exported

        exported = ExportedModel(
            load_exported(
                *(checkpoint, device, engine, precision),
                trust=trust_checkpoint,
                agnostic_nms=agnostic_nms,
            )
        )
        precision = None  # the file has it now
    result = run(
        cfg,
        checkpoint,
        exported=exported,
        work_dir=work_dir,
        show_dir=show_dir,
        score_thr=score_thr,
        drawing=DrawOptions(hide_labels, hide_scores, line_width),
        max_images=max_images,
        agnostic_nms=agnostic_nms,
        out=out,
        device=device,
        launcher=launcher,
        views=views,
        precision=precision,
        compare=compare,
        max_difference=max_difference,
        trust_checkpoint=trust_checkpoint,
    )
    if result is not None:
        Output("test", as_json=json, quiet=quiet).result(
            result,
            text=lambda: test_text(result, show_dir),
            essential=f"{result.figures.main:.4f}",
        )
        if result.check and not result.check.within:
            raise typer.Exit(TOLERANCE_MISSED)


def test_text(result: "TestResult", show_dir: Path | None) -> str:
    """Returns the figures as tables, then the paths of what was written."""
    lines = tables(result.figures)
    for name, figures in result.others.items():
        lines += ["", f"{name}:", *tables(figures)]
    lines[-1] += f"; {result.seconds:.1f} s"
    if result.optimized:
        lines.append(f"an optimized copy in {result.precision}")
    if result.check:
        lines += ["", describe_check(result.check, result.figures.main)]
    if result.results_file:
        lines.append(f"detections  {result.results_file}")
    if show_dir:
        lines.append(f"pictures    {show_dir} ({len(result.pictures)} files)")
    return "\n".join(lines)


def describe_check(check: "PrecisionCheck", tested_ap: float) -> str:
    """Returns both APs in points, their difference, and the verdict."""
    verdict = "within" if check.within else "MORE than"
    return (
        f"AP of MMDetection's own code in float32  {100 * check.stock_ap:.2f}\n"
        f"AP as tested                             {100 * tested_ap:.2f}\n"
        f"difference {check.difference:+.2f} points, {verdict} the {check.tolerance:g} allowed"
    )


def tables(figures: "Figures") -> list[str]:
    """Returns the lines of one metric."""
    return [
        table(("figure", "value"), [(name, cell(v)) for name, v in figures.summary.items()]),
        "",
        table(("class", "AP"), [(name, cell(v)) for name, v in figures.per_class.items()]),
        "",
        f"{figures.num_images} images, {figures.num_detections} detections, "
        f"evaluated by {figures.engine}",
    ]
