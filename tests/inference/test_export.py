import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import typer
from exports import needs_onnx, write_noise

from fldet.checkpoints.model import build_model
from fldet.cli.export import export as run_command
from fldet.config.load import load_config
from fldet.errors import CheckpointError, UnavailableError, UsageError
from fldet.inference import export as module
from fldet.inference import parity
from fldet.inference.detector import Detector
from fldet.inference.export import as_metadata, export
from fldet.inference.exported import as_text, load_exported
from fldet.inference.folder import read_lines
from fldet.inference.networks import WithBoxes
from fldet.inference.parity import match
from fldet.inference.predict import predict


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp("noise"))


@pytest.fixture(scope="module")
def work_dir(tiny_run, tmp_path_factory):
    """A copy, so that a default output does not land in the shared one."""
    copy = tmp_path_factory.mktemp("export") / "run"
    shutil.copytree(tiny_run[1], copy)
    return copy


@pytest.fixture(scope="module")
def onnx_file(work_dir, images, tmp_path_factory):
    needs_onnx()
    return export(work_dir, out=tmp_path_factory.mktemp("onnx") / "tiny.onnx", check=str(images))


@pytest.mark.slow
def test_onnx_with_boxes_finds_what_the_checkpoint_finds(onnx_file, images):
    assert onnx_file.within_tolerance
    parity = onnx_file.parity
    assert (parity.images, parity.unmatched) == (6, 0)
    assert parity.boxes > 20
    assert onnx_file.post_process == "inside"
    assert onnx_file.size_mib == pytest.approx(onnx_file.file.stat().st_size / 2**20)


@pytest.mark.slow
def test_other_sizes_and_batches_than_at_the_export(onnx_file, work_dir):
    rng = np.random.default_rng(0)
    shapes = [(64, 64), (30, 90), (90, 30), (64, 64), (200, 160)]
    arrays = [rng.integers(0, 255, (*shape, 3), dtype=np.uint8) for shape in shapes]
    ours = Detector.load(work_dir, device="cpu").predict(arrays)
    theirs = Detector.load(onnx_file.file, device="cpu").predict(arrays)
    assert sum(map(len, ours)) > 50
    for one, other in zip(ours, theirs, strict=True):
        box, score, unmatched = match(one, other, 0.05)
        assert (box < 1e-3, score < 1e-4, unmatched) == (True, True, 0)
        assert (np.diff(other.scores) <= 0).all()


@pytest.mark.slow
def test_the_metadata_says_how_to_prepare_an_image(onnx_file):
    import onnx

    model = onnx.load(str(onnx_file.file))
    onnx.checker.check_model(model)
    found = {one.key: one.value for one in model.metadata_props}
    assert json.loads(found["mean"]) == [123.675, 116.28, 103.53]
    assert json.loads(found["std"]) == [58.395, 57.12, 57.375]
    assert json.loads(found["classes"]) == ["circle", "square"]
    assert json.loads(found["strides"])[0] == [8, 8]
    anchors = np.array(json.loads(found["anchors"]))  # levels, anchors of a cell, xyxy
    assert anchors.shape == (5, 9, 4)
    np.testing.assert_allclose(
        anchors[1:, :, 2] - anchors[1:, :, 0],
        2 * (anchors[:-1, :, 2] - anchors[:-1, :, 0]),
        rtol=1e-5,
    )
    assert json.loads(found["deltas"]) == {"means": [0.0] * 4, "stds": [1.0] * 4}
    assert (json.loads(found["channel_order"]), json.loads(found["size_divisor"])) == ("RGB", 32)
    assert sum(node.op_type == "NonMaxSuppression" for node in model.graph.node) == 1
    assert [one.name for one in model.graph.input] == ["images", "sizes"]
    assert [one.name for one in model.graph.output] == ["boxes", "scores", "labels", "image"]


@pytest.mark.slow
def test_predict_runs_it_through_the_same_interface(onnx_file, images, work_dir, tmp_path):
    lines = {}
    for name, model in (("onnx", onnx_file.file), ("torch", work_dir)):
        options = {"formats": ("jsonl",), "score_thr": 0.1, "device": "cpu"}
        assert predict(model, str(images), tmp_path / name, **options).images == 6
        lines[name] = list(read_lines(tmp_path / name / "predictions.jsonl"))
    for one, other in zip(lines["onnx"], lines["torch"], strict=True):
        assert (one["file"], one["width"]) == (other["file"], other["width"])
        assert len(one["boxes"]) == len(other["boxes"])
    with pytest.raises(UsageError, match=r"score_thr 0\.01 is below"):
        Detector.load(onnx_file.file).predict(next(images.glob("*.png")), score_thr=0.01)


