"""``fldet analyze dataset``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note

if TYPE_CHECKING:
    from mmengine.config import Config

    from fldet.analysis.dataset.summary import DatasetSummary

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
    """Say and draw what is in a data set.

    Classes, sizes, shapes and oddities are counted. The images of a config's training split are
    drawn after its augmentation, with blue boxes where an anchor fits and vermilion ones where none
    does; other images as they are in the file.
    """
    note(f"fldet analyze dataset {source}")
    from fldet.analysis.dataset.pictures import contact_sheet, plot
    from fldet.analysis.dataset.summary import summarize_content
    from fldet.config.prepare import dataset_of
    from fldet.data.annotations import read_annotations

    ann_file, image_dir = Path(source), images
    cfg = None
    if not source.endswith(".json"):
        from fldet.config.load import load_config

        cfg = load_config(source, cfg_options or ())
        kind, keywords = dataset_of(cfg, split)
        ann_file, image_dir = kind.annotation_file(keywords), kind.image_folder(keywords)
    content = kind.read(keywords) if cfg else read_annotations(ann_file)
    summary = summarize_content(content, ann_file.name, image_dir)
    pictures = [plot(summary, out_dir / f"{ann_file.stem}.png")]
    sheet = out_dir / f"{ann_file.stem}_images.jpg"
    if cfg and split == "train" and draw_augmented(cfg, sheet):
        pictures.append(sheet)
    elif image_dir:
        pictures.append(contact_sheet(content, image_dir, sheet))
    Output("analyze dataset", as_json=json).result(
        {"summary": summary, "pictures": pictures}, text=lambda: describe(summary, pictures)
    )


def draw_augmented(cfg: "Config", path: Path) -> bool:
    """Draws training images as the network sees them; False if the config has other anchors."""
    from fldet.analysis.dataset.augmented import augmented_images
    from fldet.analysis.dataset.pictures import cover_sheet
    from fldet.errors import ConfigError

    try:
        images, class_names, rule = augmented_images(cfg)
    except ConfigError as error:
        note(f"images are drawn as they are in the file: {error.message}")
        return False
    cover_sheet(images, class_names, rule.pos_iou_thr, path)
    return True


def describe(summary: "DatasetSummary", pictures: list[Path]) -> str:
    """Returns the counts as text, then the paths of the pictures."""
    return "\n".join([str(summary), *(f"picture  {path}" for path in pictures)])
