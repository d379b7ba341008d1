"""``fldet report``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note

if TYPE_CHECKING:
    from fldet.analysis.errors.result import ErrorAnalysis
    from fldet.analysis.log import TrainingLog
    from fldet.analysis.loss_cdf.curves import LossCdf
    from fldet.report.content import Report
    from fldet.report.record import RunRecord

EXAMPLES = """\b
Examples:
  fldet report work_dirs/retinanet_r18_shapes
  fldet report work_dirs/mine --config fldet::retinanet/r50_fpn_1x.py --images 200
  fldet report work_dirs/mine --cfg-options data_root=/data/coco --out mine.html
"""


@command
def report(
    work_dir: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run, with the folder test of fldet test in it.",
            metavar="WORK_DIR",
            show_default=False,
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
        Path | None, typer.Option(help="The page.", show_default="WORK_DIR/report.html")
    ] = None,
    images: Annotated[
        int, typer.Option(min=0, help="Images in the gallery: the worst, and as many at random.")
    ] = 60,
    score_thr: Annotated[
        float,
        typer.Option(min=0.05, max=0.95, help="Lowest score of confusions; the gallery's first."),
    ] = 0.3,
    cfg_options: options.CfgOptions = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write one HTML page of a run: figures, curves, mistakes, and images to filter.

    It needs no server, no network and no other file. What a run lacks is left out, and the page
    says which command would add it.
    """
    note(f"fldet report {work_dir}")
    from fldet.files import write_atomically
    from fldet.report.page import render
    from fldet.report.record import collect

    record = collect(work_dir, base=config, overrides=cfg_options or ())
    content = compile_report(record, work_dir, num_images=images, score_thr=score_thr)
    page = write_atomically(out or work_dir / "report.html", render(content))
    value = {
        "page": page,
        "size_mib": page.stat().st_size / 2**20,
        "images": len(content.pictures),
        "gaps": content.gaps,
    }
    Output("report", as_json=json, quiet=quiet).result(
        value, text=lambda: describe(value), essential=page
    )


def describe(value: Mapping[str, Any]) -> str:
    """Returns what is missing, and the path of the page."""
    size = f"{value['images']} images, {value['size_mib']:.1f} MiB"
    return "\n".join([*value["gaps"], f"page  {value['page']} ({size})"])


def compile_report(
    record: "RunRecord", work_dir: Path, *, num_images: int, score_thr: float
) -> "Report":
    """Returns what is on the page.

    Raises:
        DataError: the folder has neither a training nor a test.
    """
    from fldet.errors import DataError
    from fldet.report.content import Report, take_pictures

    gaps = list(record.gaps)
    log = read_training(work_dir, gaps)
    if log is None and record.result is None:
        raise DataError(
            f"nothing to report in {work_dir}: neither the log of a training nor a test",
            expected="the folder of fldet train, or that of fldet test",
        )
    errors = analyse(record, num_images, score_thr)
    loss_cdf = find_loss_cdf(record, work_dir)
    if loss_cdf is None:
        gaps.append(
            "No loss of easy and hard examples: fldet analyze loss-cdf "
            f"{work_dir / record.config}.py {work_dir} --out-dir {work_dir}"
        )
    pictures, unread = take_pictures(errors) if errors and num_images else ((), ())
    figures = record.result["figures"] if record.result else None
    others = record.result.get("others", {}).values() if record.result else ()
    return Report(
        title=record.name,
        facts=facts_of(record, log),
        compared_with=record.compared_with,
        changes=tuple(
            (one.key, _text(one.a, one.in_a), _text(one.b, one.in_b)) for one in record.changes
        ),
        figures=(figures, *others) if figures else (),
        log=log,
        errors=errors,
        loss_cdf=loss_cdf,
        pictures=pictures,
        gaps=(*gaps, *unread),
    )


def _text(value: Any, there: bool) -> str:
    return repr(value) if there else "-"


def read_training(work_dir: Path, gaps: list[str]) -> "TrainingLog | None":
    """Returns the log of the training, None without one."""
    from fldet.analysis.log import read_log
    from fldet.errors import DataError

    try:
        return read_log(work_dir)
    except DataError as error:
        gaps.append(f"No curves of the training: {error.message}")
        return None


def analyse(record: "RunRecord", num_images: int, score_thr: float) -> "ErrorAnalysis | None":
    """Returns what is wrong with the detections, with the images of the gallery."""
    from fldet.analysis.errors.compute import compute
    from fldet.report.content import LOWEST_SCORE, split_of

    tested = record.tested
    if tested is None:
        return None
    num_images = min(num_images, len(tested.truth.images))
    num_worst, num_random = split_of(num_images)
    return compute(
        tested.truth,
        tested.detections,
        names=(tested.annotation_file.name, tested.detections_file.name),
        score_thr=score_thr,
        num_worst=num_worst,
        num_random=num_random,
        lowest_score=LOWEST_SCORE,
        file_names=tested.file_names,
        image_dir=tested.image_dir.resolve(),
    )


def find_loss_cdf(record: "RunRecord", work_dir: Path) -> "LossCdf | None":
    """Returns the newest curves of this run's config and checkpoints: in its folder or beside."""
    from fldet.analysis.loss_cdf.curves import read_curves

    places = (work_dir, work_dir / "analysis", work_dir.resolve().parent / "analysis")
    files = [file for place in places for file in place.glob("loss_cdf_*.json")]
    for file in sorted(files, key=lambda one: one.stat().st_mtime, reverse=True):
        found = read_curves(file)
        weights = work_dir / found.procedure.checkpoint
        if Path(found.procedure.config).stem == record.config and weights.is_file():
            return found
    return None


def facts_of(record: "RunRecord", log: "TrainingLog | None") -> dict[str, str]:
    """Returns what is worth knowing of a run, by name."""
    from datetime import timedelta

    from fldet.analysis.log import compute

    facts = {"config": record.config} if record.config else {}
    if log:
        summary = compute(log)
        facts["iterations"] = f"{summary.iterations:,}"
        if summary.starts > 1:
            facts["starts"] = str(summary.starts)
        if summary.seconds == summary.seconds:
            facts["time of training"] = str(timedelta(seconds=round(summary.seconds)))
    facts |= record.environment
    if record.result:
        facts["tested checkpoint"] = Path(record.result["checkpoint"]).name
        facts["tested with"] = f"fldet {record.result['version']}, {record.result['precision']}"
        facts["time of the test"] = f"{record.result['seconds']:.1f} s"
    if record.tested:
        tested = record.tested
        facts["data of the test"] = str(tested.annotation_file)
        facts["images"] = f"{len(tested.truth.images):,}"
        facts["objects"] = f"{sum(not one['iscrowd'] for one in tested.truth.annotations):,}"
        facts["classes"] = f"{len(tested.truth.categories):,}"
    return facts
