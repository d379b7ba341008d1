import argparse
import errno
import os

import pytest
import torch
from mmengine.runner import save_checkpoint as mmengine_save
from torch import nn

from fldet.engine.checkpoint import (
    checkpoint_classes,
    forbid_code_in_checkpoints,
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


def test_a_refusal_names_the_code_and_trust_runs_it(tmp_path):
    path, target = tmp_path / "evil.pth", tmp_path / "was_run"
    torch.save({"state_dict": Payload(target)}, path)
    with pytest.raises(CheckpointError, match=r"needs posix.mkdir, which may run code") as error:
        read_checkpoint(path)
    assert "--trust-checkpoint" in error.value.hint
    assert not target.exists()
    read_checkpoint(path, trust=True)
    assert target.exists()
    target.rmdir()
    with pytest.raises(CheckpointError):  # trust is for one file, not from now on
        read_checkpoint(path)
    assert not target.exists()


def test_what_is_harmless_but_unknown_is_named_too(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"state_dict": {}, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(CheckpointError, match=r"needs argparse\.Namespace"):
        read_checkpoint(path)
    assert read_checkpoint(path, trust=True)["args"].lr == 1


def test_a_damaged_file_is_not_cured_by_trust(tmp_path):
    path = tmp_path / "broken.pth"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="cannot read"):
        read_checkpoint(path, trust=True)


def save_with_mmengine(path):
    mmengine_save({"state_dict": {"a": torch.zeros(1000)}}, str(path))


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_file_and_no_litter(tmp_path, monkeypatch, step):
    path = tmp_path / "iter_2.pth"
    save_with_mmengine(path)
    before = path.read_bytes()

    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "write":
        monkeypatch.setattr(os, "fdopen", fail)
    else:
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(CheckpointError, match=r"cannot write .*iter_2.pth: No space left") as error:
        save_with_mmengine(path)
    monkeypatch.undo()
    assert "MiB of room" in error.value.expected
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["iter_2.pth"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_a_really_full_disk(tmp_path):
    """A file system of 1 MB, where the system lets us mount one; else the tests above stand."""
    import subprocess

    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    try:
        save_with_mmengine(folder / "iter_1.pth")
        (folder / "ballast").write_bytes(bytes(1000 * 1000))
        with pytest.raises(CheckpointError, match="No space left"):
            mmengine_save({"a": torch.zeros(100_000)}, str(folder / "iter_2.pth"))
        assert sorted(p.name for p in folder.iterdir()) == ["ballast", "iter_1.pth"]
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_code_is_not_run_by_mmengine_either(tmp_path):
    from mmengine.runner.checkpoint import load_checkpoint

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
