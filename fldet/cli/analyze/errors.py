"""``fldet analyze errors``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.analyze.dataset import SOURCE, Images, Split, config_or_annotation
from fldet.cli.output import Output, command, note
from fldet.cli.printed import ErrorsAnalyzed, WorstImage
from fldet.errors import UsageError
from fldet.results import ANALYSES
from fldet.text import cell, table

if TYPE_CHECKING:
    from fldet.analysis.errors.result import ErrorAnalysis

EXAMPLES = """
  fldet test CONFIG CHECKPOINT --out results.json
  fldet analyze errors CONFIG results.json
  fldet analyze errors annotations/val.json results.json --images images/ --worst 20
  fldet analyze errors --from work_dirs/analysis/errors/errors.json --out-dir again
"""


@command
def errors(
    source: Annotated[str | None, SOURCE] = None,
    results: Annotated[
        Path | None,
        typer.Argument(
            help="Detections in the COCO results format, as fldet test --out writes them.",
            metavar="RESULTS",
        ),
    ] = None,
    split: Split = "val",
    images: Images = None,
    out_dir: options.OutDir = ANALYSES / "errors",
    worst: Annotated[
        int, typer.Option(min=0, help="Draw the N images that cost the most AP.")
    ] = 10,
    score_thr: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Lowest score in confusion matrix and pictures.")
    ] = 0.3,
    from_file: Annotated[
        Path | None, typer.Option("--from", help="Draw again from this errors.json, nothing else.")
    ] = None,
    cfg_options: options.CfgOptions = None,
    json: options.Json = False,
) -> None:
    """Say and draw which mistakes cost how much AP.

    The kinds of mistakes are those of TIDE, their cost is in AP50. Confusions of classes,
    precision, recall and calibration are drawn too.
    """
    from fldet.analysis.errors.analyze import analyze_errors, redraw_errors

    if from_file and source is None:
        note(f"fldet analyze errors --from {from_file}")
        done = redraw_errors(from_file, images=images, out_dir=out_dir)
    elif source and results and not from_file:
        note(f"fldet analyze errors {source} {results}")
        done = analyze_errors(
            config_or_annotation(source, cfg_options or ()),
            results,
            split=split,
            images=images,
            out_dir=out_dir,
            worst=worst,
            score_thr=score_thr,
        )
    else:
        raise UsageError(
            "either CONFIG|ANNOTATION and RESULTS, or --from FILE",
            hint="fldet test CONFIG CHECKPOINT --out results.json writes RESULTS",
        )
    Output("analyze errors", as_json=json).result(
        figures_of(done.result, done.files),
        text=lambda: error_text(done.result, done.files),
    )


def figures_of(analysis: "ErrorAnalysis", files: list[Path]) -> ErrorsAnalyzed:
    """Returns the figures; curves, matrix and boxes are in the file errors.json."""
    from fldet.analysis.errors.result import ap50_of

    return ErrorsAnalyzed(
        ap50=analysis.ap50,
        ap50_per_area={area: ap50_of(curves) for area, curves in analysis.curves.items()},
        images=analysis.images,
        objects=analysis.objects,
        detections=analysis.detections,
        score_thr=analysis.score_thr,
        kinds=analysis.kinds,
        expected_calibration_error=analysis.calibration.expected_error,
        worst_images=[WorstImage(one.image_id, one.file_name, one.cost) for one in analysis.worst],
        files=files,
    )


def error_text(analysis: "ErrorAnalysis", files: list[Path]) -> str:
    """Returns the kinds as a table, then the paths of the files."""
    rows: list[tuple[str, ...]] = [
        (name, str(kind.count), str(kind.confident), cell(kind.ap50_gain))
        for name, kind in analysis.kinds.items()
    ]
    header = ("kind", "mistakes", f"score >= {analysis.score_thr:g}", "AP50 gained")
    return "\n".join(
        [
            f"AP50 {cell(analysis.ap50)}: {analysis.images} images, {analysis.objects} objects, "
            f"{analysis.detections} detections",
            "",
            table(header, rows),
            "AP50 gained: if this kind alone were repaired; the gains do not add up",
            "",
            f"expected calibration error {cell(analysis.calibration.expected_error)}",
            *(f"written  {path}" for path in files),
        ]
    )
