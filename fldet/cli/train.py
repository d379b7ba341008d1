"""``fldet train``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note

if TYPE_CHECKING:
    from fldet.results import TrainResult

EXAMPLES = """\b
Examples:
  fldet train configs/shapes/retinanet_r18_shapes.py
  fldet train configs/retinanet/r50_fpn_1x.py --gpus 8
  fldet train configs/retinanet/r50_fpn_1x.py --cfg-options data_root=/data/coco --resume
"""


@command
def train(
    config: options.Config,
    work_dir: options.WorkDir = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of the work dir.")
    ] = False,
    cfg_options: options.CfgOptions = None,
    seed: Annotated[
        int | None, typer.Option(help="Of all random numbers.", show_default="the config's")
    ] = None,
    device: options.Device = "auto",
    amp: Annotated[bool, typer.Option("--amp", help="Forward pass in bfloat16.")] = False,
    launcher: options.Launcher = "none",
    gpus: options.Gpus = 1,
    auto_scale_lr: Annotated[
        bool | None,
        typer.Option(
            help="Whether the learning rate follows the images per step.",
            show_default="the config's",
        ),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train the model of a config."""
    note(f"fldet train {config}: loading torch and MMDetection")
    from fldet.config import load_config
    from fldet.engine.launch import relaunch
    from fldet.engine.train import train as run

    cfg = load_config(config, cfg_options or ())
    if gpus > 1:
        relaunch(cfg, gpus, phases=("train",), device=device)
        return
    result = run(
        cfg,
        work_dir=work_dir,
        resume=resume,
        seed=seed,
        device=device,
        amp=amp,
        launcher=launcher,
        auto_scale_lr=auto_scale_lr,
    )
    if result is not None:
        out = Output("train", as_json=json, quiet=quiet)
        out.result(
            result,
            text=lambda: describe(result, Path(config).with_suffix(".py").name),
            essential=result.best_checkpoint or result.last_checkpoint,
        )


def describe(result: "TrainResult", config_name: str) -> str:
    """Returns what a person wants to know after training: time, figures, paths, what is next."""
    folder = result.work_dir
    lines = [f"trained {result.iterations} iterations in {result.seconds / 60:.1f} minutes"]
    if result.best_ap is not None:
        lines.append(f"best validation AP  {result.best_ap:.3f}")
    lines += [
        f"best checkpoint     {result.best_checkpoint or '-'}",
        f"last checkpoint     {result.last_checkpoint or '-'}",
        f"next: fldet test {folder / config_name} {folder} --show-dir {folder / 'pictures'}",
    ]
    return "\n".join(lines)
