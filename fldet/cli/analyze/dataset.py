"""``fldet analyze dataset``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.cli.printed import DatasetAnalyzed
from fldet.results import ANALYSES

if TYPE_CHECKING:
    from mmengine.config import Config

EXAMPLES = """
  fldet analyze dataset configs/retinanet/r50_fpn_1x.py --cfg-options data_root=FOLDER
  fldet analyze dataset annotations/train.json --images images/
  fldet analyze dataset configs/shapes/retinanet_r18_shapes.py --split val --json
"""

SOURCE = typer.Argument(
    help="Config, or annotation file in COCO format.", metavar="CONFIG|ANNOTATION"
)
Split = Annotated[str, typer.Option(help="train, val or test; of a config.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the images; of an annotation file.")]


@command
def dataset(
    source: Annotated[str, SOURCE],
    split: Split = "train",
    images: Images = None,
    out_dir: options.OutDir = ANALYSES,
    cfg_options: options.CfgOptions = None,
    json: options.Json = False,
) -> None:
    """Say and draw what is in a data set.

    Classes, sizes, shapes and oddities are counted. The images of a config's training split are
    drawn after its augmentation, with blue boxes where an anchor fits and orange-red ones where
    none does; other images as they are in the file.
    """
    note(f"fldet analyze dataset {source}")
    from fldet.analysis.dataset.analyze import analyze_dataset

    done = analyze_dataset(
        config_or_annotation(source, cfg_options or ()), split=split, images=images, out_dir=out_dir
    )
    Output("analyze dataset", as_json=json).result(
        DatasetAnalyzed(done.result, done.files),
        text=lambda: "\n".join([str(done.result), *(f"picture  {path}" for path in done.files)]),
    )


def config_or_annotation(source: str, overrides: Sequence[str]) -> "Config | Path":
    """Returns the path of an annotation file in COCO format, or else a config, loaded."""
    if source.endswith(".json"):
        return Path(source)
    from fldet.config.load import load_config

    return load_config(source, overrides)
