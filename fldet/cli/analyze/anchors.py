"""``fldet analyze anchors``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.cli.printed import AnchorsAnalyzed
from fldet.errors import UsageError
from fldet.progress import with_progress
from fldet.results import ANALYSES

EXAMPLES = """
  fldet analyze anchors configs/retinanet/r50_fpn_1x.py --cfg-options data_root=FOLDER
  fldet analyze anchors configs/retinanet/r50_fpn_1x.py --max-images 2000 --json
  fldet analyze anchors --from work_dirs/analysis/r50_fpn_1x_train_anchors.npz
"""


@command
def anchors(
    config: options.OptionalConfig = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    max_images: Annotated[
        int | None, typer.Option(min=1, help="Number of random images to look at, instead of all.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed for the choice of images and for random sizes.")
    ] = 0,
    cfg_options: options.CfgOptions = None,
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Boxes that an earlier call saved, in place of CONFIG.", metavar="FILE"
        ),
    ] = None,
    out_dir: options.OutDir = ANALYSES,
    json: options.Json = False,
) -> None:
    """Say and draw how well anchors cover the boxes.

    Each box counts by its best overlap with an anchor of the config. Anchors that would cover more
    are printed as lines to paste into a config.
    """
    note(f"fldet analyze anchors {from_file or config}")
    from fldet.analysis.anchors import analyze_anchors, redraw_anchors
    from fldet.config.load import load_config

    if from_file and config:
        raise UsageError(
            f"both a config ({config}) and --from {from_file} are given", expected="one of them"
        )
    if from_file:
        done = redraw_anchors(from_file, out_dir=out_dir, track=_with_bar)
    elif config:
        done = analyze_anchors(
            load_config(config, cfg_options or ()),
            split=split,
            max_images=max_images,
            seed=seed,
            out_dir=out_dir,
            track=_with_bar,
        )
    else:
        raise UsageError(
            "no config is given",
            expected="CONFIG or --from FILE",
            hint="fldet analyze anchors configs/retinanet/r50_fpn_1x.py",
        )
    Output("analyze anchors", as_json=json).result(
        AnchorsAnalyzed(done.result, done.files),
        text=lambda: "\n".join([str(done.result), *(f"file  {path}" for path in done.files)]),
    )


def _with_bar(items: Sequence[Any], words: str) -> Iterator[Any]:
    return with_progress(items, words, len(items))
