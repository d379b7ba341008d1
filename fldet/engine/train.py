"""Training a detector from a config."""

import logging
import os
import shlex
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, nullcontext
from multiprocessing import get_context
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub

from fldet.anchors.boxes import warn_of_poor_cover
from fldet.checkpoints.files import (
    best_checkpoint,
    forbid_code_in_checkpoints,
    iteration_of,
    newest_checkpoint,
    read_checkpoint,
    trusted_checkpoints,
    weights_of,
)
from fldet.checkpoints.pretrained import warn_of_frozen_random_weights
from fldet.config import options as run_options
from fldet.config.prepare import prepare_config, scale_learning_rate
from fldet.config.train_step import set_train_step, train_step_in_words
from fldet.devices import describe, select_device
from fldet.engine.batch_size import ASKED, find_batch_size, set_batch_size
from fldet.engine.hooks import BuffersHook, EarlyEndHook, NonFiniteHook, ResumeHook, StopHook
from fldet.engine.hooks.nonfinite import SKIPPED
from fldet.engine.lock import locked
from fldet.engine.peers import group_settings
from fldet.engine.process_group import process_group
from fldet.engine.results import TrainResult
from fldet.engine.runner import FldetRunner, build_runner, check_seed, unwrapped
from fldet.engine.signals import Received, noted_signals
from fldet.engine.start import Start, find_start, prepare_work_dir, why_finished
from fldet.errors import ConfigError, FldetError, UsageError, explained_file_errors
from fldet.models.fast.train_step import avoid_faults_of_cpus
from fldet.processes import (
    adopt_launcher,
    end_with_parent,
    process_count,
    process_rank,
    restart_count,
)

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
    batch_size: int | str | None = None,
    trust_checkpoint: bool = False,
) -> TrainResult:
    """Trains the model of a config and returns where its checkpoints are.

    SIGTERM, a closed terminal and the first Ctrl-C save a checkpoint between two iterations and end
    the run. A run that torchrun has started again after a failure goes on as with ``resume``.

    Args:
        cfg: as ``load_config`` returned it.
        work_dir: folder for the log, the resolved config and the checkpoints; by default
            ``work_dirs/`` and the name of the config file.
        resume: go on from the newest checkpoint of ``work_dir`` that can be used, from the start
            if it has none.
        seed: of all random numbers; by default the config's. A resumed run keeps its own.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        amp: compute the network in bfloat16 (float16 on GPUs that lack it); None: as the config.
        launcher: see ``fldet.processes.adopt_launcher``.
        auto_scale_lr: whether the learning rate follows the images per step; None: as the config.
        batch_size: images per step of one process; ``auto`` takes as many as fit, None as the
            config. A resumed run keeps its own unless a number is given.
        trust_checkpoint: run the code in checkpoints that cannot be read without.

    Raises:
        ConfigError, DataError, CheckpointError, UnavailableError, UsageError, NonFiniteError,
        StoppedError, FileSystemError, WorkerError: see ``fldet.errors``.
    """
    forbid_code_in_checkpoints()
    named_launcher, launcher = launcher, adopt_launcher(launcher)
    chosen = select_device(device)
    work_dir = work_dir or default_work_dir(cfg)
    prepared, hooks = _prepare(cfg, chosen, amp)
    if auto_scale_lr is not None and prepared.get("auto_scale_lr"):
        prepared.auto_scale_lr.enable = auto_scale_lr
    if seed is not None:
        _set_seed(prepared, seed)
    check_seed(prepared)
    prepared.work_dir = str(work_dir)
    _use_our_hooks(prepared)
    is_first = launcher == "none" or process_rank() == 0
    lock = locked(work_dir) if is_first else nullcontext(False)
    with explained_file_errors(work_dir), lock as goes_on:
        if goes_on:
            log.info("restart %d of at most %d by torchrun", *restart_count())
            resume = True
        # under torchrun the first process refuses for all: it alone knows of a restart
        if is_first or "TORCHELASTIC_RUN_ID" not in os.environ:
            _check_work_dir(work_dir, resume)
        start = _starting_point(prepared, work_dir, trust_checkpoint)
        finished = why_finished(start, prepared, hooks) if start else ""
        if finished:
            log.info("%s is finished: %s", work_dir, finished)
            return _result(work_dir, start.path if start else None)
        if not start:
            _check_load_from(prepared, trust_checkpoint)
        asked = set_batch_size(prepared, batch_size, start, chosen, launcher)
        scale_learning_rate(prepared, process_count() if launcher != "none" else 1)
        if is_first:
            prepare_work_dir(work_dir, start, resume=resume)
        with (
            process_group(launcher, chosen, **group_settings(prepared)),
            trusted_checkpoints(trust_checkpoint),
            noted_signals() as received,
        ):
            options = _options_of_no_config(device, named_launcher, trust_checkpoint)
            own = [*hooks, BuffersHook(), ResumeHook({ASKED: asked} if asked else {})]
            return _run(prepared, launcher, chosen, received, own, options)


