"""What docs/migration.md says of MMDetection's configs and of checkpoints of its runs."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from fldet.checkpoints.paths import newest_checkpoint
from fldet.config.load import load_config
from fldet.engine.train import train
from fldet.inference.detector import Detector

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "migration.md"


def test_the_config_of_the_page_keeps_mmdetections_model(tmp_path):
    (text,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (tmp_path / "mine.py").write_text(text)
    cfg = load_config(tmp_path / "mine.py")
    theirs = load_config("mmdet::_base_/models/retinanet_r50_fpn.py")
    assert cfg.model.pop("_scope_") == "mmdet"
    assert cfg.model == theirs.model
    assert cfg.train_dataloader.dataset.type == "fldet.CocoDataset"


@pytest.mark.slow
def test_a_run_of_mmengines_runner_is_predicted_with_and_gone_on_with(
    tiny_config, tmp_path, monkeypatch
):
    """Without validation: how the figures are called would differ."""
    cfg = load_config(tiny_config)
    theirs = load_config("mmdet::_base_/models/retinanet_r50_fpn.py").model
    head = cfg.model.bbox_head
    for name in ("type", "anchor_generator", "loss_cls", "loss_bbox"):
        head[name] = theirs.bbox_head[name]
    for name in ("prior_prob", "normalizer"):
        head.pop(name)
    head.num_classes = 2
    cfg.model.train_cfg.assigner = theirs.train_cfg.assigner
    cfg.train_dataloader.dataset.type = "CocoDataset"
    cfg.train_dataloader.dataset.data_root = cfg.data_root
    cfg.train_dataloader.dataset.metainfo = {"classes": ("square", "circle")}
    cfg.train_dataloader.dataset.pop("max_broken_images")
    cfg.train_dataloader.persistent_workers = False
    cfg.default_hooks.checkpoint = {"type": "CheckpointHook", "by_epoch": False, "interval": 2}
    cfg.test_pipeline = cfg.val_dataloader.dataset.pipeline
    for name in ("custom_hooks", "randomness", "auto_scale_lr"):
        cfg.pop(name)
    cfg.update({f"val_{name}": None for name in ("cfg", "dataloader", "evaluator")})
    cfg.update({f"test_{name}": None for name in ("cfg", "dataloader", "evaluator")})
    cfg.train_cfg.max_iters = 2
    cfg.train_cfg.pop("val_interval")
    cfg.work_dir = str(tmp_path / "theirs")
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    Runner.from_cfg(cfg).train()

    detector = Detector.load(tmp_path / "theirs" / "iter_2.pth", device="cpu")
    assert detector.classes == ("square", "circle")
    (found,) = detector.predict(Path(cfg.data_root, "val2017", "0.png"), score_thr=0.0)
    assert len(found) > 0

    cfg.train_cfg.max_iters = 3
    result = train(cfg, work_dir=tmp_path / "theirs", resume=True, device="cpu")
    assert result.iterations == 3
    assert torch.isfinite(torch.tensor(result.final_losses["loss"]))


def test_mmdetections_inferencer_takes_a_run_of_ours(tiny_run, monkeypatch, recwarn):
    from mmdet.apis import DetInferencer

    cfg, work_dir = tiny_run
    (config,), weights = work_dir.glob("*.py"), newest_checkpoint(work_dir)
    image = Path(cfg.data_root, "val2017", "0.png")
    inferencer = DetInferencer(str(config), str(weights), device="cpu", show_progress=False)
    theirs = inferencer(str(image), no_save_pred=True)["predictions"][0]
    (ours,) = Detector.load(weights, device="cpu").predict(image, score_thr=0.0)
    assert len(ours) > 20
    torch.testing.assert_close(torch.tensor(theirs["scores"]), torch.tensor(ours.scores))
    torch.testing.assert_close(torch.tensor(theirs["bboxes"]), torch.tensor(ours.boxes))
    assert theirs["labels"] == ours.labels.tolist()
