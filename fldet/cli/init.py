"""``fldet init``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.data.inspect import Columns, Data, Images
from fldet.cli.output import Output, command, note
from fldet.errors import UsageError

if TYPE_CHECKING:
    from fldet.analysis.init import InitResult

EXAMPLES = """
  fldet init FOLDER --out my_config.py
  fldet init FOLDER --out my_config.py --model small   # from nothing, needs no weights
  fldet init VOCdevkit/VOC2007 --out voc.py --model r50 --size 800x600
  fldet init FOLDER --out my_config.py --val 0.3       # of data without a validation split
  fldet init FOLDER/annotations/train.json --images PICTURES --out my_config.py
  fldet init FOLDER --out my_config.py --finetune work_dirs/other/best_coco_AP_iter_9000.pth
"""


@command
def init(
    path: Data,
    out: Annotated[Path, typer.Option(help="The config to write.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="r18|r50|lite|small",
            help="For a CPU: lite, with ImageNet weights, or small, from nothing.",
            show_default="lite, with a GPU r18",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Image size WxH in pixels; by default the median, at most 1333x800 (small: 320; "
            "lite: the longer side is 512)."
        ),
    ] = None,
    images: Images = None,
    columns: Columns = None,
    finetune: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Start from this trained detector, with the schedule for that.",
        ),
    ] = None,
    val: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the training images to validate on, of data without a split for that; "
            "0: none.",
            show_default="0.2",
        ),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a config for a data set of your own, ready for fldet train."""
    note(f"fldet init {path}: loading MMDetection, reading the data")
    from fldet.files import require_data

    require_data(path)
    from fldet.analysis.init import init_config
    from fldet.analysis.init_models import RECIPES
    from fldet.devices import select_device

    sides = parse_size(size)
    result = init_config(
        path,
        out,
        model=model,
        size=sides,
        images=images,
        finetune=finetune,
        val=val,
        columns=columns,
    )
    Output("init", as_json=json, quiet=quiet).result(
        result, text=lambda: init_text(result), essential=result.path
    )
    if not RECIPES[result.model].for_cpus and select_device("auto").type == "cpu":
        note("there is no GPU here: with --model lite a training takes minutes, not hours")


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Returns the longer and the shorter side of ``WxH``."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UsageError(f"--size {text!r} is not WxH", expected="for example 640x480")
    short, long = sorted(map(int, sides))
    return long, short


def _validation_text(result: "InitResult") -> str:
    if result.set_aside is None:
        return f"{result.validation} images" if result.validation else "none: no AP"
    total = result.images + result.validation
    return (
        f"{result.validation} of {total} training images, set aside; near copies stay together "
        f"({result.groups} groups); listed in {result.set_aside}"
    )


def init_text(result: "InitResult") -> str:
    """Returns what was chosen, and the next commands."""
    long, short = result.scale
    lines = {
        "config": str(result.path),
        "data": f"{result.format}, {result.images} training images, "
        f"{len(result.classes)} classes, in {result.root}",
        "validation": _validation_text(result),
        "image size": f"{long} x {short}",
        "schedule": f"{result.max_iters} iterations of {result.batch_size} images",
        "anchors": "the model's own",
        "next": f"fldet train {result.path}",
    }
    if result.anchors is not None and result.anchors_before is not None:
        lines["anchors"] = (
            f"fitted: {100 * result.anchors:.1f} % of the boxes covered, "
            f"the model's own {100 * result.anchors_before:.1f} %"
        )
    return "\n".join(f"{key:12}{text}" for key, text in lines.items())
