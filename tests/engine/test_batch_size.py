"""How many images a training step takes."""

import gc
import logging
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from mmcv.transforms import RandomChoiceResize, RandomResize, Resize
from mmengine.config import Config
from mmengine.registry import init_default_scope

from fldet.checkpoints.files import read_checkpoint
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.data.sizes import largest_input
from fldet.engine import batch_size
from fldet.engine import train as engine
from fldet.engine.batch_size import (
    TrialStep,
    bounded,
    choose_batch_size,
    find_batch_size,
    fits_on_gpu,
    largest_batch,
    parse_batch_size,
)
from fldet.engine.start import Start
from fldet.engine.train import train
from fldet.errors import UnavailableError, UsageError

CPU = torch.device("cpu")


@pytest.fixture
def messages(caplog, monkeypatch):
    """What the log of fldet says."""
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    caplog.set_level(logging.INFO, "fldet")
    return caplog


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "many", ""])
def test_other_words_than_auto_and_numbers_are_refused(text):
    with pytest.raises(UsageError, match="--batch-size"):
        parse_batch_size(text)


# --- the search ---


@pytest.fixture
def memory(monkeypatch):
    """A device of 1000 bytes, as torch reports it; a step of n images takes 150 + 75 n."""
    taken = SimpleNamespace(peak=0, tried=[])

    def step(number):
        taken.tried.append(number)
        taken.peak = 150 + 75 * number
        if taken.peak > 1000:
            raise torch.cuda.OutOfMemoryError(f"{taken.peak} bytes")

    monkeypatch.setattr(batch_size.gc, "collect", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: taken.peak)
    taken.step = step
    return taken


@pytest.mark.parametrize(
    ("limit", "most", "largest", "tried"),
    [
        (1000, 100, 11, [2, 4, 8, 16, 12, 10, 11]),  # 16 and 12 run out of memory
        (900, 100, 10, [2, 4, 8, 16, 12, 10, 11]),  # 11 fits, but not into the share
        (1000, 6, 6, [2, 4, 6]),  # there are no more images
        (1000, 1, 1, [1]),
        (225, 100, 1, [2, 1]),
    ],
)
def test_the_largest_batch_that_fits(memory, limit, most, largest, tried):
    assert largest_batch(partial(fits_on_gpu, memory.step, limit, CPU), most) == largest
    assert memory.tried == tried


NOT_FOR_MEMORY = "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`",
        "upsample_nearest2d only supports output tensors with less than INT_MAX elements",
        "Expected canUse32BitIndexMath(input) && canUse32BitIndexMath(output) to be true",
        "GET was unable to find an engine to execute this computation",
        NOT_FOR_MEMORY,
    ],
)
def test_other_errors_of_too_many_images(memory, message):
    def step(number):
        memory.peak = 150 + 75 * number
        if number > 5:
            raise RuntimeError(message)

    assert largest_batch(partial(fits_on_gpu, step, 1000, CPU), 100) == 5


@pytest.mark.parametrize(
    "message", ["CUDA out of memory", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"]
)
def test_no_memory_for_one_image_in_other_words(memory, message):
    def step(number):
        raise RuntimeError(message)

    with pytest.raises(UnavailableError, match="one image does not fit"):
        largest_batch(partial(fits_on_gpu, step, 1000, CPU), 10)


@pytest.mark.parametrize(
    ("message", "tried"),
    [(NOT_FOR_MEMORY, [2, 1]), ("mat1 and mat2 shapes cannot be multiplied", [2])],
)
def test_a_step_that_fails_whatever_its_size_is_no_matter_of_memory(memory, message, tried):
    calls = []

    def step(number):
        calls.append(number)
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match=message):
        largest_batch(partial(fits_on_gpu, step, 1000, CPU), 10)
    assert calls == tried


def test_not_even_one_image_fits(memory):
    with pytest.raises(UnavailableError, match="one image does not fit") as error:
        largest_batch(partial(fits_on_gpu, memory.step, 200, CPU), 10)
    assert "gradient_checkpointing" in error.value.hint


