"""Training a detector from a config."""

import logging
import time
from contextlib import closing, nullcontext
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub

from fldet.engine import lean
from fldet.engine.boxes import warn_of_poor_cover
from fldet.engine.build import FldetRunner, build_runner
from fldet.engine.checkpoint import (
    best_checkpoint,
    forbid_code_in_checkpoints,
    iteration_of,
    newest_checkpoint,
    read_checkpoint,
    trusted_checkpoints,
    weights_of,
)
from fldet.engine.device import (
    describe,
    is_first_process,
    process_group,
    select_device,
    world_size,
)
from fldet.engine.lock import locked
from fldet.engine.prepare import prepare_config, scale_learning_rate
from fldet.engine.resume import Start, find_start, is_finished, prepare_work_dir
from fldet.engine.signals import Received, noted_signals
from fldet.errors import ConfigError, FldetError, UsageError, explained_file_errors
from fldet.hooks import NonFiniteHook, ResumeHook, StopHook
from fldet.hooks.nonfinite import SKIPPED
from fldet.results import TrainResult

log = logging.getLogger("fldet")


def train(
    cfg: Config,
    *,
    work_dir: Path | None = None,
    resume: bool = False,
    seed: int | None = None,
    device: str = "auto",
    amp: bool | None = None,
    launcher: str = "none",
    auto_scale_lr: bool | None = None,
    trust_checkpoint: bool = False,
) -> TrainResult:
    """Trains the model of a config and returns where its checkpoints are.

    SIGTERM and the first Ctrl-C save a checkpoint between two iterations and end the run.

    Args:
        cfg: as ``load_config`` returned it.
        work_dir: folder for the log, the resolved config and the checkpoints; by default
            ``work_dirs/`` and the name of the config file.
        resume: go on from the newest checkpoint of ``work_dir`` that can be used, from the start
            if it has none.
        seed: of all random numbers; by default the config's. A resumed run keeps its own.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        amp: compute the network in bfloat16 (float16 on GPUs that lack it); None: as the config.
        launcher: ``none``, ``pytorch`` (torchrun), ``slurm`` or ``mpi``.
        auto_scale_lr: whether the learning rate follows the images per step; None: as the config.
        trust_checkpoint: run the code in checkpoints that cannot be read without.

    Raises:
        ConfigError, DataError, CheckpointError, UnavailableError, UsageError, NonFiniteError,
        StoppedError, FileSystemError, WorkerError: see ``fldet.errors``.
    """
    forbid_code_in_checkpoints()
    chosen = select_device(device)
    work_dir = work_dir or default_work_dir(cfg)
    prepared = prepare_config(cfg, phases=_phases(cfg))
    _require_iterations(prepared)
    if auto_scale_lr is not None and prepared.get("auto_scale_lr"):
        prepared.auto_scale_lr.enable = auto_scale_lr
    scale_learning_rate(prepared, world_size(launcher))
    if seed is not None:
        _set_seed(prepared, seed)
    if amp is not None:
        prepared.amp = amp
    lean.configure(prepared, chosen)
    prepared.work_dir = str(work_dir)
    _use_our_hooks(prepared)
    _check_load_from(prepared, trust_checkpoint)
    with locked(work_dir) if is_first_process(launcher) else nullcontext():
        start = _starting_point(prepared, work_dir, resume, trust_checkpoint)
        if start and is_finished(start, prepared):
            log.info("%s is finished: %s is its last iteration", work_dir, start.path.name)
            return _result(work_dir)
        if is_first_process(launcher):
            prepare_work_dir(work_dir, start)
        with (
            process_group(launcher, chosen),
            trusted_checkpoints(trust_checkpoint),
            noted_signals() as received,
        ):
            return _run(prepared, launcher, chosen, received)


def _run(cfg: Config, launcher: str, device: torch.device, received: Received) -> TrainResult:
    """Trains, and gives terminal and log back also where the run ends early."""
    started = time.perf_counter()
    with closing(training_runner(cfg, launcher, device)) as runner:
        log.info("training on %s, %s", describe(device), _plan(cfg, runner))
        log.info("training step: %s", lean.describe(cfg) or "in float32")
        warn_of_poor_cover(cfg, runner.train_loop.dataloader.dataset)
        command = f"fldet train {cfg.filename} --work-dir {cfg.work_dir}"
        runner.register_hook(ResumeHook())
        runner.register_hook(StopHook(lambda: received.number, f"{command} --resume"))
        runner.register_hook(
            NonFiniteHook(cfg.get("skip_nonfinite", 0), f"fldet train {cfg.filename} --replay")
        )
        try:
            with explained_file_errors(cfg.work_dir, hint=f"go on with: {command} --resume"):
                runner.train()
        except (FldetError, KeyboardInterrupt):
            runner.call_hook("after_run")
            raise
        return _result(Path(cfg.work_dir), runner.message_hub, time.perf_counter() - started)


def training_runner(cfg: Config, launcher: str, device: torch.device) -> FldetRunner:
    """Returns a runner whose model is made ready for training; ``lean.configure`` goes before."""
    runner = build_runner(cfg, launcher, device)
    lean.guard(runner.model, cfg)
    return runner


def _starting_point(cfg: Config, work_dir: Path, resume: bool, trust: bool) -> Start | None:
    """Returns where a run goes on, None for a new one; sets the config accordingly."""
    newest = newest_checkpoint(work_dir)
    _check_work_dir(work_dir, newest, resume)
    start = find_start(work_dir, cfg, trust=trust) if newest else None
    cfg.resume = start is not None
    if start:
        log.info("resuming from %s", start.path)
        if cfg.get("randomness", {}).get("seed") not in (None, start.seed):
            log.warning("the run began with seed %s and keeps it", start.seed)
        _set_seed(cfg, start.seed)
    return start


def _require_iterations(cfg: Config) -> None:
    if "max_iters" not in (cfg.get("train_cfg") or {}):
        raise ConfigError(
            "train_cfg has no max_iters: fldet trains by iterations, not by epochs",
            expected="train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=90000, "
            "val_interval=10000), and schedules with by_epoch=False",
            hint="_base_ = 'fldet::_base_/schedules/schedule_1x.py' has both",
        )


def _set_seed(cfg: Config, seed: int) -> None:
    # not setdefault: MMEngine returns a copy of a dict that was not there
    cfg.randomness = {**(cfg.get("randomness") or {}), "seed": seed}


def _use_our_hooks(cfg: Config) -> None:
    """Lets configs that inherit MMDetection's runtime be resumed as exactly as ours."""
    hooks = cfg.get("default_hooks") or {}
    checkpoint, logger = hooks.get("checkpoint") or {}, hooks.get("logger") or {}
    if checkpoint.get("type") == "CheckpointHook" and checkpoint.get("by_epoch") is False:
        checkpoint["type"] = "fldet.CheckpointHook"
    if logger.get("type") == "LoggerHook":  # by epoch, all validations would be of step 0
        logger.setdefault("log_metric_by_epoch", False)


def _check_load_from(cfg: Config, trust: bool) -> None:
    """Reads the file once, where the reason of a refusal can be said."""
    name = str(cfg.get("load_from") or "")
    if name and "://" not in name:
        weights_of(read_checkpoint(Path(name), trust=trust), Path(name))


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
        skipped_batches=hub.get_info(SKIPPED, 0) if hub else 0,
    )


def _final_losses(hub: MessageHub) -> dict[str, float]:
    return {
        name.removeprefix("train/"): float(buffer.mean(50))
        for name, buffer in hub.log_scalars.items()
        if name.startswith("train/loss")
    }
