"""``fldet analyze anchors``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.text import terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fldet.anchors.cover import BoxSet

EXAMPLES = """\b
Examples:
  fldet analyze anchors configs/retinanet/r50_fpn_1x.py --cfg-options data_root=FOLDER
  fldet analyze anchors configs/retinanet/r50_fpn_1x.py --max-images 2000 --json
  fldet analyze anchors --from work_dirs/analysis/r50_fpn_1x_train_anchors.npz
"""


@command
def anchors(
    config: Annotated[
        str | None, typer.Argument(help="Config file.", metavar="CONFIG", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    max_images: Annotated[
        int | None,
        typer.Option(min=1, help="Look at so many random images, not all.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the images and of random sizes.")] = 0,
    cfg_options: options.CfgOptions = None,
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Boxes that an earlier call saved, in place of CONFIG.", metavar="FILE"
        ),
    ] = None,
    out_dir: Annotated[Path, typer.Option(help="Where to draw.")] = Path("work_dirs/analysis"),
    json: options.Json = False,
) -> None:
    """Say and draw how well anchors cover the boxes.

    Each box counts by its best overlap with an anchor of the config. Anchors that would cover more
    are printed as lines to paste into a config.
    """
    note(f"fldet analyze anchors {from_file or config}")
    from fldet.anchors.pictures import plot
    from fldet.anchors.report import compute

    files = []
    if from_file:
        boxes = _load(from_file, config)
        stem = from_file.stem
    else:
        boxes = _collect(config, split, max_images, seed, cfg_options or ())
        stem = f"{boxes.about['config']}_{split}_anchors"
        files.append(boxes.save(out_dir / f"{stem}.npz"))
    report = compute(boxes, track=lambda trials: _track(trials, "anchors tried"))
    files += plot(report, out_dir / f"{stem}.png")
    Output("analyze anchors", as_json=json).result(
        {"report": report, "files": files},
        text=lambda: "\n".join([str(report), *(f"file  {path}" for path in files)]),
    )


def _load(path: Path, config: str | None) -> "BoxSet":
    from fldet.anchors.cover import BoxSet
    from fldet.errors import UsageError

    if config:
        raise UsageError(
            f"both a config ({config}) and --from {path} are given", expected="one of them"
        )
    return BoxSet.load(path)


def _collect(
    config: str | None,
    split: str,
    max_images: int | None,
    seed: int,
    cfg_options: "Sequence[str]",
) -> "BoxSet":
    from fldet.errors import UsageError

    if config is None:
        raise UsageError(
            "no config is given",
            expected="CONFIG or --from FILE",
            hint="fldet analyze anchors configs/retinanet/r50_fpn_1x.py",
        )
    from fldet.anchors.boxes import collect_boxes
    from fldet.config.load import load_config

    return collect_boxes(
        load_config(config, cfg_options),
        split,
        max_images=max_images,
        seed=seed,
        track=lambda images: _track(images, "images"),
    )


def _track(items: "Sequence[Any]", words: str) -> "Iterable[Any]":
    """Returns the items behind a progress bar on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(file=terminal())
    return track(items, words, console=console, disable=not console.is_terminal, transient=True)
