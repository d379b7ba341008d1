"""Sizes of batches that follow from seed and iteration alone: exact after a stop."""

from collections import Counter

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

from fldet.config.load import load_config
from fldet.data.preprocessor import SizeByIteration
from fldet.engine.replay import replay
from fldet.engine.train import train
from fldet.errors import NonFiniteError
from fldet.registry import MODELS


@pytest.fixture
def hub():
    before = dict(MessageHub._instance_dict)
    MessageHub._instance_dict.clear()
    yield MessageHub.get_current_instance()
    MessageHub._instance_dict.clear()
    MessageHub._instance_dict.update(before)


def batch():
    sample = DetDataSample(metainfo={"img_shape": (64, 96), "pad_shape": (64, 96)})
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[8.0, 16.0, 48.0, 64.0]]), labels=torch.tensor([1])
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
    rows = torch.arange(64.0)[:, None].expand(64, 96)
    return rows.expand(1, 3, 64, 96).clone(), [sample]


def test_ten_sides_every_ten_iterations_and_the_largest_at_the_end():
    sizes = SizeByIteration()
    sides = [sizes.side(0, i, 20_000) for i in range(20_000)]
    blocks = [set(sides[i : i + 10]) for i in range(0, 19_800, 10)]
    assert all(len(block) == 1 for block in blocks)
    counts = Counter(side for block in blocks for side in block)
    assert sorted(counts) == list(range(320, 609, 32))
    assert min(counts.values()) > 150  # of 198
    assert set(sides[19_800:]) == {608}
    assert sides[:500] != [sizes.side(1, i, 20_000) for i in range(500)]


def test_images_boxes_and_sizes_change_together(hub):
    sizes = SizeByIteration(32, 128, step=32, interval=1, last=0)
    hub.update_info_dict({"seed": 0, "max_iters": 100})
    seen = set()
    for iteration in range(12):
        hub.update_info("iter", iteration)
        inputs, samples = sizes(*batch())
        share = sizes.side(0, iteration, 100) / 128
        height, width = inputs.shape[-2:]
        seen.add((height, width))
        assert (height, width) == (max(32, round(2 * share) * 32), max(32, round(3 * share) * 32))
        assert samples[0].img_shape == samples[0].pad_shape == (height, width)
        wanted = torch.tensor([[8 / 96, 16 / 64, 0.5, 1.0]]) * torch.tensor([width, height] * 2)
        torch.testing.assert_close(samples[0].gt_instances.bboxes, wanted)
        assert inputs[0, 0, height // 2].mean() == pytest.approx(32, abs=1.1)
    assert len(seen) > 2


def test_outside_of_a_training_nothing_changes(hub):
    inputs, samples = batch()
    after, same = SizeByIteration()(inputs, samples)
    assert after is inputs
    assert same is samples
    assert same[0].img_shape == (64, 96)


def test_only_trainings_see_other_sizes(hub):
    sizes = {"type": "fldet.SizeByIteration", "smallest": 32, "largest": 96}
    sides = [SizeByIteration(32, 96).side(0, i, 10_000) for i in range(100)]
    side = min(sides)
    hub.update_info_dict({"seed": 0, "max_iters": 10_000, "iter": sides.index(side)})
    assert side < 96
    for kind in ("DetDataPreprocessor", "fldet.DetDataPreprocessor"):
        preprocessor = MODELS.build({"type": kind, "pad_value": 0.5, "batch_augments": [sizes]})
        image = torch.zeros(3, 96, 96, dtype=torch.uint8)
        for training, wanted in ((True, side), (False, 96)):
            data = {"inputs": [image], "data_samples": batch()[1]}
            assert preprocessor(data, training)["inputs"].shape[-1] == wanted


@pytest.mark.parametrize("options", [{"smallest": 300}, {"interval": 0}, {"last": -1}, {"step": 0}])
def test_refuses_sizes_that_cannot_be(options):
    with pytest.raises(ValueError, match="no sizes from"):
        SizeByIteration(**options)


@pytest.mark.slow
def test_a_run_resumed_inside_an_interval_is_the_run_that_was_never_stopped(tiny_config, tmp_path):
    """Three iterations of one size, a stop after the second."""
    options = {"smallest": 32, "largest": 64, "step": 32, "interval": 3, "last": 0}
    sizes = {"type": "fldet.SizeByIteration", **options}

    def run(name, iterations, **options):
        cfg = load_config(tiny_config, [f"train_cfg.max_iters={iterations}"])
        cfg.model.data_preprocessor.batch_augments = [sizes]
        cfg.param_scheduler, cfg.train_cfg.val_interval = [], 100
        result = train(cfg, work_dir=tmp_path / name, device="cpu", seed=SEED, **options)
        return torch.load(result.last_checkpoint, weights_only=True)["state_dict"]

    drawn = [SizeByIteration(32, 64, interval=3, last=0).side(SEED, i, 4) for i in range(4)]
    assert drawn == [32, 32, 32, 64]
    whole = run("whole", 4)
    run("parts", 2)
    parts = run("parts", 4, resume=True)
    assert whole.keys() == parts.keys()
    assert all(whole[name].equal(parts[name]) for name in whole)


@pytest.mark.slow
def test_a_batch_is_replayed_in_its_size(tiny_config, tmp_path, with_hook, hub):
    class Spoil(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            data_batch["inputs"][1] = data_batch["inputs"][1].float() * float("inf")

    with_hook(Spoil())
    cfg = load_config(tiny_config)
    sizes = {"type": "fldet.SizeByIteration", "smallest": 32, "largest": 64, "last": 0}
    cfg.model.data_preprocessor.batch_augments = [sizes]
    words = r"input images \(\d+ of \d+ values, shape 2x3x32x32\)"
    with pytest.raises(NonFiniteError, match=words):
        train(cfg, work_dir=tmp_path, device="cpu", seed=SEED)
    MessageHub._instance_dict.clear()  # as in a process of its own
    with pytest.raises(NonFiniteError, match=words):
        replay(cfg, tmp_path / "nonfinite_iter_1.pth", device="cpu")


SEED = next(
    seed
    for seed in range(50)
    if [SizeByIteration(32, 64, interval=3, last=0).side(seed, i, 4) for i in (2, 3)] == [32, 64]
)
