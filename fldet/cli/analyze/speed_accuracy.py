"""``fldet analyze speed-accuracy``."""

from pathlib import Path
from typing import Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.cli.printed import SpeedAccuracyAnalyzed
from fldet.errors import UsageError
from fldet.results import ANALYSES

EXAMPLES = """
  fldet analyze speed-accuracy
  fldet test CONFIG CHECKPOINT --json > test.json
  fldet benchmark CONFIG CHECKPOINT --json > benchmark.json
  fldet analyze speed-accuracy --point mine=test.json,benchmark.json
  fldet analyze speed-accuracy --points work_dirs/paper/laptop
"""


@command
def speed_accuracy(
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TEST.json,BENCHMARK.json",
            help="A measured model: what fldet test --json and fldet benchmark --json printed; "
            "repeat it for more.",
        ),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="All runs of a tier of fldet paper run that were tested and timed, means over the "
            "seeds.",
        ),
    ] = None,
    out_dir: options.OutDir = ANALYSES,
    json: options.Json = False,
) -> None:
    """Draw Figure 2: accuracy against time.

    The paper's models, and measured ones beside them.
    """
    note("fldet analyze speed-accuracy")
    from fldet.analysis.speed_accuracy import analyze_speed_accuracy, points_in

    measured = [parse_point(text) for text in point or ()]
    measured += points_in(points) if points else []
    done = analyze_speed_accuracy(measured, out_dir=out_dir)
    Output("analyze speed-accuracy", as_json=json).result(
        SpeedAccuracyAnalyzed(done.result, done.files),
        text=lambda: "\n".join([str(done.result), "", *(f"picture  {one}" for one in done.files)]),
    )


def parse_point(text: str) -> tuple[str, Path, Path]:
    """Returns name and the two files of a text like ``mine=test.json,benchmark.json``."""
    name, _, files = text.partition("=")
    paths = files.split(",")
    if not name or len(paths) != 2 or not all(paths):
        raise UsageError(f"--point {text!r}", expected="NAME=TEST.json,BENCHMARK.json")
    return name, Path(paths[0]), Path(paths[1])
