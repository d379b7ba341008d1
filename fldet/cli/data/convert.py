"""``fldet data convert``."""

from pathlib import Path
from typing import Annotated

import typer

from fldet.cli import options
from fldet.cli.data.inspect import Columns, Data, Images
from fldet.cli.output import Output, command, note

EXAMPLES = """
  fldet data convert VOCdevkit/VOC2007 train.json --split train
  fldet data convert FOLDER/data.yaml val.json --split val
  fldet data convert boxes.csv all.json --columns 'image=photo label=kind'
"""


@command
def convert(
    path: Data,
    out: Annotated[Path, typer.Argument(help="The file to write.", metavar="OUT.json")],
    split: Annotated[str | None, typer.Option(help="train, val or test.")] = None,
    images: Images = None,
    columns: Columns = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a split of a data set as a COCO annotation file."""
    note(f"fldet data convert {path}")
    from fldet.files import require_data

    require_data(path)
    import fldet.engine  # noqa: F401  first, as above
    from fldet.data.convert import convert as run

    done = run(path, out, split, images, columns)
    Output("data convert", as_json=json, quiet=quiet).result(
        done,
        text=f"{done.path}: {done.images} images, {done.boxes} boxes"
        f"{f', {done.left_out} unusable ones left out' if done.left_out else ''}\n"
        f"file names are relative to {done.image_folder}",
        essential=done.path,
    )