def batch_size_of_processes(
    cfg: Config, count: int, *, work_dir: Path | None, resume: bool, device: str, amp: bool | None
) -> int | None:
    """Returns as many images per step as fit for each of some processes that will train.

    They are found in a process of its own, which leaves nothing on the device.

    Args:
        cfg: as ``load_config`` returned it.
        count: processes.
        work_dir: as for ``train``.
        resume: as for ``train``.
        device: as for ``train``.
        amp: as for ``train``.

    Returns:
        None where the run will be resumed, and has a number already.

    Raises:
        FldetError: as ``train``.
    """
    if resume and newest_checkpoint(work_dir or default_work_dir(cfg)):
        return None
    with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as pool:
        number = pool.submit(_find_batch_size, cfg, count, device, amp).result()
    log.info("batch size %d in each of %d processes", number, count)
    return number


def _find_batch_size(cfg: Config, count: int, device: str, amp: bool | None) -> int:
    chosen = select_device(device)
    return find_batch_size(_prepare(cfg, chosen, amp)[0], chosen, count)


def _prepare(cfg: Config, device: torch.device, amp: bool | None) -> tuple[Config, list[Hook]]:
    """Returns a config with its lines turned into what they stand for, and their hooks."""
    prepared = prepare_config(cfg, phases=_phases(cfg))
    _require_iterations(prepared)
    if amp is not None:
        prepared.amp = amp
    set_train_step(prepared, device)
    return prepared, run_options.configure(prepared)


def _options_of_no_config(device: str, launcher: str, trust: bool) -> list[str]:
    """Returns the options of this run that its config does not hold, to go on with it."""
    options = [] if device == "auto" else ["--device", device]
    if trust:
        options.append("--trust-checkpoint")
    if launcher not in ("auto", "none", "pytorch"):
        options += ["--launcher", launcher]
    elif process_count() == int(os.environ.get("LOCAL_WORLD_SIZE", 0)) > 1:  # of torchrun
        options += ["--gpus", str(process_count())]
        if restart_count()[1]:
            options += ["--max-restarts", str(restart_count()[1])]
    return options


