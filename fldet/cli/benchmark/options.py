"""Options that the commands of ``fldet benchmark`` share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.errors import UsageError

if TYPE_CHECKING:
    from fldet.benchmark.predict import OptimizedCopy

Shape = Annotated[
    str | None,
    typer.Option(
        metavar="HEIGHTxWIDTH", help="Time random images of this size instead of those of the data."
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="fp32|bf16", help="Time a faster copy, batch norms folded, in this precision."
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Time a faster copy under torch.compile, which takes tens of seconds before the "
        "clock starts, for each size of image.",
    ),
]
Against = Annotated[
    str | None,
    typer.Option(metavar="mmdet", help="Time MMDetection's own code in float32 too, in turns."),
]
Out = Annotated[Path | None, typer.Option(help="New JSON file.")]
OutDir = Annotated[
    Path | None, typer.Option(help="Folder for pictures, with the JSON beside them.")
]


def copy_to_time(precision: str | None, compile: bool, cuda_graph: bool) -> "OptimizedCopy | None":
    """Returns the copy that options ask for, None if they are left out."""
    from fldet.benchmark.predict import OptimizedCopy

    if not (precision or compile or cuda_graph):
        return None
    return OptimizedCopy(precision or "fp32", compile, cuda_graph)


def require_new(out: Path | None) -> None:
    """Checks that a file does not exist yet: times may have taken hours."""
    if out is not None and out.exists():
        raise UsageError(f"{out} exists already", expected="a new file", hint="--out another.json")