@pytest.mark.slow
def test_raw_maps_in_onnx(work_dir, images, tmp_path):
    needs_onnx()
    out = tmp_path / "maps.onnx"
    result = export(work_dir, out=out, post_process="outside", check=str(images))
    assert result.within_tolerance
    detector = Detector.load(out)
    image = next(images.glob("*.png"))
    every = detector.predict(image, score_thr=0.0)[0]
    assert len(every) == 100
    with ThreadPoolExecutor(2) as pool:  # that share it, each with a threshold of its own
        lows = [0.0, float(every.scores[10])] * 10
        found = list(pool.map(lambda low: len(detector.predict(image, low)[0]), lows))
    assert found == [100, len(detector.predict(image, lows[1])[0])] * 10


def test_torchscript_beside_the_checkpoint(work_dir, images):
    result = export(work_dir, format="torchscript", check=str(images))
    assert result.file.parent == work_dir
    assert result.file.suffix == ".torchscript"
    assert result.within_tolerance
    assert result.post_process == "outside"
    with pytest.raises(UsageError, match="exists"):
        export(work_dir, format="torchscript")
    assert export(work_dir, format="torchscript", out=work_dir / "b.torchscript").parity is None


def test_an_exported_model_carries_thresholds_and_uses_them(work_dir, images, tmp_path):
    by_class = {"circle": 0.9999, "square": 0.05}
    path, file = tmp_path / "thresholds.json", tmp_path / "c.torchscript"
    path.write_text(json.dumps({"scores": by_class}))
    export(work_dir, format="torchscript", out=file, thresholds=path)
    carried = Detector.load(file, device="cpu", trust=True)
    assert carried.thresholds.scores == by_class
    files = sorted(images.glob("*.png"))
    assert {name for one in carried.predict(files) for name in one.names} == {"square"}
    out = tmp_path / "out"
    predict(file, str(images), out, formats=(), device="cpu", trust_checkpoint=True)
    assert json.loads((out / "predict.json").read_text())["score_thr"] == by_class
    with pytest.raises(UsageError, match="no threshold of the class 'square'"):
        Detector.load(file, device="cpu", trust=True, thresholds={"circle": 0.5})


def test_a_threshold_that_the_file_would_not_reach_is_refused(work_dir, tmp_path):
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps({"scores": {"circle": 0.5, "square": 0.001}}))
    detector = Detector.load(work_dir, device="cpu", thresholds=path)
    with pytest.raises(UsageError, match=r"a threshold of 0\.001 is below the score_thr"):
        module._check_thresholds(detector, {"post_process": "inside", "score_thr": 0.05})
    module._check_thresholds(detector, {"post_process": "outside", "score_thr": 0.05})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "tflite"}, "unknown format 'tflite'"),
        ({"format": "torchscript", "post_process": "inside"}, "inside is not possible"),
        ({"post_process": "beside"}, "beside is not possible"),
        ({"out": "x.pt"}, "another ending"),
    ],
)
def test_wrong_options(work_dir, options, words):
    if "out" in options:
        options = {"out": Path(options["out"])}
    with pytest.raises(UsageError, match=words):
        export(work_dir, **options)


def test_without_the_packages_the_line_that_installs_them(work_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnavailableError) as error:
        export(work_dir, out=tmp_path / "x.onnx")
    assert "pip install -c requirements/constraints.txt -e '.[export]'" in error.value.hint
    (tmp_path / "y.onnx").touch()
    with pytest.raises(UnavailableError, match="onnxruntime"):
        Detector.load(tmp_path / "y.onnx")


@pytest.mark.parametrize("name", ["a.onnx", "a.torchscript"])
def test_files_that_are_no_exported_models(tmp_path, name):
    if name.endswith("onnx"):
        needs_onnx()
    with pytest.raises(CheckpointError, match="not found"):
        load_exported(tmp_path / name)
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot read the exported model"):
        load_exported(tmp_path / name, "cpu", trust=True)


