"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from fldet.errors import UsageError

CONFIG = typer.Argument(
    help="Config file, or the work dir of a training for the one in it.", metavar="CONFIG"
)
Config = Annotated[str, CONFIG]
OptionalConfig = Annotated[str | None, CONFIG]
Checkpoint = Annotated[
    Path,
    typer.Argument(
        help="Weights (.pth), a work dir (its best checkpoint, else its newest), or a folder of "
        "fldet package.",
        metavar="CHECKPOINT",
    ),
]
ConfigOfCheckpoint = Annotated[
    str | None, typer.Option(help="Config, for a checkpoint that carries none.")
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="onnxruntime|openvino",
        help="What runs an ONNX file on the CPU.",
        show_default="onnxruntime",
    ),
]
CfgOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--cfg-options",
        metavar="KEY=VALUE ...",
        help="Override values of the config, by dotted keys that exist in it; +KEY=VALUE adds one. "
        "A Python literal is that literal, a,b is a list, anything else the text as given.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Launcher = Annotated[
    str,
    typer.Option(
        help="Who started this process: none, pytorch (torchrun), slurm (srun) or mpi; auto "
        "notices torchrun alone."
    ),
]
Gpus = Annotated[
    int,
    typer.Option(min=1, help="Start this many processes here, one on each GPU (or on the CPU)."),
]
MaxRestarts = Annotated[
    int, typer.Option(min=0, help="With --gpus: so often go on by itself after a process has died.")
]
TrustCheckpoint = Annotated[
    bool,
    typer.Option(
        "--trust-checkpoint",
        help="Allow a file to run code: a checkpoint that cannot be read otherwise, a "
        "TorchScript model.",
    ),
]
Executor = Annotated[str, typer.Option(metavar="local|slurm", help="Where the runs are done.")]
ClusterOptions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE ...",
        help="Parameters of submitit: slurm_partition, gpus_per_node, timeout_min.",
    ),
]
Slice = Annotated[
    int | None,
    typer.Option(
        "--slice",
        metavar="SIZE",
        help="Cut pictures into overlapping slices of so many pixels, and merge what is found.",
    ),
]
Overlap = Annotated[
    float, typer.Option(help="Share of a slice that neighbours have in common, at least.")
]
Whole = Annotated[
    bool,
    typer.Option("--whole", help="Look at the whole picture too, for what no slice holds."),
]
Tta = Annotated[
    list[str] | None,
    typer.Option(
        "--tta",
        metavar="flip|SCALE",
        help="Look at everything again, mirrored or in another size (1.25), and merge what is "
        "found; may be repeated.",
    ),
]
AgnosticNms = Annotated[
    bool,
    typer.Option(
        "--agnostic-nms",
        help="Suppress boxes across classes: of boxes on one object the best stays, whatever "
        "their classes.",
    ),
]
HideLabels = Annotated[
    bool,
    typer.Option("--hide-labels", help="Draw no class names; colours still tell classes apart."),
]
HideScores = Annotated[bool, typer.Option("--hide-scores", help="Draw no scores.")]
LineWidth = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100,
        help="Width of the lines of boxes, in pixels.",
        show_default="suits the picture and the box",
    ),
]
OutDir = Annotated[Path, typer.Option(help="Folder for the pictures.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print one essential value.")]


def parse_shape(text: str) -> tuple[int, int]:
    """Returns (height, width) of a text like ``800x1333``."""
    from fldet.numeric import is_whole

    height, _, width = text.partition("x")
    if not (is_whole(height) and is_whole(width) and int(height) and int(width)):
        raise UsageError(f"--shape {text!r} is not a size", expected="HEIGHTxWIDTH, as in 800x1333")
    return int(height), int(width)
