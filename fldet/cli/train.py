"""``fldet train``."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, loading
from fldet.cli.printed import Replayed

if TYPE_CHECKING:
    from fldet.engine.results import TrainResult

EXAMPLES = """
  fldet train configs/shapes/retinanet_r18_shapes.py
  fldet train configs/retinanet/r50_fpn_1x.py --gpus 8
  fldet train configs/retinanet/r50_fpn_1x.py --cfg-options data_root=/data/coco --resume
  fldet train my_config.py --batch-size auto
  fldet train my_config.py --logger tensorboard
  fldet train my_config.py --folds FOLDS --fold 2 --work-dir work_dirs/fold_2
  fldet train my_config.py --epochs 3
"""


@command
def train(
    config: options.Config,
    work_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for logs and checkpoints.",
            show_default="the config's, or work_dirs/ and the config's name",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from the newest checkpoint of the work dir.")
    ] = False,
    cfg_options: options.CfgOptions = None,
    fold: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="K",
            help="Train on all folds but this one, and validate and test on it.",
            show_default="the config's",
        ),
    ] = None,
    folds: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the folds, from fldet data split.", show_default="the config's"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed for all random numbers.", show_default="the config's")
    ] = None,
    device: options.Device = "auto",
    amp: Annotated[
        bool | None,
        typer.Option(
            help="Whether the network computes in bfloat16, on GPUs without it in float16.",
            show_default="the config's",
        ),
    ] = None,
    launcher: options.Launcher = "auto",
    gpus: options.Gpus = 1,
    max_restarts: options.MaxRestarts = 0,
    batch_size: Annotated[
        str | None,
        typer.Option(
            metavar="auto|N",
            help="Images per step on one device; auto takes as many as fit into its memory. "
            "The learning rate follows, and --resume keeps the number.",
            show_default="the config's",
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Another length in epochs: schedule, validations and checkpoints follow, the "
            "warm-up stays.",
            show_default="the config's",
        ),
    ] = None,
    max_iters: Annotated[
        int | None,
        typer.Option(min=1, help="The same in iterations.", show_default="the config's"),
    ] = None,
    auto_scale_lr: Annotated[
        bool | None,
        typer.Option(
            help="Whether the learning rate follows the images per step.",
            show_default="the config's",
        ),
    ] = None,
    logger: Annotated[
        list[str] | None,
        typer.Option(
            metavar="tensorboard|mlflow|wandb|clearml",
            help="Tool that gets what is logged too, on this machine; may be repeated.",
            show_default="the config's",
        ),
    ] = None,
    trust_checkpoint: options.TrustCheckpoint = False,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Train nothing: run the batch of a nonfinite_iter_N.pth again."
        ),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train the model of a config.

    SIGTERM, a closed terminal and the first Ctrl-C save a checkpoint and stop, with exit code 143,
    129 or 130; --resume goes on from there as if nothing had happened. A second Ctrl-C stops at
    once.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's maps in large pages
    from fldet.config.load import load_config

    cfg = load_config(config, cfg_options or ())
    with loading(f"train {config}"):
        from fldet.config.folds import choose_fold
        from fldet.engine.batch_size import parse_batch_size
        from fldet.engine.launch import relaunch
        from fldet.engine.train import batch_size_of_processes
        from fldet.engine.train import train as run

    asked = parse_batch_size(batch_size)
    choose_fold(cfg, folds, fold)
    out = Output("train", as_json=json, quiet=quiet)
    if replay:
        from fldet.engine.replay import replay as run_again

        report = run_again(cfg, replay, device=device)
        out.result(Replayed(report), text=report, essential="finite")
        return
    if gpus > 1:
        more: list[str] = []
        if asked == "auto":
            number = batch_size_of_processes(
                cfg, gpus, work_dir=work_dir, resume=resume, device=device, amp=amp
            )
            more = ["--batch-size", str(number)] if number else []
        relaunch(
            *(cfg, gpus), phases=("train",), device=device, max_restarts=max_restarts, more=more
        )
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
        batch_size=asked,
        loggers=logger,
        epochs=epochs,
        max_iters=max_iters,
        trust_checkpoint=trust_checkpoint,
    )
    if result is not None:
        out.result(
            result,
            text=lambda: training_text(result),
            essential=result.best_checkpoint or result.last_checkpoint,
        )


def training_text(result: "TrainResult") -> str:
    """Returns what a person wants to know after training: time, figures, paths, what is next."""
    folder = result.work_dir
    lines = [f"trained {result.iterations} iterations in {result.seconds / 60:.1f} minutes"]
    if result.ended_early:
        lines.append(f"ended early         {result.ended_early}")
    if result.best_ap is not None:
        lines.append(f"best validation AP  {result.best_ap:.3f}")
    if result.skipped_batches:
        lines.append(f"batches passed over {result.skipped_batches} (loss not finite)")
    test = ["fldet", "test", folder, "--show-dir", folder / "pictures"]
    lines += [
        f"best checkpoint     {result.best_checkpoint or '-'}",
        f"last checkpoint     {result.last_checkpoint or '-'}",
        f"next: {shlex.join(map(str, test))}",
    ]
    return "\n".join(lines)
