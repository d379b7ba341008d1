"""``fldet analyze labels``."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.analyze.thresholds import FOLDS_DIR, Annotations, Detections
from fldet.cli.output import Output, command, note
from fldet.cli.printed import LabelsAnalyzed
from fldet.results import ANALYSES
from fldet.text import table

if TYPE_CHECKING:
    from fldet.analysis.labels.result import LabelAnalysis

EXAMPLES = """
  fldet analyze labels FOLDS_DIR
  fldet analyze labels FOLDS_DIR --most 500 --out-dir look_at
  fldet analyze labels --detections results.json --annotations annotations/val.json --images images/
"""

_WORST_IMAGES = 10  # in the printed text
_LIKELY = 0.5  # score of the findings that are counted as likely


@command
def labels(
    folds_dir: Annotated[Path | None, FOLDS_DIR] = None,
    detections: Detections = None,
    annotations: Annotations = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, with --annotations.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Show the N likeliest on the page.")] = 200,
    out_dir: Annotated[Path, typer.Option(help="Folder for the files.")] = ANALYSES / "labels",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Rank annotations that are probably wrong.

    Missing, spurious, moved, wrongly named and doubled boxes are found by models that did not see
    the picture in training. Files for labelling tools are written too.
    """
    note(f"fldet analyze labels {folds_dir or f'{detections} on {annotations}'}")
    from fldet.analysis.labels.analyze import analyze_labels

    done = analyze_labels(
        folds_dir,
        detections=detections,
        annotations=annotations,
        images=images,
        most=most,
        out_dir=out_dir,
    )
    result = done.result
    value = LabelsAnalyzed(
        source=result.source,
        annotations=result.annotations,
        findings=len(result.findings),
        likely=Counter(one.kind for one in result.findings if one.score >= _LIKELY),
        worst_images=result.images[:_WORST_IMAGES],
        files=done.files,
    )
    Output("analyze labels", as_json=json, quiet=quiet).result(
        value, text=lambda: label_text(result, done.files), essential=done.files[1]
    )


def label_text(analysis: "LabelAnalysis", files: list[Path]) -> str:
    """Returns the counts of each kind, the worst images, and the paths of the files."""
    from fldet.analysis.labels.result import IN_WORDS

    every = Counter(one.kind for one in analysis.findings)
    likely = Counter(one.kind for one in analysis.findings if one.score >= _LIKELY)
    rows: list[tuple[str, ...]] = [(kind, str(likely[kind]), str(every[kind])) for kind in IN_WORDS]
    worst: list[tuple[str, ...]] = [
        (Path(one.file).name or str(one.image_id), f"{one.score:.3f}", str(one.findings))
        for one in analysis.images[:_WORST_IMAGES]
    ]
    return "\n".join(
        [
            f"{analysis.source}: {analysis.annotations} boxes, {len(analysis.images)} images",
            "",
            table(("kind", f"score >= {_LIKELY:g}", "all"), rows),
            *(f"{kind}: {words}" for kind, words in IN_WORDS.items()),
            "",
            table(("image", "score", "findings"), worst),
            "",
            *(f"written  {path}" for path in files),
        ]
    )
