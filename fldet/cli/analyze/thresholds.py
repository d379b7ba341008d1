"""``fldet analyze thresholds``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.cli.printed import ThresholdsAnalyzed
from fldet.results import ANALYSES
from fldet.text import cell, table

if TYPE_CHECKING:
    from fldet.analysis.thresholds.result import ThresholdAnalysis

EXAMPLES = """
  fldet analyze thresholds FOLDS_DIR
  fldet analyze thresholds FOLDS_DIR --precision 0.9
  fldet analyze thresholds --detections results.json --annotations annotations/val.json
"""

FOLDS_DIR = typer.Argument(help="Folder of fldet cross-validate.", metavar="FOLDS_DIR")
Detections = Annotated[
    Path | None,
    typer.Option(help="Detections in the COCO results format, in the place of FOLDS_DIR."),
]
Annotations = Annotated[
    Path | None, typer.Option(help="Their annotations in COCO's format, with --detections.")
]


@command
def thresholds(
    folds_dir: Annotated[Path | None, FOLDS_DIR] = None,
    detections: Detections = None,
    annotations: Annotations = None,
    at: Annotated[str, typer.Option(metavar="f1", help="f1: the largest F1 of each class.")] = "f1",
    precision: Annotated[
        float | None,
        typer.Option(help="Instead: the lowest score at which each class has this precision."),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(help="Instead: the highest score at which each class has this recall."),
    ] = None,
    iou: Annotated[
        float, typer.Option(help="IoU from which a detection has found an object.")
    ] = 0.5,
    out_dir: options.OutDir = ANALYSES / "thresholds",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the best lowest score of each class.

    thresholds.json is what fldet predict --thresholds reads. The interval is that of the folds; of
    one set of images, that of samples of it.
    """
    note(f"fldet analyze thresholds {folds_dir or f'{detections} on {annotations}'}")
    from fldet.analysis.thresholds.analyze import analyze_thresholds

    done = analyze_thresholds(
        folds_dir,
        detections=detections,
        annotations=annotations,
        at=at,
        precision=precision,
        recall=recall,
        iou=iou,
        out_dir=out_dir,
    )
    result = done.result
    figures = {name: value for name, value in vars(result).items() if name != "curves"}
    Output("analyze thresholds", as_json=json, quiet=quiet).result(
        ThresholdsAnalyzed(**figures, files=done.files),
        text=lambda: threshold_text(result, done.files),
        essential=done.files[0],
    )


def threshold_text(analysis: "ThresholdAnalysis", files: list[Path]) -> str:
    """Returns the classes as a table, what could not be reached, and the paths of the files."""
    rows: list[tuple[str, ...]] = [
        (
            name,
            *map(cell, (one.score, one.low, one.high, one.precision, one.recall, one.f1)),
            str(one.objects),
        )
        for name, one in analysis.classes.items()
    ]
    header = ("class", "score", "from", "to", "precision", "recall", "F1", "objects")
    held_out = analysis.held_out
    return "\n".join(
        [
            f"{analysis.chosen}; {analysis.source}",
            "",
            table(header, rows),
            f"from, to: {analysis.interval}",
            *_remarks(analysis),
            f"best single score for all classes: {analysis.single:.3f}",
            *(
                [
                    f"mean F1 of held-out folds: {cell(held_out.per_class)} with scores that the "
                    f"others chose so, {cell(held_out.single)} with a single one"
                ]
                if held_out
                else []
            ),
            "",
            *(f"written  {path}" for path in files),
        ]
    )


def _remarks(analysis: "ThresholdAnalysis") -> list[str]:
    """Returns each remark once, with the classes that it is about."""
    classes: dict[str, list[str]] = {}
    for name, one in analysis.classes.items():
        classes.setdefault(one.remark, []).append(name)
    return [f"{', '.join(names)}: {remark}" for remark, names in classes.items() if remark]
