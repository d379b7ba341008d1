"""What the network of a detector computes in, by ``precision``."""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from exports import needs_onnx, write_noise

from fldet.devices import has_bfloat16
from fldet.errors import UnavailableError, UsageError
from fldet.inference import engines, exported
from fldet.inference.detector import Detector
from fldet.inference.engines import open_engine
from fldet.inference.export import export
from fldet.inference.exported import load_exported
from fldet.inference.predict import predict
from fldet.models.fast import optimize

pytestmark = pytest.mark.usefixtures("exports_once")
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)


@pytest.fixture
def bfloat16(monkeypatch):
    """Has the processor pass for one with bfloat16; not all that torch does works then."""
    monkeypatch.setattr(optimize, "has_bfloat16", lambda _: True)


def load(tiny_run, precision):
    return Detector.load(tiny_run[1], device="cpu", precision=precision)


def test_fp32_is_the_optimized_copy(tiny_run):
    detector = load(tiny_run, "fp32")
    assert optimize.is_optimized(detector.model)
    assert detector.faster() is detector
    plain = load(tiny_run, None)
    assert not optimize.is_optimized(plain.model)
    expected, found = (one.predict([IMAGE], 0.05, 1)[0] for one in (plain.faster(), detector))
    assert len(found) > 0
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_bf16_is_a_copy_in_it(tiny_run, bfloat16):
    detector = load(tiny_run, "bf16")
    assert optimize.network_precision(detector.model) == "bfloat16"
    assert detector.faster() is detector


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="no bfloat16 arithmetic here")
def test_bf16_finds_nearly_the_same(tiny_run):
    detector = load(tiny_run, "bf16")
    (found,), (exact,) = (
        one.predict([IMAGE], 0.05, 1) for one in (detector, load(tiny_run, "fp32"))
    )
    assert found.scores.max() == pytest.approx(exact.scores.max(), abs=0.02)
    assert not np.array_equal(found.scores, exact.scores)


@pytest.mark.parametrize("precision", ["bf16", "int8", "half"])
def test_what_cannot_be_had_is_refused(tiny_run, monkeypatch, precision):
    monkeypatch.setattr(optimize, "has_bfloat16", lambda _: False)
    error = UnavailableError if precision == "bf16" else UsageError
    with pytest.raises(error, match=precision):
        load(tiny_run, precision)


def test_predictions_in_another_precision_are_not_gone_on_with(tiny_run, tmp_path, bfloat16):
    write_noise(tmp_path)
    options = {"formats": ["jsonl"], "score_thr": 0.05, "device": "cpu"}
    out = tmp_path / "out"
    predict(tiny_run[1], str(tmp_path), out, **options)
    with pytest.raises(UsageError, match="precision"):
        predict(tiny_run[1], str(tmp_path), out, precision="bf16", resume=True, **options)


def test_onnxruntime_and_torchscript_have_no_bf16(tmp_path, bfloat16):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"never read")
    with pytest.raises(UsageError, match="with onnxruntime"):
        open_engine(file, precision="bf16")
    file.rename(tmp_path / "model.torchscript")
    with pytest.raises(UsageError, match="--precision bf16 for"):
        load_exported(tmp_path / "model.torchscript", "cpu", None, "bf16", trust=True)


@pytest.mark.parametrize(("precision", "hint"), [(None, "f32"), ("fp32", "f32"), ("bf16", "bf16")])
def test_openvino_is_told(tmp_path, monkeypatch, precision, hint):
    compiled = mock.MagicMock()
    core = SimpleNamespace(read_model=lambda data: data, compile_model=compiled)
    monkeypatch.setattr(engines, "_openvino_core", lambda: core)
    monkeypatch.setattr(engines, "_session", mock.MagicMock())
    file = tmp_path / "model.onnx"
    file.write_bytes(b"a model")
    open_engine(file, "openvino", precision=precision)
    settings = compiled.call_args.args[2]
    assert settings["INFERENCE_PRECISION_HINT"] == hint


@pytest.mark.slow
def test_an_exported_model_says_what_it_computes_in(tiny_run, tmp_path, monkeypatch, bfloat16):
    needs_onnx()
    export(tiny_run[1], out=tmp_path / "model.onnx")
    real = open_engine
    monkeypatch.setattr(exported, "open_engine", lambda *given: real(*given[:-1]))
    names = [
        load_exported(tmp_path / "model.onnx", "cpu", None, precision).precision
        for precision in (None, "fp32", "bf16")
    ]
    assert names == ["float32", "float32", "bfloat16"]
    detector = Detector.load(tmp_path / "model.onnx", device="cpu", precision="fp32")
    assert detector.faster() is detector
