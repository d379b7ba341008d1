"""What is in a packaged model is data: it is read within bounds, checked, and never run."""

import json
import os
import struct
import sys

import pytest
import torch

from fldet.checkpoints.files import read_checkpoint
from fldet.checkpoints.model import load_test_config
from fldet.checkpoints.model_folder import write_weights_file
from fldet.checkpoints.paths import resolve_checkpoint
from fldet.config.load import load_config
from fldet.errors import CheckpointError, ConfigError, FldetError, UnavailableError
from fldet.inference.detector import Detector

pytest.importorskip("safetensors")

GOOD = "model = dict(type='RetinaNet')\n"
NOTHING_TO_BUILD = "no config, or one|no test_dataloader"


@pytest.fixture
def folder(tmp_path):
    write_weights_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    return tmp_path


def safetensors_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_weights_come_back_as_they_were(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    state = {"a": shared, "b": shared.t(), "c": torch.tensor(3), "d": torch.zeros(0).bfloat16()}
    write_weights_file(state, tmp_path / "x.safetensors")
    content = read_checkpoint(tmp_path / "x.safetensors")
    assert content["meta"] == {}
    for name, value in state.items():
        assert torch.equal(content["state_dict"][name], value)
        assert content["state_dict"][name].dtype == value.dtype


def test_the_folder_stands_for_its_weights(folder):
    (folder / "iter_9.pth").touch()
    assert resolve_checkpoint(folder) == folder / "model.safetensors"
    assert list(read_checkpoint(folder)["state_dict"]) == ["a"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        struct.pack("<Q", 2**63) + b"{}",
        safetensors_file(b"[" * 10_000),
        safetensors_file({"a": entry(shape=(2**40,))}, b"\0" * 4),
        safetensors_file({"a": entry(shape=(2**62, 4), offsets=(0, 0))}),
        safetensors_file({"a": entry(), "b": entry()}, b"\0" * 4),  # the same bytes twice
        safetensors_file({"a": entry(offsets=(4, 8))}, b"\0" * 8),  # a hole
        safetensors_file({"a": entry(offsets=(0, 2**60))}, b"\0" * 4),
        safetensors_file({"a": entry("OBJECT")}, b"\0" * 4),
        safetensors_file({"a": entry("F8_E4M3", (4,))}, b"\0" * 4),
        safetensors_file({"a": entry("C64", (1,), (0, 8))}, b"\0" * 8),
        safetensors_file({"a": entry()}, b"\0" * 3),
    ],
)
def test_odd_files_are_refused(tmp_path, data):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_checkpoint(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="a pipe"):
        read_checkpoint(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="not found"):
        read_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model = dict(type='os.system')\n", "names 'os.system'"),
        (
            "model = dict(type='RetinaNet', init_cfg=dict(type='os.system'))\n",
            NOTHING_TO_BUILD,
        ),
        ("import os\nos.mkdir('{ran}')\n" + GOOD, NOTHING_TO_BUILD),
        (
            "_base_ = '/x.py'\ncustom_imports = dict(imports=['evil'])\n" + GOOD,
            NOTHING_TO_BUILD,
        ),
        (GOOD + "x = os.mkdir('{ran}')\n", NOTHING_TO_BUILD),
        ("model = dict(type='RetinaNet', teacher_config='/x.py')\n", "teacher_config"),
        ("model = dict(type='RetinaNet', n=10**9)\n", "no model"),
        ("model = {{'type': 'RetinaNet', **__import__('os').environ}}\n", "no model"),
        ("#" * 2**20, "characters"),
        ("#" * 2**22, "too large"),
        ("x = 1\n", "no model"),
    ],
)
def test_its_config_is_not_run(folder, text, words):
    """It names registered classes or is refused; what is left fails for want of a pipeline."""
    ran = folder / "ran"
    (folder / "config.py").write_text(text.format(ran=ran) if "{" in text else text)
    (folder / "last_checkpoint").touch()  # as in a work dir, whose config is run
    (folder / "x.pth").touch()
    for load in (Detector.load, load_test_config):
        with pytest.raises(FldetError, match=words):
            load(folder)
    with pytest.raises(ConfigError, match="is read as data, and not run"):
        load_config(folder)
    assert not ran.exists()


def test_classes_that_are_none_are_refused(folder):
    (folder / "config.py").write_text(
        GOOD + "test_dataloader = dict(dataset=dict(metainfo=dict(classes=[[1]])))\n"
    )
    with pytest.raises(CheckpointError, match="a class name"):
        Detector.load(folder)


def test_without_safetensors_the_line_that_installs_it_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(UnavailableError) as caught:
        read_checkpoint(folder)
    assert "fldet[package]" in caught.value.hint
