"""``fldet compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.init import parse_size
from fldet.cli.output import Output, command, loading
from fldet.errors import UsageError
from fldet.text import table

if TYPE_CHECKING:
    from fldet.compare.result import Comparison, Contestant

EXAMPLES = """
  fldet compare FOLDER
  fldet compare FOLDER --minutes 30 --models retinanet ssd
  fldet compare FOLDER my_config.py --iterations 2000 --jobs 2
"""

# Options that take values until one does not fit; see fldet.cli.main.
LISTS = {"--models": str.isidentifier}


@command
def compare(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="A data set for the small models, configs of your own, or both.",
            metavar="DATA|CONFIG",
        ),
    ],
    models: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME ...",
            help="Small models: retinanet, ssd, yolov2, faster_rcnn.",
            show_default="all",
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Budget of each training.", show_default="10")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Budget of each training, in place of minutes.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Image size WxH in pixels.", show_default="the median of the images, at most 320"
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of trainings at a time.")] = 1,
    work_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the runs and the page.", show_default="work_dirs/compare/NAME"
        ),
    ] = None,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a few detectors alike, test and time them, and say which one to take.

    Writes one HTML page: AP, milliseconds, memory, AP over the time of training, the envelope.
    Started again, it goes on; contestants may be added. One that fails is named on the page and the
    others go on; the exit code is 1 then.
    """
    if minutes is not None and iterations is not None:
        raise UsageError("both --minutes and --iterations", expected="one of them")
    with loading(f"compare {' '.join(sources)}"):
        from fldet.cli.paper.view import View
        from fldet.compare import MINUTES, MODELS, Settings
        from fldet.compare import compare as run

    data, configs = split_sources(sources)
    settings = Settings(
        data,
        models=tuple(models or MODELS),
        configs=configs,
        minutes=MINUTES if minutes is None else minutes,
        iterations=iterations,
        size=parse_size(size),
        device=device,
    )
    name = data.resolve().name if data else "configs"
    with View(jobs, None if iterations else settings.minutes) as view:
        done = run(
            settings, work_dir or Path("work_dirs/compare", name), jobs=jobs, watch=view.show
        )
    Output("compare", as_json=json, quiet=quiet).result(
        done.result, text=lambda: comparison_text(done.result, done.page), essential=done.page
    )
    if any(one.state == "failed" for one in done.result.contestants):
        raise typer.Exit(1)


def split_sources(sources: list[str]) -> tuple[Path | None, tuple[str, ...]]:
    """Returns the data set among arguments, if there is one, and the configs."""
    configs = tuple(one for one in sources if one.endswith(".py") or "::" in one)
    others = [one for one in sources if one not in configs]
    if len(others) > 1:
        raise UsageError(
            f"{len(others)} data sets: {', '.join(others)}",
            expected="one, and configs that end in .py",
        )
    return (Path(others[0]) if others else None), configs


def comparison_text(result: "Comparison", page: Path) -> str:
    """Returns the figures as a table, what to take, and the path of the page."""
    header = ("detector", "AP", "AP50", "ms", "MiB", "iterations", "minutes")
    rows = [_row(one) for one in result.contestants]
    failed = [
        f"{one.title} {one.state}: {one.reason}"
        for one in result.contestants
        if one.state != "done"
    ]
    return "\n".join([table(header, rows), *failed, *result.advice, f"page  {page}"])


def _row(one: "Contestant") -> tuple[str, ...]:
    values = (one.ap, one.ap50, one.ms, one.memory_mib)
    figures = ["-" if value != value else f"{value:.1f}" for value in values]
    return (one.title, *figures, str(one.iterations), f"{one.minutes:.1f}".replace("nan", "-"))
