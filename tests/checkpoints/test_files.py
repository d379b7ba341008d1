import argparse
import copy
import errno
import logging
import os
import zipfile
from pathlib import Path

import pytest
import torch
from mmengine.runner import save_checkpoint as mmengine_save
from torch import nn

from fldet import files
from fldet.analysis.loss_cdf.logits import collect_logits
from fldet.benchmark.predict import benchmark
from fldet.checkpoints.files import (
    checkpoint_classes,
    forbid_code_in_checkpoints,
    load_weights,
    read_checkpoint,
    usable_checkpoints,
)
from fldet.checkpoints.paths import newest_checkpoint, resolve_checkpoint
from fldet.engine.test import test as run_test
from fldet.engine.train import train
from fldet.errors import CheckpointError, ConfigError
from fldet.inference.detector import Detector

FILE = Path("x.pth")


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
        monkeypatch.setattr(files, "open", fail, raising=False)
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
    with pytest.raises(CheckpointError, match="may run code"):
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
    assert checkpoint_classes(content, FILE) == classes


def test_a_work_dir_stands_for_its_best_then_its_newest_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        resolve_checkpoint(tmp_path)
    for name in ("iter_9.pth", "iter_10.pth"):
        (tmp_path / name).touch()
    assert resolve_checkpoint(tmp_path).name == newest_checkpoint(tmp_path).name == "iter_10.pth"
    (tmp_path / "best_coco_AP_iter_9.pth").touch()
    assert resolve_checkpoint(tmp_path).name == "best_coco_AP_iter_9.pth"


def hostile(content, target):
    """Returns files that are not what their name says, with words of the refusal."""
    weights, code = content["state_dict"], Payload(target)
    first = next(iter(weights))
    return {
        "code in the optimizer": ({**content, "optimizer": code}, r"posix\.mkdir"),
        "code in meta": ({**content, "meta": {**content["meta"], "x": code}}, r"posix\.mkdir"),
        "code in the log history": ({**content, "message_hub": code}, r"posix\.mkdir"),
        "a list": ([1, 2], "holds a list"),
        "weights are a text": ({**content, "state_dict": "a"}, "holds no weights"),
        "no weights": ({**content, "state_dict": {}}, "holds no weights"),
        "a weight is a number": ({**content, "state_dict": {first: 1}}, f"{first}' is a int"),
        "numbers for names": ({**content, "state_dict": {1: torch.zeros(1)}}, "weight 1 is a"),
        "empty": (b"", "the file is empty"),
        "a text": (b"hello" * 100, r"not a file that torch\.save has written"),
        "an ONNX file": (b"\x08\x08\x12\x07pytorch" * 50, r"not a file that torch\.save"),
    }


HOSTILE = tuple(hostile({"state_dict": {"a": 1}, "meta": {}}, ""))


@pytest.mark.parametrize("kind", HOSTILE)
def test_every_command_refuses_a_hostile_checkpoint(tiny_run, tmp_path, kind):
    cfg, run = tiny_run
    target, path = tmp_path / "was_run", tmp_path / "run" / "iter_4.pth"
    path.parent.mkdir()
    content, words = hostile(read_checkpoint(run / "iter_4.pth"), target)[kind]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    out = tmp_path / "out"
    commands = {
        "train": lambda: train(with_weights(cfg, path), work_dir=out, device="cpu"),
        "test": lambda: run_test(cfg, path, work_dir=out, device="cpu"),
        "predict, export": lambda: Detector.load(path, cfg, "cpu"),
        "benchmark": lambda: benchmark(cfg, path, device="cpu"),
        "analyze": lambda: collect_logits(cfg, path, out / "logits.npz", device="cpu"),
    }
    for command in commands.values():
        with pytest.raises(CheckpointError, match=words):
            command()
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        train(cfg, work_dir=path.parent, resume=True, device="cpu")
    assert not target.exists()


def with_weights(cfg, path):
    cfg = copy.deepcopy(cfg)
    cfg.load_from = str(path)
    return cfg


def info_of(content):
    return content["message_hub"]["runtime_info"]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["param_schedulers"][0].clear(),
        lambda content: content["optimizer"]["param_groups"][0].update(lr="fast"),
        lambda content: content["optimizer"]["param_groups"][0].update(momentum=float("inf")),
        lambda content: content["optimizer"]["param_groups"][0].update(weight_decay=[0]),
        lambda content: content["optimizer"].update(state=[]),
        lambda content: content["optimizer"]["state"].update({0: {"momentum_buffer": [[1]]}}),
        lambda content: content["optimizer"]["state"].update({0: {"momentum_buffer": 3}}),
        lambda content: content["optimizer"]["state"].update({0: 3}),
        lambda content: content["param_schedulers"][0].update(last_step="1"),
        lambda content: content["param_schedulers"][0].update(base_values=["1"]),
    ],
)
def test_a_state_of_other_kinds_ends_a_resume_in_good_order(tiny_run, tmp_path, change):
    cfg, run = tiny_run
    content = read_checkpoint(run / "iter_4.pth")
    change(content)
    torch.save(content, tmp_path / "iter_4.pth")
    longer = copy.deepcopy(cfg)
    longer.train_cfg.max_iters = 6
    with pytest.raises((CheckpointError, ConfigError)):
        train(longer, work_dir=tmp_path, resume=True, device="cpu")
    assert (tmp_path / "iter_4.pth").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content["meta"].pop("seed"), "has no seed"),
        (lambda content: content.update(meta="x"), "has no meta"),
        (lambda content: content.update(message_hub={}), "has no log history"),
        (lambda content: content.update(optimizer={}), "has no optimizer"),
        (lambda content: info_of(content).update(best_score="0.5"), "that is no number"),
        (lambda content: info_of(content).update(best_score=float("nan")), "that is no number"),
        (lambda content: info_of(content).update(validated_iter=[4]), "that is no number"),
        (lambda content: content["meta"].update(iter=5), "of another iteration"),
    ],
)
def test_a_checkpoint_with_less_than_a_run_is_passed_over(
    tiny_run, tmp_path, caplog, monkeypatch, change, words
):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    content = read_checkpoint(tiny_run[1] / "iter_4.pth")
    change(content)
    torch.save(content, tmp_path / "iter_4.pth")
    assert list(usable_checkpoints(tmp_path)) == []
    assert words in caplog.text


def test_one_wrong_bit_is_noticed(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {"a": torch.zeros(10_000)}}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"its part x/data/0 is damaged"):
        read_checkpoint(path)


def test_a_small_file_cannot_become_a_large_one(tmp_path):
    """A compressed part has not the size that its tensor says, and is refused."""
    path, bomb = tmp_path / "x.pth", tmp_path / "bomb.pth"
    torch.save({"state_dict": {"a": torch.zeros(10)}}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(2**22) if name.endswith("data/0") else old.read(name))
    assert bomb.stat().st_size < 20_000
    with pytest.raises(CheckpointError, match="a part of it is compressed"):
        read_checkpoint(bomb)


def test_a_config_in_a_checkpoint_is_not_run(tiny_run, tmp_path):
    content = read_checkpoint(tiny_run[1] / "iter_4.pth")
    target = tmp_path / "was_run"
    content["meta"]["cfg"] = f"import os\nos.mkdir({str(target)!r})\n" + content["meta"]["cfg"]
    torch.save(content, tmp_path / "x.pth")
    Detector.load(tmp_path / "x.pth", device="cpu")
    assert not target.exists()
