"""``fldet report``."""

from pathlib import Path
from typing import Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.cli.printed import ReportPage

EXAMPLES = """
  fldet report work_dirs/retinanet_r18_shapes
  fldet report work_dirs/mine --config fldet::retinanet/r50_fpn_1x.py --images 200
  fldet report work_dirs/mine --cfg-options data_root=/data/coco --out mine.html
"""


@command
def report(
    work_dir: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run, with the folder test of fldet test in it.", metavar="WORK_DIR"
        ),
    ],
    config: Annotated[
        str | None,
        typer.Option(
            help="Config that the run's is compared with.",
            show_default="fldet's own of the same name",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write the page to.", show_default="WORK_DIR/report.html"),
    ] = None,
    images: Annotated[
        int,
        typer.Option(
            min=0, help="Number of images in the gallery, half of them the worst, half random."
        ),
    ] = 60,
    score_thr: Annotated[
        float,
        typer.Option(
            min=0.05,
            max=0.95,
            help="Lowest score in the confusion matrix, and the gallery's initial threshold.",
        ),
    ] = 0.3,
    thresholds: Annotated[
        Path | None,
        typer.Option(
            help="Thresholds of the classes to show, a file of fldet analyze thresholds.",
            show_default="thresholds.json in WORK_DIR or WORK_DIR/thresholds, if there is one",
        ),
    ] = None,
    cfg_options: options.CfgOptions = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write one HTML page of a run: figures, curves, mistakes, and images to filter.

    It needs no server, no network and no other file. What a run lacks is left out, and the page
    says which command would add it.
    """
    note(f"fldet report {work_dir}")
    from fldet.files import require_work_dir

    require_work_dir(work_dir)
    from fldet.report import write_report

    done = write_report(
        work_dir,
        config=config,
        out=out,
        images=images,
        score_thr=score_thr,
        thresholds=thresholds,
        overrides=cfg_options or (),
    )
    value = ReportPage(
        page=done.page,
        size_mib=done.page.stat().st_size / 2**20,
        images=len(done.content.pictures),
        gaps=done.content.gaps,
    )
    Output("report", as_json=json, quiet=quiet).result(
        value, text=lambda: page_text(value), essential=done.page
    )


def page_text(value: ReportPage) -> str:
    """Returns what is missing, and the path of the page."""
    size = f"{value.images} images, {value.size_mib:.1f} MiB"
    return "\n".join([*value.gaps, f"page  {value.page} ({size})"])
