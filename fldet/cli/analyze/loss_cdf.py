"""``fldet analyze loss-cdf``."""

from pathlib import Path
from typing import Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.cli.printed import LossCdfAnalyzed
from fldet.errors import UsageError
from fldet.results import ANALYSES

EXAMPLES = """
  fldet analyze loss-cdf configs/paper/table1e/r101_600px.py work_dirs/r101_600px
  fldet analyze loss-cdf CONFIG CHECKPOINT --max-images 1000 --gammas 0 --gammas 2
  fldet analyze loss-cdf --from work_dirs/analysis/loss_cdf_r101_600px_val.npz
"""


@command
def loss_cdf(
    config: options.OptionalConfig = None,
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Weights (.pth), or a work dir.", metavar="CHECKPOINT")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    gammas: Annotated[
        list[float] | None,
        typer.Option(
            min=0.0, metavar="GAMMA", help="A curve for each; repeat it.  [default: 0, 0.5, 1, 2]"
        ),
    ] = None,
    num_negatives: Annotated[int, typer.Option(min=1, help="Negatives to sample.")] = 10_000_000,
    num_positives: Annotated[int, typer.Option(min=1, help="Positives to sample.")] = 100_000,
    max_images: Annotated[int | None, typer.Option(min=1, help="Only N images, at random.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed for the choice of images and samples.")
    ] = 0,
    window: Annotated[
        str,
        typer.Option(
            help="A negative: anchor-class, a background anchor with any class; or anchor, with "
            "its highest-scoring class only."
        ),
    ] = "anchor-class",
    from_file: Annotated[
        Path | None, typer.Option("--from", help="Redraw this sample, without a model.")
    ] = None,
    out_dir: Annotated[Path, typer.Option(help="Folder to write to.")] = ANALYSES,
    cfg_options: options.CfgOptions = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Draw Figure 4: loss of easy and hard examples.

    It shows how gamma spreads the loss of a trained model over them.
    """
    note("fldet analyze loss-cdf")
    from fldet.analysis.loss_cdf.analyze import analyze_loss_cdf, redraw_loss_cdf
    from fldet.analysis.loss_cdf.curves import GAMMAS
    from fldet.analysis.loss_cdf.logits import SampleOptions
    from fldet.config.load import load_config

    if from_file is None:
        done = analyze_loss_cdf(
            load_config(_required(config, "CONFIG"), cfg_options or ()),
            Path(_required(checkpoint, "CHECKPOINT")),
            SampleOptions(split, window, num_negatives, num_positives, max_images, seed),
            gammas=gammas or GAMMAS,
            out_dir=out_dir,
            device=device,
        )
    else:
        if config is not None:
            raise UsageError(
                f"both CONFIG {config} and --from {from_file}",
                expected="one of them: --from redraws what is in the file",
            )
        done = redraw_loss_cdf(from_file, gammas=gammas or GAMMAS, out_dir=out_dir)
    curves, files = done.result, done.files
    Output("analyze loss-cdf", as_json=json).result(
        LossCdfAnalyzed(curves.shares(), curves.procedure, files),
        text=lambda: "\n".join(
            [str(curves), "", *(f"{path.suffix[1:]:4}  {path}" for path in files)]
        ),
    )


def _required(value: "str | Path | None", name: str) -> str:
    if value is None:
        raise UsageError(f"no {name}", expected="CONFIG and CHECKPOINT, or --from FILE.npz")
    return str(value)