@pytest.mark.parametrize(
    ("wanted", "mib_per_image", "available_mib", "number"),
    [
        (8, 100.0, 10_000.0, 8),  # a CPU gains nothing from more
        (8, 100.0, 500.0, 4),  # nine tenths of it
        (8, 100.0, 50.0, 1),
        (8, float("nan"), 500.0, 8),
        (8, 100.0, float("nan"), 8),
        (8, 0.0, 500.0, 8),  # all of it hidden in memory that was free
    ],
)
def test_a_cpu_keeps_the_configs_number_where_it_fits(wanted, mib_per_image, available_mib, number):
    assert bounded(wanted, mib_per_image, available_mib) == number


# --- the step ---


class Images(list):
    """A data set of images with (width, height, boxes)."""

    def __init__(self, *infos, resize):
        super().__init__(infos)
        self.pipeline = [resize]

    def get_data_info(self, index):
        width, height, boxes = self[index]
        return {"width": width, "height": height, "instances": [{}] * boxes}


KEEP = Resize(scale=(1333, 800), keep_ratio=True)
CHOICE = RandomChoiceResize([(1333, 640), (1333, 800), (1333, 672)], keep_ratio=True)
RANGE = RandomResize((1000, 600), ratio_range=(0.5, 2.0), keep_ratio=True)


@pytest.mark.parametrize(
    ("resize", "sorted_by_shape", "shape"),
    [
        (KEEP, True, (800, 1200)),  # wide and high images never meet
        (KEEP, False, (1067, 1200)),
        (CHOICE, True, (800, 1200)),
        (RANGE, True, (1200, 1800)),
    ],
)
def test_the_largest_input(resize, sorted_by_shape, shape):
    images = Images((600, 400, 3), (300, 400, 9), (60, 41, 0), resize=resize)
    kind = "AspectRatioBatchSampler" if sorted_by_shape else "BatchSampler"
    cfg = Config(dict(train_dataloader=dict(batch_sampler=dict(type=kind))))
    assert largest_input(cfg, images) == (shape, 9)


def test_a_trial_step_leaves_the_weights_and_no_gradients(tiny_config):
    cfg = prepare_config(load_config(tiny_config, ["ema=True"]), phases=("train",))
    cfg.optim_wrapper.accumulative_counts = 4
    init_default_scope("mmdet")
    step = TrialStep(cfg, CPU, (64, 96), boxes=5, classes=2)
    before = {name: value.clone() for name, value in step.model.named_parameters()}
    step(3)
    assert all(torch.equal(value, before[name]) for name, value in step.model.named_parameters())
    assert all(value.grad is None for value in step.model.parameters())
    assert len(step.optimizer.optimizer.state) > 0  # momentum takes memory too
    assert cfg.optim_wrapper.optimizer.lr > 0


# --- runs ---


def test_auto_on_a_cpu_looks_at_the_memory(tiny_config, monkeypatch, messages):
    cfg = prepare_config(load_config(tiny_config), phases=("train",))
    monkeypatch.setattr(batch_size, "peak_memory", lambda step, _: (step() or 300.0, ""))
    for available, number in ((1000.0, 2), (200.0, 1)):
        monkeypatch.setattr(batch_size, "available_memory", lambda value=available: value)
        assert find_batch_size(cfg, CPU) == number
    assert "images of 64x64 with 2 boxes" in messages.text
    assert "2 images a step do not fit into the memory" in messages.text
    assert "batch size 1 (150 MiB an image, 200 MiB available)" in messages.text


