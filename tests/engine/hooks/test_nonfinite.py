"""A loss that is not finite: stopped before the step, explained, shown again, or passed over."""

import logging

import pytest
import torch
from mmengine.hooks import Hook

from fldet.checkpoints.files import read_checkpoint
from fldet.config.load import load_config
from fldet.engine.replay import replay
from fldet.engine.train import train
from fldet.errors import CheckpointError, NonFiniteError

OPTIONS = ["train_cfg.max_iters=6", "val_dataloader=None", "default_hooks.checkpoint.interval=2"]


class SpoilHook(Hook):
    """Makes something infinite before some iterations."""

    def __init__(self, spoil, *iterations):
        self.spoil = spoil
        self.iterations = iterations

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 in self.iterations:
            self.spoil(runner.model, data_batch)


def spoil_image(model, batch):
    batch["inputs"][1] = batch["inputs"][1].float() * float("inf")


def spoil_weight(model, batch):
    model.bbox_head.retina_cls.bias.data[3] = float("nan")


def spoil_neck(model, batch):
    # finite itself; what comes out of it on the third level is not
    model.neck.fpn_convs[2].conv.weight.data.fill_(3e38)


def spoil_subnet(model, batch):
    # overflows where features are large, on some level only
    model.bbox_head.retina_reg.weight.data.fill_(3e38)


@pytest.fixture
def run(tiny_config, tmp_path, with_hook):
    def start(*hooks, options=(), work_dir="run", **kwargs):
        with_hook(*hooks)
        cfg = load_config(tiny_config, [*OPTIONS, *options])
        return train(cfg, work_dir=tmp_path / work_dir, device="cpu", **kwargs)

    return start


@pytest.mark.parametrize(
    ("spoil", "first"),
    [
        (spoil_image, r"input images \(12288 of 24576 values, shape 2x3x64x64\)"),
        (spoil_weight, r"weight bbox_head.retina_cls.bias, before the iteration \(1 of"),
        (spoil_neck, r"output of neck.fpn_convs.2.conv on level P5 \(stride 32\)"),
        (spoil_subnet, r"output of bbox_head.retina_reg on level P\d \(stride \d+\)"),
    ],
)
def test_the_report_names_what_a_person_needs_and_replay_shows_it_again(
    run, tiny_config, tmp_path, spoil, first
):
    with pytest.raises(NonFiniteError, match=first) as error:
        run(SpoilHook(spoil, 3))
    text = error.value.message
    assert text.startswith("the loss of iteration 3 is not finite: loss ")
    assert "loss_cls " in text
    assert "learning rate 0.000" in text
    assert text.count(".png") == 2  # both images with their ids
    assert text.count("  image ") == 2
    file = tmp_path / "run" / "nonfinite_iter_3.pth"
    assert error.value.hint.endswith(f"--replay {file}")

    with pytest.raises(NonFiniteError) as again:
        replay(load_config(tiny_config), file, device="cpu")
    assert again.value.message == text


def test_the_run_goes_on_from_before_the_batch(run, tmp_path):
    with pytest.raises(NonFiniteError):
        run(SpoilHook(spoil_image, 5))
    state = read_checkpoint(tmp_path / "run" / "iter_4.pth")["state_dict"]
    file = read_checkpoint(tmp_path / "run" / "nonfinite_iter_5.pth")
    assert all(torch.equal(state[name], file["state_dict"][name]) for name in state)
    assert run(resume=True).iterations == 6


def test_replay_needs_a_batch(run, tiny_config):
    result = run()
    with pytest.raises(CheckpointError, match="holds no batch"):
        replay(load_config(tiny_config), result.last_checkpoint, device="cpu")


def test_replay_reports_a_batch_whose_loss_is_finite_now(run, tiny_config, tmp_path):
    with pytest.raises(NonFiniteError):
        run(SpoilHook(spoil_image, 2))
    file = tmp_path / "run" / "nonfinite_iter_2.pth"
    content = read_checkpoint(file)
    content["inputs"][1] = content["inputs"][0]
    torch.save(content, file)
    assert "iteration 2 is finite" in replay(load_config(tiny_config), file, device="cpu")


def test_a_bounded_number_of_batches_is_passed_over(run, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    result = run(SpoilHook(spoil_image, 2, 4), options=["skip_nonfinite=2"])
    assert (result.iterations, result.skipped_batches) == (6, 2)
    assert "iter 2: the loss is not finite; batch passed over (1 of at most 2)" in caplog.text
    assert "2 batches were passed over" in caplog.text
    assert result.final_losses["loss"] > 0  # not a number in the log would make it so
    with pytest.raises(NonFiniteError, match="iteration 5"):
        run(SpoilHook(spoil_image, 2, 4, 5), options=["skip_nonfinite=2"], work_dir="more")


def test_a_batch_passed_over_leaves_no_trace(run, tmp_path):
    """Weights, optimizer and the moving average of the normalizer are as before it."""

    def weights(name):
        return read_checkpoint(tmp_path / name)["state_dict"]

    average = "model.bbox_head.normalizer.type=fldet.MovingAverageCount"
    long = ["train_cfg.max_iters=3", "default_hooks.checkpoint.interval=1", f"+{average}"]
    run(SpoilHook(spoil_image, 3), options=[*long, "skip_nonfinite=1"])
    before, after = weights("run/iter_2.pth"), weights("run/iter_3.pth")
    assert "bbox_head.normalizer.average" in before
    assert all(torch.equal(before[name], after[name]) for name in before)


class PendingHook(Hook):
    """Notes what the optimizer counts, and whether gradients wait for a step, after iterations."""

    priority = "LOWEST"

    def __init__(self):
        self.counts, self.waiting = [], []

    def after_train_iter(self, runner, *args, **kwargs):
        self.counts.append(runner.optim_wrapper.inner_count)
        self.waiting.append(any(p.grad is not None for p in runner.model.parameters()))


def test_steps_of_several_batches_stay_between_the_same_iterations(run, tmp_path):
    """Passed over: the last batch of the first step, both of the second, the first of the last."""
    pending = PendingHook()
    run(
        *(SpoilHook(spoil_image, 2, 3, 4, 5), pending),
        options=["skip_nonfinite=4", "accumulate=2", "default_hooks.checkpoint.max_keep_ckpts=9"],
    )
    assert pending.counts == [1, 2, 3, 4, 5, 6]
    assert pending.waiting == [True, False, False, False, False, False]
    contents = [read_checkpoint(tmp_path / "run" / f"iter_{n}.pth") for n in (2, 4, 6)]
    assert contents[0]["optimizer"]["state"]  # the gradients of the first batch were applied
    name = "bbox_head.retina_cls.weight"
    two, four, six = (content["state_dict"][name] for content in contents)
    assert torch.equal(two, four)
    assert not torch.equal(four, six)


def test_amp_is_replayed_in_its_precision(run, tiny_config, tmp_path):
    with pytest.raises(NonFiniteError) as error:
        run(SpoilHook(spoil_image, 2), amp=True)
    file = tmp_path / "run" / "nonfinite_iter_2.pth"
    assert read_checkpoint(file)["moment"]["autocast"] == "bfloat16"
    with pytest.raises(NonFiniteError) as again:
        replay(load_config(tiny_config), file, device="cpu")
    assert again.value.message == error.value.message


def test_normal_running_has_no_hooks_on_layers(run, monkeypatch):
    counts = []

    class CountHook(Hook):
        def after_train_iter(self, runner, *args, **kwargs):
            counts.append(sum(len(m._forward_hooks) for m in runner.model.modules()))

    run(CountHook())
    assert counts == [0] * 6