def test_a_file_of_another_program_is_refused_and_so_is_one_that_says_too_little(tmp_path):
    path = tmp_path / "foreign.torchscript"
    torch.jit.trace(torch.nn.ReLU(), torch.ones(1)).save(str(path))
    with pytest.raises(CheckpointError, match="does not say how images are prepared"):
        load_exported(path, "cpu", trust=True)
    text = as_text({"pipeline": [{"type": "Resize"}], "classes": ["a"], "score_thr": "x"})
    torch.jit.trace(torch.nn.ReLU(), torch.ones(1)).save(str(path), _extra_files={"fldet": text})
    with pytest.raises(CheckpointError, match="does not say how images are prepared"):
        load_exported(path, "cpu", trust=True)


def test_two_stages_are_refused(work_dir, tmp_path, monkeypatch):
    detector = Detector.load(work_dir, device="cpu")
    detector.model.bbox_head = torch.nn.Identity()
    monkeypatch.setattr(module.Detector, "load", lambda *_, **__: detector)
    with pytest.raises(UsageError, match="cannot export a RetinaNet with Identity"):
        export(work_dir, format="torchscript", out=tmp_path / "x.torchscript")


@pytest.mark.slow
def test_suppression_across_classes_can_be_inside(work_dir, images, tmp_path):
    needs_onnx()
    cfg = load_config(work_dir / "tiny.py", ["+model.test_cfg.nms.class_agnostic=True"])
    path = tmp_path / "agnostic.py"
    cfg.dump(path)
    result = export(work_dir, out=tmp_path / "a.onnx", check=str(images), config=str(path))
    assert result.within_tolerance
    assert result.parity.boxes > 10
    with pytest.raises(UsageError, match="has its suppression of boxes inside"):
        Detector.load(result.file, agnostic_nms=True)


def test_raw_maps_can_be_suppressed_across_classes(work_dir, images, tmp_path):
    out = tmp_path / "maps.torchscript"
    export(work_dir, format="torchscript", out=out)
    image = next(images.glob("*.png"))
    one, other = (
        Detector.load(path, device="cpu", trust=True, agnostic_nms=True).predict(image)[0]
        for path in (work_dir, out)
    )
    assert match(one, other, 0.05)[2] == 0
    by_class = Detector.load(work_dir, device="cpu").predict(image)[0]
    assert not np.array_equal(one.boxes, by_class.boxes)


@pytest.mark.parametrize(
    "change",
    [{"nms": {"type": "soft_nms", "iou_threshold": 0.5}}, {"nms_pre": -1}, {"min_bbox_size": 3}],
)
def test_other_post_processing_than_plain_nms_stays_outside(tiny_config, change):
    model = build_model(load_config(tiny_config))
    model.bbox_head.test_cfg.update(change)
    with pytest.raises(UsageError, match="cannot be exported") as error:
        WithBoxes(model)
    assert error.value.hint == "--post-process outside"


def test_metadata_are_text():
    description = {"version": "0", "pipeline": [], "classes": ["a"], "std": [1.0]}
    found = as_metadata(description)
    assert found.keys() == {"fldet", "classes", "std"}
    assert found["classes"] == '["a"]'


def test_exit_code_3_when_the_tolerance_is_missed(work_dir, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parity, "BOX_TOLERANCE_PX", -1.0)
    out = tmp_path / "x.torchscript"
    with pytest.raises(typer.Exit) as stop:
        run_command(work_dir, format="torchscript", out=out, check=str(images))
    assert stop.value.exit_code == 3
    assert "differs from the checkpoint" in capsys.readouterr().err


@pytest.mark.slow
def test_an_exported_model_takes_slices_and_looks(onnx_file, work_dir, images):
    image = cv2.imread(str(images / "1.png"))
    found = [
        one.with_views(48, whole=True, flip=True, scales=(1.5,)).predict(image)[0]
        for one in (Detector.load(work_dir, device="cpu"), load_exported(onnx_file.file, "cpu"))
    ]
    assert min(map(len, found)) > 10
    np.testing.assert_allclose(*(one.scores[:10] for one in found), atol=1e-4)
    np.testing.assert_allclose(*(one.boxes[:10] for one in found), atol=1e-2)
