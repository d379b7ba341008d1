"""The losses of a validation against those of the training pipeline on the same images."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.engine.hooks import val_loss
from fldet.engine.hooks.val_loss import ValLossHook, bring_boxes_to_input
from fldet.engine.train import train
from fldet.errors import ConfigError
from fldet.registry import DATASETS

# Images of 64 pixels become 96 wide and 80 high: the two axes differ.
RESIZE = dict(type="Resize", scale=(96, 80), keep_ratio=False)


def pipeline(*, boxes_first):
    steps = [RESIZE, dict(type="LoadAnnotations", with_bbox=True)]
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    return [
        dict(type="LoadImageFromFile"),
        *(reversed(steps) if boxes_first else steps),
        dict(type="PackDetInputs", meta_keys=keys),
    ]


@pytest.fixture
def prepared(tiny_config):
    cfg = load_config(tiny_config, ["+val_loss=True"])
    cfg.val_dataloader.dataset.pipeline = pipeline(boxes_first=False)
    return prepare_config(cfg, phases=("train", "val"))


@pytest.fixture
def model(prepared):
    torch.manual_seed(0)
    return build_model(prepared).eval()


def batch(cfg, *, boxes_first, images=(0, 1)):
    dataset = copy.deepcopy(cfg.val_dataloader.dataset)
    dataset.pipeline = pipeline(boxes_first=boxes_first)
    built = DATASETS.build(dataset)
    return pseudo_collate([built[index] for index in images])


def expected_losses(model, data_batch):
    """The losses as a training step computes them."""
    data = model.data_preprocessor(data_batch, True)
    _, values = model.parse_losses(model(**data, mode="loss"))
    return {name: value.item() for name, value in values.items()}


def test_equals_the_loss_of_the_training_pipeline(prepared, model):
    expected = expected_losses(model, batch(prepared, boxes_first=True))
    found, _ = ValLossHook().losses(model, batch(prepared, boxes_first=False))
    assert found == pytest.approx(expected, rel=1e-6)
    assert set(found) == {"loss", "loss_cls", "loss_bbox"}
    other = ValLossHook(boxes_in_file=False)
    loaded_first, _ = other.losses(model, batch(prepared, boxes_first=True))
    assert loaded_first == pytest.approx(expected, rel=1e-6)
    wrong, _ = other.losses(model, batch(prepared, boxes_first=False))
    assert wrong["loss"] != pytest.approx(expected["loss"], rel=1e-3)


def test_an_image_without_boxes_has_a_loss_of_the_background_only(prepared, model):
    found, _ = ValLossHook().losses(model, batch(prepared, boxes_first=False, images=(5,)))
    assert found["loss_bbox"] == 0
    assert found["loss"] == pytest.approx(found["loss_cls"])
    assert found["loss_cls"] > 0


def test_neither_batch_nor_model_is_changed(prepared, model):
    data_batch = batch(prepared, boxes_first=False)
    boxes = [sample.gt_instances.bboxes.tensor.clone() for sample in data_batch["data_samples"]]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    ValLossHook().losses(model, data_batch)
    for before, sample in zip(boxes, data_batch["data_samples"], strict=True):
        torch.testing.assert_close(sample.gt_instances.bboxes.tensor, before)
    torch.testing.assert_close(dict(model.state_dict()), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_boxes_are_scaled_on_both_axes_and_cut_off_at_the_edge():
    boxes = InstanceData(bboxes=torch.tensor([[10.0, 10, 20, 20], [-4, 0, 70, 64]]))
    none = InstanceData(bboxes=torch.zeros(0, 4))
    sample = SimpleNamespace(img_shape=(32, 128), scale_factor=(2.0, 0.5), gt_instances=boxes)
    sample.get = {"ignored_instances": none}.get
    bring_boxes_to_input(sample)
    assert boxes.bboxes.tolist() == [[20, 5, 40, 10], [0, 0, 128, 32]]
    assert none.bboxes.shape == (0, 4)


OHEM = dict(type="fldet.OHEM", num_examples=64, neg_pos_ratio=3, divisor="selected")


@pytest.mark.parametrize("miner", [None, OHEM], ids=["all", "mined"])
def test_the_batch_size_does_not_matter(prepared, miner):
    """A miner that divides ``loss_cls`` by what it selects, ``loss_bbox`` as ever."""
    prepared.model.train_cfg.miner = miner
    torch.manual_seed(0)
    model = build_model(prepared).eval()

    def figure(*batches):
        hook, hub, metrics = ValLossHook(), MessageHub.get_instance("val_loss_batches"), {}
        runner = SimpleNamespace(model=model, val_dataloader=batches, message_hub=hub)
        hook.before_val_epoch(runner)
        for index, images in enumerate(batches):
            data_batch = batch(prepared, boxes_first=False, images=images)
            hook.after_val_iter(runner, index, data_batch)
        hook.after_val_epoch(runner, metrics)
        assert metrics["val/loss"] == metrics["val/loss_cls"] + metrics["val/loss_bbox"]
        metrics.pop("val/num_mined", None)  # of a batch
        return metrics

    whole = figure((0, 1, 2))
    assert figure((0,), (1,), (2,)) == pytest.approx(whole, rel=1e-5)
    assert figure((0, 1), (2,)) == pytest.approx(whole, rel=1e-5)


def test_another_head_weighs_its_images(prepared, model, monkeypatch):
    data_batch = batch(prepared, boxes_first=False)
    head = model.bbox_head
    assert ValLossHook().losses(model, data_batch)[1]["loss_cls"] > 2  # anchors assigned to boxes
    del head.normalizer
    monkeypatch.setattr(type(head), "loss", lambda *_: {"loss_cls": torch.ones(())})
    assert ValLossHook().losses(model, data_batch) == (
        {"loss": 1.0, "loss_cls": 1.0},
        {"loss_cls": 2.0},
    )
    monkeypatch.setattr(type(head), "loss", lambda *_: {"loss": torch.ones(())})
    assert ValLossHook().losses(model, data_batch) == ({"loss": 1.0}, {"loss": 2.0})


def test_mean_over_all_processes(monkeypatch):
    other = ({"loss_cls": 8.0, "n": 3.0}, {"loss_cls": 1.0, "n": 1.0})  # half this one's weight
    monkeypatch.setattr(val_loss, "all_gather_object", lambda mine: [mine, other])
    hook, hub = ValLossHook(), MessageHub("val_loss_mean")
    hook._sums.update(loss_cls=2 * 2.0, n=3.0)
    hook._weights.update(loss_cls=2.0, n=1.0)
    hub.update_scalar("val/val/loss", 100.0)  # of an earlier validation
    metrics = {"coco/AP": 0.5}
    hook.after_val_epoch(SimpleNamespace(message_hub=hub), metrics)
    assert metrics == {"coco/AP": 0.5, "val/loss": 4.0, "val/loss_cls": 4.0, "val/n": 3.0}
    assert hub.get_scalar("val/val/loss").mean() == 4.0


def test_uneven_processes_are_refused_before_they_hang(monkeypatch):
    monkeypatch.setattr(val_loss, "all_gather_object", lambda mine: [mine, mine + 1])
    with pytest.raises(ConfigError, match=r"\[3, 4\] batches"):
        ValLossHook().before_val_epoch(SimpleNamespace(val_dataloader=[0, 1, 2]))


def test_every_validation_of_a_training_logs_its_own(tiny_config, tmp_path):
    changes = ["+val_loss=True", "train_cfg.val_interval=2", "default_hooks.logger.interval=1"]
    cfg = load_config(tiny_config, [*changes, "default_hooks.checkpoint.save_best=val/loss"])
    cfg.default_hooks.checkpoint.rule = "less"
    cfg.visualizer.name = "val_loss"  # it writes the scalars, and is one for each name and process
    result = train(cfg, work_dir=tmp_path / "run", device="cpu")
    lines = next((tmp_path / "run").glob("*/vis_data/scalars.json")).read_text().splitlines()
    losses = [one for one in map(json.loads, lines) if "val/loss" in one]
    assert len(losses) == 2
    for one in losses:
        assert one["val/loss"] == pytest.approx(one["val/loss_cls"] + one["val/loss_bbox"])
        assert "coco/AP" in one
    assert losses[0]["val/loss"] != losses[1]["val/loss"]
    assert result.best_checkpoint.name.startswith("best_val_loss_iter_")


def test_the_resolved_config_of_such_a_run_has_the_hook_once(prepared):
    again = prepare_config(prepared, phases=("train", "val"))
    kinds = [hook["type"] for hook in again.custom_hooks]
    assert kinds == ["fldet.ProgressHook", "fldet.ValLossHook"]


def test_where_boxes_are_loaded_is_read_from_the_pipeline(tiny_config):
    for boxes_first in (False, True):
        cfg = load_config(tiny_config, ["+val_loss=True"])
        cfg.val_dataloader.dataset.pipeline = pipeline(boxes_first=boxes_first)
        hook = prepare_config(cfg, phases=("val",)).custom_hooks[-1]
        assert hook["boxes_in_file"] is not boxes_first


def test_a_wrong_value_and_a_pipeline_without_boxes_are_named(tiny_config):
    cfg = load_config(tiny_config, ["+val_loss=1"])
    with pytest.raises(ConfigError, match="val_loss is 1"):
        prepare_config(cfg, phases=("val",))
    cfg = load_config(tiny_config, ["+val_loss=True"])
    del cfg.val_dataloader.dataset.pipeline[2]
    with pytest.raises(ConfigError, match="loads no boxes"):
        prepare_config(cfg, phases=("val",))


def test_without_the_key_there_is_no_hook(tiny_config):
    cfg = prepare_config(load_config(tiny_config), phases=("train", "val"))
    assert [hook["type"] for hook in cfg.custom_hooks] == ["fldet.ProgressHook"]
