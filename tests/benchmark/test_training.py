"""What ``fldet benchmark train`` measures."""

import pytest
import torch

from fldet.analysis.flops.count import count_flops
from fldet.benchmark import training as benchmark_train
from fldet.benchmark.clock import TRAINING_STAGES
from fldet.benchmark.training import benchmark_training, in_mmdetection
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.devices import select_device
from fldet.errors import UsageError

RATES = {"conv": 50.0, "matmul": 40.0}


@pytest.fixture(autouse=True)
def no_rates(monkeypatch):
    monkeypatch.setattr("fldet.benchmark.summary.measured_rates", lambda device, dtype: RATES)


def test_times_each_stage_of_a_step_on_the_training_images(tiny_config):
    result = benchmark_training(load_config(tiny_config), steps=3, device="cpu")
    assert (result.training, result.num_images, result.batch_size) == (True, 3, 2)
    assert tuple(result.stages_ms) == TRAINING_STAGES
    assert all(ms > 0 for ms in result.stages_ms.values())
    assert result.image_shape == (64, 64)
    assert result.precision == "float32"
    assert result.images_per_second > 0


def test_the_stages_are_all_of_a_step(tiny_config):
    result = benchmark_training(load_config(tiny_config), steps=1, shape=(64, 96), device="cpu")
    assert tuple(result.stages_ms) == TRAINING_STAGES[1:]
    assert sum(result.stages_ms.values()) == pytest.approx(result.median_ms)
    assert result.images_per_second == pytest.approx(2000 / result.median_ms)


def test_in_turns_with_mmdetection_in_bfloat16_and_with_another_batch(tiny_config):
    cfg = load_config(tiny_config)
    result = benchmark_training(
        cfg, steps=2, batch_size=3, shape=(64, 96), device="cpu", amp=True, against="mmdet"
    )
    assert (result.batch_size, result.precision) == (3, "bfloat16 autocast")
    assert result.against.name == "mmdet"
    assert result.against.speedup > 0
    # Twice the forward pass again for the gradients, without those that nobody needs.
    forward = 3 * sum(call.flops for call in count_flops(cfg, (64, 96)).calls) / 1e9
    assert 2 * forward < result.gflop <= 3 * forward


def test_both_sides_have_equal_losses(tiny_config, tmp_path):
    cfg = prepare_config(load_config(tiny_config), phases=())
    device = select_device("cpu")
    ours = benchmark_train._Trainer(cfg, device, str(tmp_path))
    stock = benchmark_train._Trainer(in_mmdetection(cfg), device, str(tmp_path))
    benchmark_train._close_logs()
    assert type(stock.model.bbox_head).__module__.startswith("mmdet.")
    assert type(stock.model.bbox_head.assigner).__module__.startswith("mmdet.")
    stock.model.load_state_dict(ours.model.state_dict())
    before = {name: value.clone() for name, value in ours.model.named_parameters()}
    batch = next(benchmark_train._random_batches(2, (64, 96), 2))
    found, expected = (
        one.model.train_step(batch, optim_wrapper=one.optimizer) for one in (ours, stock)
    )
    for name in ("loss_cls", "loss_bbox"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    assert ours.optimizer.optimizer.state  # a step was done
    for name, value in ours.model.named_parameters():
        assert torch.equal(value, before[name])  # the learning rate is 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.bbox_head.loss_cls.type=fldet.FocalLossStar"], "fldet.FocalLossStar has no"),
        (["model.bbox_head.loss_cls.alpha=None"], "fldet.FocalLoss with alpha=None has no"),
        (
            ["+model.bbox_head.loss_cls.class_weight=[1.0, 2.0]"],
            r"fldet.FocalLoss with class_weight=\[1.0, 2.0\] has no",
        ),
        (["+model.train_cfg.miner={'type': 'fldet.OHEM'}"], "train_cfg.miner has no counterpart"),
    ],
)
def test_what_mmdetection_lacks_is_not_compared(tiny_config, overrides, message):
    cfg = prepare_config(load_config(tiny_config, overrides), phases=())
    with pytest.raises(UsageError, match=message) as refused:
        in_mmdetection(cfg)
    assert "--against" in refused.value.hint


@pytest.mark.gpu
def test_a_step_on_a_gpu(tiny_config):
    cfg = load_config(tiny_config)
    result = benchmark_training(cfg, steps=2, shape=(64, 96), device="cuda", amp=True)
    assert result.peak_memory_mib > 0
    assert tuple(result.stages_ms) == TRAINING_STAGES[1:]


def test_a_config_by_epochs_is_timed_on_its_images(tiny_config):
    cfg = load_config(tiny_config)
    cfg.train_cfg = {"type": "EpochBasedTrainLoop", "max_epochs": 1}
    cfg.custom_hooks = [{"type": "YOLOXModeSwitchHook"}]
    result = benchmark_training(cfg, steps=1, device="cpu")
    assert (result.num_images, result.image_shape) == (1, (64, 64))


def test_a_norm_with_one_value_is_named(tiny_config):
    cfg = load_config(tiny_config, {"model.neck.norm_cfg": {"type": "BN"}})
    with pytest.raises(UsageError, match="one value of each channel"):
        benchmark_training(cfg, steps=1, batch_size=1, shape=(32, 32), device="cpu")
