"""How many images a training step takes: as many as fit, or as asked for."""

import copy
import gc
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from fldet.data.random_batches import random_batch
from fldet.data.sizes import largest_input
from fldet.devices import device_name
from fldet.engine.memory import available_memory, peak_memory
from fldet.engine.start import Start
from fldet.engine.step_errors import explained_step_errors
from fldet.errors import UnavailableError, UsageError
from fldet.models.fast.train_step import avoid_faults_of_cpus, set_up_model
from fldet.registry import DATASETS, MODELS

log = logging.getLogger("fldet")

RESERVE = 0.1  # share of the free memory that is left: kernels choose other work spaces later
AUTO = "auto"
ASKED = "batch_size_asked"  # in the checkpoint: --batch-size of the run
# In the messages of errors that are no OutOfMemoryError: no memory, and what too many images, or
# no memory, may lead to. With one image the latter are faults.
_NO_MEMORY = ("out of memory", "ALLOC_FAILED")
_TOO_MANY = ("CUDNN_STATUS", "CUBLAS_STATUS", "INT_MAX", "32BitIndexMath", "find an engine")
_CPU_TRIAL = 2  # images of the one step that is measured there


def parse_batch_size(text: str | None) -> int | str | None:
    """Returns ``auto`` or a number of images; None stays."""
    if text is None or text == AUTO:
        return text
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(
            f"--batch-size {text!r}", expected="auto, or images per step on one device: 1 or more"
        )
    return int(text)


def choose_batch_size(
    cfg: Config, asked: int | str | None, start: Start, device: torch.device, launcher: str
) -> int | None:
    """Returns the images per step of one process where they are not the config's, else None.

    A resumed run keeps those that it was started with, unless another number is asked for.
    """
    if start.path and asked in (AUTO, None):
        number = start.images if asked == AUTO else start.info.get(ASKED)
        if number:
            log.info("batch size %d, as the run began", number)
        return number
    if isinstance(asked, int) or asked is None:
        return asked
    if launcher != "none":
        raise UsageError(
            f"--batch-size auto with --launcher {launcher}: each process would find its own",
            expected="a number, or --gpus N in place of the launcher",
        )
    return find_batch_size(cfg, device)


@explained_step_errors()
def find_batch_size(cfg: Config, device: torch.device, processes: int = 1) -> int:
    """Returns the images of a step that fit on a device, found by training steps on noise.

    The images have the largest size of the training, and as many boxes as the fullest image.
    On a GPU it is the largest number that fits into nine tenths of the memory that is free. On a
    CPU, whose memory ``processes`` share and where more images are not faster, it is the config's,
    if they fit.
    """
    init_default_scope(cfg.get("default_scope", "mmdet"))
    dataset = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset))
    shape, boxes = largest_input(cfg, dataset)
    classes = len(dataset.metainfo["classes"])
    where = f"{device_name(device)}, images of {shape[1]}x{shape[0]} with {boxes} boxes"
    log.info("finding the batch size: training steps on %s", where)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        limit = int((1 - RESERVE) * free)
        step = TrialStep(cfg, device, shape, boxes, classes)
        number = largest_batch(partial(fits_on_gpu, step, limit, device), len(dataset))
        room = f"{limit / 2**30:.1f} of {free / 2**30:.1f} GiB that were free"
    else:
        free_mib = available_memory() / processes
        trial = min(_CPU_TRIAL, cfg.train_dataloader.batch_size)
        step = TrialStep(cfg, device, shape, boxes, classes)
        rise, _ = peak_memory(lambda: step(trial), device)
        number = bounded(cfg.train_dataloader.batch_size, rise / trial, free_mib)
        room = f"{rise / trial:.0f} MiB an image, {free_mib:.0f} MiB available"
    log.info("batch size %d (%s)", number, room)
    return number


def largest_batch(fits: Callable[[int], bool], most: int) -> int:
    """Returns the largest number up to ``most`` that fits, found by doubling, then by halves.

    ``fits`` holds up to some number and not beyond.
    """
    good = min(2, most)  # first: a batch norm may not take one image alone
    if not fits(good):
        if good > 1 and fits(1):
            return 1
        raise UnavailableError(
            "the training step of one image does not fit into the memory of the device",
            expected="room for one image at least",
            hint="gradient_checkpointing = True or amp = True in the config, or smaller images",
        )
    while good < most and fits(min(2 * good, most)):
        good = min(2 * good, most)
    bad = min(2 * good, most + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def bounded(wanted: int, mib_per_image: float, available_mib: float) -> int:
    """Returns ``wanted``, or the largest number that fits; unknown (NaN) figures do not bound."""
    if math.isnan(mib_per_image) or math.isnan(available_mib) or mib_per_image <= 0:
        return wanted
    room = int((1 - RESERVE) * available_mib / mib_per_image)
    if room < wanted:
        log.warning("%d images a step do not fit into the memory", wanted)
    return max(1, min(wanted, room))


def fits_on_gpu(step: Callable[[int], None], limit: int, device: torch.device, number: int) -> bool:
    """Returns whether a step with ``number`` images takes at most ``limit`` bytes."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        step(number)
    except RuntimeError as error:
        text = str(error)
        if isinstance(error, torch.cuda.OutOfMemoryError) or any(s in text for s in _NO_MEMORY):
            log.info("%d images: out of memory", number)
        elif number > 1 and any(sign in text for sign in _TOO_MANY):
            log.info("%d images: %s", number, text.splitlines()[0])
        else:
            raise
        return False
    peak = torch.cuda.max_memory_reserved(device)
    log.info("%d images: %.2f GiB", number, peak / 2**30)
    return peak <= limit


class TrialStep:
    """The training step of a config, on noise; a call leaves gradients and images to no one.

    The network is not compiled, which would take a minute for each number of images. ``shape`` of
    the images is (height, width), ``boxes`` the number in each, ``classes`` that of all classes.
    """

    def __init__(
        self, cfg: Config, device: torch.device, shape: tuple[int, int], boxes: int, classes: int
    ) -> None:
        cfg = copy.deepcopy(cfg)
        cfg.compile = False
        cfg.optim_wrapper.optimizer.lr = 0.0
        self.accumulated = min(2, cfg.optim_wrapper.get("accumulative_counts", 1))
        cfg.optim_wrapper.accumulative_counts = self.accumulated
        self.model: Any = MODELS.build(cfg.model)
        set_up_model(self.model, cfg)
        self.model.to(device).train()
        avoid_faults_of_cpus(self.model, cfg)
        self.average = copy.deepcopy(self.model) if cfg.get("ema") else None
        self.optimizer = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.batch = partial(random_batch, shape=shape, num_classes=classes, boxes=boxes)

    def __call__(self, number: int) -> None:
        """Trains on so many images twice: with the optimizer's memory, and gradients kept."""
        try:
            batch = self.batch(number)
            for _ in range(self.accumulated + 1):
                data = {name: list(values) for name, values in batch.items()}
                self.model.train_step(data, optim_wrapper=self.optimizer)
        finally:
            self.optimizer.zero_grad()