def _run(
    cfg: Config,
    launcher: str,
    device: torch.device,
    received: Received,
    hooks: Sequence[Hook],
    options: Sequence[str],
) -> TrainResult:
    """Trains, and gives terminal and log back also where the run ends early."""
    started = time.perf_counter()
    with closing(training_runner(cfg, launcher, device)) as runner:
        log.info("training on %s, %s", describe(device), _plan(cfg, runner))
        log.info("training step: %s", train_step_in_words(cfg) or "in float32")
        warn_of_poor_cover(cfg, runner.train_loop.dataloader.dataset)
        if not (cfg.resume or cfg.get("load_from")):
            warn_of_frozen_random_weights(cfg, unwrapped(runner.model))
        # the config that it wrote has all overrides in it
        command = shlex.join(["fldet", "train", str(runner.config_file)])
        again = shlex.join(["--work-dir", cfg.work_dir, *options, "--resume"])
        for hook in hooks:
            runner.register_hook(hook)
        runner.register_hook(StopHook(lambda: received.number, f"{command} {again}"))
        runner.register_hook(NonFiniteHook(cfg.get("skip_nonfinite", 0), f"{command} --replay"))
        try:
            with explained_file_errors(cfg.work_dir, hint=f"go on with: {command} {again}"):
                runner.train()
        except (FldetError, KeyboardInterrupt):
            runner.call_hook("after_run")
            raise
        ended = [hook.reason for hook in hooks if isinstance(hook, EarlyEndHook) and hook.reason]
        seconds = time.perf_counter() - started
        last = runner.message_hub.get_info("last_ckpt")
        newest = Path(cfg.work_dir, Path(last).name) if last else None
        text = " and ".join(ended)
        return _result(Path(cfg.work_dir), newest, runner.message_hub, seconds, text)


def training_runner(cfg: Config, launcher: str, device: torch.device) -> FldetRunner:
    """Returns a runner whose model is made ready for training; ``set_train_step`` goes before."""
    runner = build_runner(cfg, launcher, device)
    avoid_faults_of_cpus(runner.model, cfg)
    return runner


def _starting_point(cfg: Config, work_dir: Path, trust: bool) -> Start | None:
    """Returns where a run goes on, None for a new one; sets the config accordingly."""
    start = find_start(work_dir, cfg, trust=trust) if newest_checkpoint(work_dir) else None
    cfg.resume = start is not None
    if start:
        log.info("resuming from %s", start.path)
        if cfg.get("randomness", {}).get("seed") not in (None, start.seed):
            log.warning("the run began with seed %s and keeps it", start.seed)
        _set_seed(cfg, start.seed)
        if start.averaged and not cfg.get("ema"):
            raise ConfigError(
                f"{start.path} is of a run that averages its weights; the config has ema off",
                expected="ema as the run began",
                hint="go on with: --cfg-options ema=True",
            )
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
    if logger.get("type") == "LoggerHook":
        logger["type"] = "fldet.LoggerHook"
        logger.setdefault("log_metric_by_epoch", False)  # else all validations are of step 0


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


def _check_work_dir(work_dir: Path, resume: bool) -> None:
    newest = newest_checkpoint(work_dir)
    if newest and not resume:
        raise UsageError(
            f"{work_dir} already holds a run (its newest checkpoint is {newest.name})",
            expected="an empty work dir, or --resume to go on with that run",
            hint="add --resume, or choose another folder: --work-dir "
            + shlex.quote(f"{work_dir}-2"),
        )
    if resume and not newest:
        log.info("nothing to resume in %s: starting from the first iteration", work_dir)


def _plan(cfg: Config, runner: FldetRunner) -> str:
    images = cfg.train_dataloader.batch_size * runner.world_size
    iterations = cfg.train_cfg.max_iters
    epochs = iterations * images / len(runner.train_loop.dataloader.dataset)
    return (
        f"{iterations} iterations of {images} images, {epochs:.3g} times each image; "
        f"work dir {runner.work_dir}"
    )


def _result(
    work_dir: Path,
    last: Path | None,
    hub: MessageHub | None = None,
    seconds: float = 0.0,
    ended_early: str = "",
) -> TrainResult:
    return TrainResult(
        work_dir=work_dir,
        last_checkpoint=last,
        best_checkpoint=best_checkpoint(work_dir),
        iterations=iteration_of(last) if last else 0,
        final_losses=_final_losses(hub) if hub else {},
        best_ap=hub.get_info("best_score") if hub else None,
        seconds=seconds,
        skipped_batches=hub.get_info(SKIPPED, 0) if hub else 0,
        ended_early=ended_early,
    )


def _final_losses(hub: MessageHub) -> dict[str, float]:
    return {
        name.removeprefix("train/"): float(buffer.mean(50))
        for name, buffer in hub.log_scalars.items()
        if name.startswith("train/loss")
    }