def test_a_run_keeps_its_number_and_the_learning_rate_follows(
    tiny_config, tmp_path, monkeypatch, messages
):
    monkeypatch.setattr(batch_size, "find_batch_size", lambda *_: 3)

    def run(iterations, asked, resume=True):
        options = [
            *(f"train_cfg.max_iters={iterations}", "val_dataloader=None"),
            *("param_scheduler.0.end=5", "param_scheduler.0.start_factor=0.5"),
            "param_scheduler.1.milestones=[5]",
        ]
        cfg = load_config(tiny_config, options)
        train(cfg, work_dir=tmp_path / "run", batch_size=asked, resume=resume, device="cpu")
        meta = read_checkpoint(tmp_path / "run" / f"iter_{iterations}.pth")["meta"]["fldet"]
        return meta["images per process"], load_config(tmp_path / "run" / "tiny.py")

    def rates(iterations):
        (group,) = read_checkpoint(tmp_path / "run" / f"iter_{iterations}.pth")["optimizer"][
            "param_groups"
        ]
        return group["initial_lr"], group["lr"]

    images, resolved = run(1, "auto", resume=False)
    assert (images, resolved.train_dataloader.batch_size) == (3, 3)
    assert resolved.optim_wrapper.optimizer.lr == pytest.approx(0.01 * 3 / 16)
    assert "learning rate 0.01 x 3/16 = 0.001875" in messages.text
    monkeypatch.setattr(batch_size, "find_batch_size", lambda *_: pytest.fail("looked again"))
    for iterations, asked in ((2, None), (3, "auto")):
        assert run(iterations, asked)[0] == 3
        assert "batch size 3, as the run began" in messages.text
        messages.clear()
    assert rates(3) == pytest.approx((0.01 * 3 / 16, 0.01 * 3 / 16 * 7 / 8))
    assert run(4, 2)[0] == 2
    assert "images per process: 3 before, 2 now: the run goes on, but not exactly" in messages.text
    assert "the run began with 0.001875, it goes on from 0.00125" in messages.text
    assert rates(4) == pytest.approx((0.01 * 2 / 16, 0.01 * 2 / 16))  # where warm-up ends
    messages.clear()
    assert run(5, 2)[0] == 2
    assert "it goes on from" not in messages.text
    assert rates(5) == pytest.approx((0.01 * 2 / 16, 0.001 * 2 / 16))  # and the first milestone


def test_processes_of_another_launcher_cannot_agree(tiny_config):
    with pytest.raises(UsageError, match="each process would find its own") as error:
        choose_batch_size(load_config(tiny_config), "auto", Start(), CPU, "slurm")
    assert "--gpus N" in error.value.expected


@pytest.mark.slow
def test_several_processes_take_what_one_has_found(tiny_config, tmp_path, messages):
    options = {"work_dir": tmp_path, "device": "cpu", "amp": None}
    cfg = load_config(tiny_config)
    assert engine.batch_size_of_processes(cfg, 2, resume=True, **options) == 2
    assert "batch size 2 in each of 2 processes" in messages.text
    (tmp_path / "iter_2.pth").touch()
    assert engine.batch_size_of_processes(cfg, 2, resume=True, **options) is None


@pytest.mark.gpu
def test_on_a_gpu_the_largest_number_fits_and_one_more_does_not(tiny_config):
    device = torch.device("cuda")
    cfg = prepare_config(load_config(tiny_config, ["ema=True"]), phases=("train",))
    assert find_batch_size(cfg, device) == 6  # there are no more images
    before = torch.cuda.memory_allocated(device)
    init_default_scope("mmdet")
    step = TrialStep(cfg, device, (256, 256), boxes=4, classes=2)
    fits = partial(fits_on_gpu, step, 2**28, device)
    number = largest_batch(fits, 4096)
    assert 2 < number < 4096
    assert fits(number)
    assert not fits(number + 1)
    with torch.cuda.device(device):
        torch.cuda.set_per_process_memory_fraction(0.001)
        try:
            assert not partial(fits_on_gpu, step, 2**40, device)(4096)  # really out of memory
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    del step, fits
    gc.collect()
    assert torch.cuda.memory_allocated(device) <= before + 2**20
