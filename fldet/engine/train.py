"""Training a detector from a config."""

import logging
import time
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MessageHub

from fldet.engine.amp import avoid_single_columns, wrapper_name
from fldet.engine.boxes import warn_of_poor_cover
from fldet.engine.build import FldetRunner, build_runner
from fldet.engine.checkpoint import (
    best_checkpoint,
    forbid_code_in_checkpoints,
    iteration_of,
    newest_checkpoint,
)
from fldet.engine.device import describe, process_group, select_device, world_size
from fldet.engine.prepare import prepare_config, scale_learning_rate
from fldet.errors import UsageError
from fldet.results import TrainResult, write_atomically

log = logging.getLogger("fldet")


def train(
    cfg: Config,
    *,
    work_dir: Path | None = None,
    resume: bool = False,
    seed: int | None = None,
    device: str = "auto",
    amp: bool = False,
    launcher: str = "none",
    auto_scale_lr: bool | None = None,
) -> TrainResult:
    """Trains the model of a config and returns where its checkpoints are.

    Args:
        cfg: as ``load_config`` returned it.
        work_dir: folder for the log, the resolved config and the checkpoints; by default
            ``work_dirs/`` and the name of the config file.
        resume: go on from the newest checkpoint of ``work_dir``, from the start if it has none.
        seed: of all random numbers; by default the config's.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        amp: compute the forward pass in bfloat16 (float16 on GPUs that lack it).
        launcher: ``none``, ``pytorch`` (torchrun), ``slurm`` or ``mpi``.
        auto_scale_lr: whether the learning rate follows the images per step; None: as the config.

    Raises:
        ConfigError, DataError, UnavailableError, UsageError: see ``fldet.errors``.
    """
    forbid_code_in_checkpoints()
    chosen = select_device(device)
    work_dir = work_dir or default_work_dir(cfg)
    prepared = prepare_config(cfg, phases=_phases(cfg))
    if auto_scale_lr is not None and prepared.get("auto_scale_lr"):
        prepared.auto_scale_lr.enable = auto_scale_lr
    scale_learning_rate(prepared, world_size(launcher))
    newest = newest_checkpoint(work_dir)
    _check_work_dir(work_dir, newest, resume)
    if newest and iteration_of(newest) >= prepared.train_cfg.max_iters:
        log.info("%s is finished: %s is its last iteration", work_dir, newest.name)
        return _result(work_dir)

    prepared.work_dir = str(work_dir)
    prepared.resume = newest is not None
    if newest:
        log.info("resuming from %s", newest)
        # MMEngine reads the path here; after a move of the folder it would be the old one.
        write_atomically(work_dir / "last_checkpoint", str(newest))
    if seed is not None:
        prepared.setdefault("randomness", {})["seed"] = seed
    if amp:
        prepared.optim_wrapper.type = wrapper_name(chosen)

    with process_group(launcher, chosen):
        started = time.perf_counter()
        runner = build_runner(prepared, launcher, chosen)
        if amp and chosen.type == "cpu":
            avoid_single_columns(runner.model)
        log.info("training on %s, %s", describe(chosen), _plan(prepared, runner))
        warn_of_poor_cover(prepared, runner.train_loop.dataloader.dataset)
        runner.train()
        return _result(work_dir, runner.message_hub, time.perf_counter() - started)


def default_work_dir(cfg: Config) -> Path:
    """Returns ``work_dirs/`` and the name of the config file, or the config's own ``work_dir``."""
    return Path(cfg.get("work_dir") or Path("work_dirs", Path(cfg.filename or "run").stem))


def _phases(cfg: Config) -> tuple[str, ...]:
    return ("train", "val") if cfg.get("val_dataloader") else ("train",)


def _check_work_dir(work_dir: Path, newest: Path | None, resume: bool) -> None:
    if newest and not resume:
        raise UsageError(
            f"{work_dir} already holds a run (its newest checkpoint is {newest.name})",
            expected="an empty work dir, or --resume to go on with that run",
            hint=f"add --resume, or choose another folder: --work-dir {work_dir}-2",
        )
    if resume and not newest:
        log.info("nothing to resume in %s: starting from the first iteration", work_dir)


def _plan(cfg: Config, runner: FldetRunner) -> str:
    images = cfg.train_dataloader.batch_size * runner.world_size
    return f"{cfg.train_cfg.max_iters} iterations of {images} images, work dir {runner.work_dir}"


def _result(work_dir: Path, hub: MessageHub | None = None, seconds: float = 0.0) -> TrainResult:
    last = newest_checkpoint(work_dir)
    return TrainResult(
        work_dir=work_dir,
        last_checkpoint=last,
        best_checkpoint=best_checkpoint(work_dir),
        iterations=iteration_of(last) if last else 0,
        final_losses=_final_losses(hub) if hub else {},
        best_ap=hub.get_info("best_score") if hub else None,
        seconds=seconds,
    )


def _final_losses(hub: MessageHub) -> dict[str, float]:
    return {
        name.removeprefix("train/"): float(buffer.mean(50))
        for name, buffer in hub.log_scalars.items()
        if name.startswith("train/loss")
    }
