"""``fldet analyze dataset``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note

if TYPE_CHECKING:
    from fldet.analysis.dataset import DatasetSummary

EXAMPLES = """\b
Examples:
  fldet analyze dataset configs/retinanet/r50_fpn_1x.py --cfg-options data_root=FOLDER
  fldet analyze dataset annotations/train.json --images images/
  fldet analyze dataset configs/shapes/retinanet_r18_shapes.py --split val --json
"""


@command
def dataset(
    source: Annotated[
        str,
        typer.Argument(
            help="Config, or annotation file in COCO format.",
            metavar="CONFIG|ANNOTATION",
            show_default=False,
        ),
    ],
    split: Annotated[str, typer.Option(help="train, val or test; of a config.")] = "train",
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the images; of an annotation file.", show_default=False),
    ] = None,
    out_dir: Annotated[Path, typer.Option(help="Where to draw.")] = Path("work_dirs/analysis"),
    cfg_options: options.CfgOptions = None,
    json: options.Json = False,
) -> None:
    """Say and draw what is in a data set: classes, sizes, shapes, oddities."""
    note(f"fldet analyze dataset {source}")
    from fldet.analysis.dataset import compute
    from fldet.analysis.dataset_pictures import contact_sheet, plot
    from fldet.engine.prepare import annotation_and_images

    ann_file, image_dir = Path(source), images
    if not source.endswith(".json"):
        from fldet.config import load_config

        ann_file, image_dir = annotation_and_images(load_config(source, cfg_options or ()), split)
    summary = compute(ann_file, image_dir)
    pictures = [plot(summary, out_dir / f"{ann_file.stem}.png")]
    if image_dir:
        pictures.append(contact_sheet(ann_file, image_dir, out_dir / f"{ann_file.stem}_images.jpg"))
    Output("analyze dataset", as_json=json).result(
        {"summary": summary, "pictures": pictures}, text=lambda: describe(summary, pictures)
    )


def describe(summary: "DatasetSummary", pictures: list[Path]) -> str:
    """Returns the counts as text, then the paths of the pictures."""
    return "\n".join([str(summary), *(f"picture  {path}" for path in pictures)])
