"""Training a detector from a config."""

import logging
import os
import shlex
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub

from fldet.anchors.boxes import warn_of_poor_cover
from fldet.checkpoints.files import forbid_code_in_checkpoints, trusted_checkpoints
from fldet.checkpoints.paths import best_checkpoint, iteration_of, newest_checkpoint
from fldet.checkpoints.pretrained import warn_of_frozen_random_weights
from fldet.config.resolve import TrainOptions, default_work_dir, resolve_training, settle_training
from fldet.config.train_step import train_step_in_words
from fldet.devices import device_name, select_device
from fldet.engine.batch_size import ASKED, choose_batch_size, find_batch_size
from fldet.engine.hooks import BuffersHook, EarlyEndHook, NonFiniteHook, ResumeHook, StopHook
from fldet.engine.hooks.lines import hooks_of_lines
from fldet.engine.hooks.nonfinite import SKIPPED
from fldet.engine.process_group import group_settings, process_group, unwrapped
from fldet.engine.results import TrainResult
from fldet.engine.runner import FldetRunner, build_runner, datasets_in
from fldet.engine.signals import Received, noted_signals
from fldet.engine.start import opened_run
from fldet.errors import FldetError, UsageError, explained_file_errors
from fldet.models.fast.train_step import avoid_faults_of_cpus, require_compiler
from fldet.processes import adopt_launcher, end_with_parent, process_count, restart_count
from fldet.progress import heard

log = logging.getLogger("fldet")


@heard()
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
    loggers: Sequence[str] | None = None,
    epochs: float | None = None,
    max_iters: int | None = None,
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
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        amp: compute the network in bfloat16 (float16 on GPUs that lack it); None: as the config.
        launcher: see ``fldet.processes.adopt_launcher``.
        auto_scale_lr: whether the learning rate follows the images per step; None: as the config.
        batch_size: images per step of one process; ``auto`` takes as many as fit, None as the
            config. A resumed run keeps its own unless a number is given.
        loggers: tools that get what is logged too: names of ``fldet.engine.loggers``; None: as
            the config.
        epochs: another length than the config's; schedule, validations and checkpoints follow.
        max_iters: the same in iterations.
        trust_checkpoint: run the code in checkpoints that cannot be read without.

    Raises:
        ConfigError, DataError, CheckpointError, UnavailableError, UsageError, NonFiniteError,
        StoppedError, FileSystemError, WorkerError: see ``fldet.errors``.
    """
    forbid_code_in_checkpoints()
    named_launcher, launcher = launcher, adopt_launcher(launcher)
    chosen = select_device(device)
    processes = process_count() if launcher != "none" else 1
    named = None if loggers is None else tuple(loggers)
    options = TrainOptions(work_dir, seed, amp, auto_scale_lr, processes, named)
    options = with_length(options, epochs, max_iters, batch_size)
    resolved = resolve_training(cfg, chosen, options)
    hooks, work_dir = hooks_of_lines(resolved), Path(resolved.work_dir)
    with opened_run(
        resolved, hooks, resume=resume, launcher=launcher, trust=trust_checkpoint
    ) as start:
        if start.finished:
            log.info("%s is finished: %s", work_dir, start.finished)
            best = best_checkpoint(work_dir)
            return TrainResult(work_dir, start.path, best, start.iteration, {}, None, 0.0)
        images = choose_batch_size(resolved, batch_size, start, chosen, launcher)
        settled = settle_training(
            resolved,
            seed=start.seed,
            images=images,
            processes=processes,
            launcher=launcher,
            device=chosen,
        )
        with (
            process_group(launcher, chosen, **group_settings(settled)),
            trusted_checkpoints(trust_checkpoint),
            noted_signals() as received,
        ):
            again = _options_of_no_config(device, named_launcher, trust_checkpoint)
            own = [*hooks, BuffersHook(), ResumeHook({ASKED: images} if images else {})]
            return _run(settled, chosen, received, own, again)


def with_length(
    options: TrainOptions,
    epochs: float | None,
    max_iters: int | None,
    batch_size: int | str | None,
) -> TrainOptions:
    """Returns the options with a length in epochs or iterations, of which there is one or none."""
    if epochs is not None and max_iters is not None:
        raise UsageError("--epochs and --max-iters", expected="one of the two")
    if epochs is not None and batch_size == "auto":
        raise UsageError(
            "--epochs needs to know the images of a step, and --batch-size auto finds them later",
            expected="--batch-size N, or --max-iters",
        )
    images = batch_size if isinstance(batch_size, int) else None
    return replace(options, epochs=epochs, max_iters=max_iters, images=images)


def batch_size_of_processes(
    cfg: Config, count: int, *, work_dir: Path | None, resume: bool, device: str, amp: bool | None
) -> int | None:
    """Returns as many images per step as fit for each of ``count`` processes that will train.

    They are found in a process of its own, which leaves nothing on the device. None where the run
    will be resumed, and has a number already.
    """
    if resume and newest_checkpoint(work_dir or default_work_dir(cfg)):
        return None
    with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as pool:
        number = pool.submit(_find_batch_size, cfg, count, device, amp).result()
    log.info("batch size %d in each of %d processes", number, count)
    return number


def _find_batch_size(cfg: Config, count: int, device: str, amp: bool | None) -> int:
    chosen = select_device(device)
    resolved = resolve_training(cfg, chosen, TrainOptions(amp=amp, processes=count))
    return find_batch_size(resolved, chosen, count)


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
    device: torch.device,
    received: Received,
    hooks: Sequence[Hook],
    options: Sequence[str],
) -> TrainResult:
    """Trains, and gives terminal and log back also where the run ends early."""
    started = time.perf_counter()
    with closing(training_runner(cfg, device)) as runner:
        log.info("training on %s, %s", device_name(device), _plan(cfg, runner))
        log.info("training step: %s", train_step_in_words(cfg))
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
        work_dir, hub = Path(cfg.work_dir), runner.message_hub
        newest = hub.get_info("last_ckpt")
        last = work_dir / Path(newest).name if newest else None
        return TrainResult(
            work_dir=work_dir,
            last_checkpoint=last,
            best_checkpoint=best_checkpoint(work_dir),
            iterations=iteration_of(last) if last else 0,
            final_losses=_final_losses(hub),
            best_ap=hub.get_info("best_score"),
            seconds=time.perf_counter() - started,
            skipped_batches=hub.get_info(SKIPPED, 0),
            ended_early=" and ".join(ended),
        )


def training_runner(cfg: Config, device: torch.device) -> FldetRunner:
    """Returns a runner whose model is made ready for training."""
    if cfg.get("compile"):
        require_compiler(device, cfg.compile["backend"])
    runner = build_runner(cfg)
    avoid_faults_of_cpus(runner.model, cfg)
    return runner


def _plan(cfg: Config, runner: FldetRunner) -> str:
    images = cfg.train_dataloader.batch_size * runner.world_size
    iterations = cfg.train_cfg.max_iters
    listed = runner.train_loop.dataloader.dataset
    count = sum(map(len, datasets_in(listed)))
    more = f" on average, listed {len(listed)} times" if len(listed) != count else ""
    return (
        f"{iterations} iterations of {images} images, {iterations * images / count:.3g} times each "
        f"of {count} images{more}; work dir {runner.work_dir}"
    )


def _final_losses(hub: MessageHub) -> dict[str, float]:
    return {
        name.removeprefix("train/"): float(buffer.mean(50))
        for name, buffer in hub.log_scalars.items()
        if name.startswith("train/loss")
    }
