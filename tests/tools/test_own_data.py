"""tools/own_data.py: the contestants of equal minutes, and the rows of its table."""

import importlib.util
from pathlib import Path

import pytest
from mmdet.registry import MODELS

from fldet.config.load import load_config
from fldet.config.prepare import prepare_config

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("own_data", ROOT / "tools" / "own_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_contestants_differ_in_the_model_and_not_in_size_batch_or_data(
    tool, tiny_coco, tmp_path
):
    paths = tool.contestants(tiny_coco, tmp_path)
    lite, small, peer = configs = [
        prepare_config(load_config(path), phases=("train", "val")) for path in paths
    ]
    assert tuple(lite.train_pipeline[2]["scale"]) == tuple(peer.train_pipeline[2]["scale"])
    assert lite.train_dataloader.batch_size == peer.train_dataloader.batch_size
    for split in ("train_dataloader", "val_dataloader"):
        files = {cfg[split].dataset.ann_file for cfg in configs}
        assert len(files) == 1, split
    assert lite.model.backbone.type != small.model.backbone.type


def test_the_peer_is_mmdetections_own_model_of_which_everything_trains(tool, tiny_coco, tmp_path):
    cfg = load_config(tool.contestants(tiny_coco, tmp_path)[2])
    cfg = prepare_config(cfg, phases=("train", "val"))
    model = MODELS.build(cfg.model)
    parts = (model, model.backbone, model.neck, model.bbox_head)
    assert {type(part).__module__.partition(".")[0] for part in parts} == {"mmdet"}
    assert model.bbox_head.num_classes == 2
    kinds = {one["type"] for one in model.backbone.init_cfg}
    assert kinds == {"Kaiming", "Constant"}  # MMDetection's own start, without weights of a file
    model.train()
    assert all(value.requires_grad for value in model.parameters())
    assert model.backbone.bn1.training


def test_contestants_that_are_there_are_kept(tool, tiny_coco, tmp_path):
    first = tool.contestants(tiny_coco, tmp_path)
    first[0].write_text(first[0].read_text() + "\n# mine\n")
    assert tool.contestants(tiny_coco, tmp_path)[0].read_text().endswith("# mine\n")


def test_a_contestant_that_failed_keeps_its_row(tool):
    done = {"name": "lite", "state": "done", "ap": 12.04, "ap50": 26.2, "iterations": 204}
    failed = {"name": "small", "state": "failed", "reason": "no memory"}
    assert tool.figures("faces", [done | {"minutes": 4.13}, failed]) == [
        ("faces", "lite", "12.0", "26.2", "204", "4.1"),
        ("faces", "small", "failed", "no memory", "", ""),
    ]
