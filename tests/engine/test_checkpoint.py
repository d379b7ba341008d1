import os

import pytest
import torch
from torch import nn

from fldet.engine.checkpoint import (
    checkpoint_classes,
    load_weights,
    newest_checkpoint,
    read_checkpoint,
    resolve_checkpoint,
)
from fldet.errors import CheckpointError


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    path, target = tmp_path / "evil.pth", tmp_path / "was_run"
    torch.save({"state_dict": Payload(target)}, path)
    with pytest.raises(CheckpointError, match="cannot read checkpoint"):
        read_checkpoint(path)
    assert not target.exists()


def test_code_is_not_run_by_mmengine_either(tmp_path):
    from mmengine.runner.checkpoint import load_checkpoint

    from fldet.engine.checkpoint import forbid_code_in_checkpoints

    path, target = tmp_path / "evil.pth", tmp_path / "was_run"
    torch.save({"state_dict": Payload(target)}, path)
    forbid_code_in_checkpoints()
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load_checkpoint(nn.Linear(1, 1), str(path))
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "checkpoint not found"), (b"", "cannot read"), (b"not a checkpoint", "cannot read")],
)
def test_unreadable_files_are_named(tmp_path, content, message):
    path = tmp_path / "broken.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{message}.*broken.pth"):
        read_checkpoint(path)


def test_truncated_file(tmp_path):
    path = tmp_path / "cut.pth"
    torch.save({"state_dict": nn.Linear(100, 100).state_dict()}, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"cannot read checkpoint .*cut.pth"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(3, 2)}, "bias is missing"),
        (
            {"weight": torch.zeros(3, 5), "bias": torch.zeros(3)},
            r"weight is \(3, 5\), the model has \(3, 2\)",
        ),
        (
            {
                "weight": torch.zeros(3, 2),
                "bias": torch.zeros(3),
                "a": torch.zeros(1),
                "b": torch.zeros(1),
            },
            r"a is not in the model \(and 1 more\)",
        ),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, state, message):
    with pytest.raises(CheckpointError, match=message):
        load_weights(nn.Linear(2, 3), {"state_dict": state}, tmp_path / "x.pth")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}], ids=["bare", "nested"])
def test_weights_load_with_or_without_a_wrapper(tmp_path, wrap):
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    load_weights(target, wrap(state), tmp_path / "x.pth")
    assert torch.equal(source.weight, target.weight)


@pytest.mark.parametrize(
    ("content", "classes"),
    [
        ({}, None),
        ({"meta": {"dataset_meta": {"classes": ("a", "b")}}}, ("a", "b")),
        ({"meta": {"dataset_meta": {"CLASSES": ["a"]}}}, ("a",)),  # MMDetection 3.0
        ({"meta": {"CLASSES": ("a",)}}, ("a",)),  # MMDetection 2
        ({"meta": {"dataset_meta": None}}, None),
    ],
)
def test_classes_of_a_checkpoint(content, classes):
    assert checkpoint_classes(content) == classes


def test_a_work_dir_stands_for_its_best_then_its_newest_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        resolve_checkpoint(tmp_path)
    for name in ("iter_9.pth", "iter_10.pth"):
        (tmp_path / name).touch()
    assert resolve_checkpoint(tmp_path).name == newest_checkpoint(tmp_path).name == "iter_10.pth"
    (tmp_path / "best_coco_AP_iter_9.pth").touch()
    assert resolve_checkpoint(tmp_path).name == "best_coco_AP_iter_9.pth"
