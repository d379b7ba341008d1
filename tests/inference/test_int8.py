import dataclasses
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace as Node
from unittest import mock

import cv2
import numpy as np
import pytest
import typer
from exports import needs_onnx, write_noise
from mmengine.config import Config

from fldet.checkpoints.paths import resolve_checkpoint
from fldet.cli.export import describe_int8, export_text
from fldet.cli.export import export as export_command
from fldet.config.load import load_config
from fldet.data.slicing.views import parse_views
from fldet.engine.test import test as run_test
from fldet.errors import CheckpointError, DataError, FldetError, UnavailableError, UsageError
from fldet.inference import engines
from fldet.inference.detector import Detector
from fldet.inference.engines import open_engine
from fldet.inference.export import Int8Options, export
from fldet.inference.exported import ExportedModel, load_exported
from fldet.inference.int8 import _inputs, calibration_images, convolutions_in_float
from fldet.inference.parity import match
from fldet.inference.predict import predict

pytestmark = pytest.mark.usefixtures("exports_once")
needs_openvino = pytest.mark.skipif(not find_spec("openvino"), reason="pip install openvino")
ENGINES = ("onnxruntime", pytest.param("openvino", marks=needs_openvino))


@pytest.fixture(scope="module")
def work_dir(tiny_run, tmp_path_factory):
    copy = tmp_path_factory.mktemp("int8") / "run"
    shutil.copytree(tiny_run[1], copy)
    return copy


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = write_noise(tmp_path_factory.mktemp("noise"))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def files(work_dir, images, tmp_path_factory, exports_once):
    """A model in float32 and in int8, and what the latter cost."""
    needs_onnx()
    folder = tmp_path_factory.mktemp("onnx")
    export(work_dir, out=folder / "float.onnx")
    result = export(work_dir, out=folder / "int8.onnx", int8=Int8Options(str(images), 100.0))
    return folder, result


def test_which_convolutions_stay_in_float():
    """Five in a row, then a fork to two more; a sum and a mean behind do not count."""
    row = [
        Node(op_type="Conv", name=f"c{n}", input=[f"v{n}", "w"], output=[f"v{n + 1}"])
        for n in range(5)
    ]
    fork = [Node(op_type="Conv", name=name, input=["v5"], output=[name]) for name in ("cls", "box")]
    rest = [
        Node(op_type="Relu", name="", input=["cls", ""], output=["r"]),
        Node(op_type="Add", name="", input=["r", "box"], output=["sum"]),
    ]
    assert convolutions_in_float(Node(node=[*row, *fork, *rest])) == [
        "c0",
        "c1",
        "c2",
        "box",
        "cls",
    ]


def test_calibration_images_are_spread_over_the_source(images, tiny_run):
    assert len(calibration_images(str(images))) == 7  # the broken one is found when it is decoded
    assert [name[-5:] for name in calibration_images(str(images), 3)] == ["0.png", "2.png", "4.png"]
    with pytest.raises(DataError, match="nothing to predict on"):
        calibration_images(str(images / "none"))
    of_training = calibration_images(tiny_run[0], 2)
    assert [Path(name).parent.name for name in of_training] == ["train2017"] * 2
    with pytest.raises(UsageError, match="no training images"):
        calibration_images(Config({"model": {}}))


def test_calibrating_on_what_cannot_be_read_is_an_error(images):
    refuse = mock.Mock(side_effect=DataError("cannot read it"))
    detector = Node(prepare=refuse, inputs=None)
    with pytest.raises(DataError, match="none of the 2 images to calibrate on"):
        list(_inputs(detector, ["a.png", "b.png"]))


@pytest.mark.slow
def test_the_file_holds_integers_and_says_so(files):
    import onnx

    folder, result = files
    model = onnx.load(folder / "int8.onnx")
    kinds = [node.op_type for node in model.graph.node]
    whole = [node.op_type for node in onnx.load(folder / "float.onnx").graph.node]
    assert kinds.count("Conv") == whole.count("Conv")
    integers = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8]
    kept = set(convolutions_in_float(model.graph))
    weights = [one for one in integers if len(one.dims) == 4]
    assert len(weights) > 10
    assert len(weights) <= kinds.count("Conv") - len(kept)
    values = np.concatenate([onnx.numpy_helper.to_array(one).ravel() for one in weights])
    assert np.abs(values.astype(int)).max() <= 64  # 7 bits: no saturation where there is no VNNI
    detector = load_exported(folder / "int8.onnx", "cpu")
    assert (detector.precision, load_exported(folder / "float.onnx", "cpu").precision) == (
        "int8",
        "float32",
    )
    assert result.int8.images > 0
    assert 0 <= result.int8.float_ap <= 1
    assert result.int8.lost == pytest.approx(100 * (result.int8.float_ap - result.int8.int8_ap))
    assert "points lost, within the 100 allowed" in export_text(result)
    worse = dataclasses.replace(result.int8, lost=1.0, max_lost=0.5)
    assert "1.00 points lost, MORE than the 0.5 allowed" in "".join(describe_int8(worse))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["float", "int8"])
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_find_the_same(files, images, name, engine):
    arrays = [cv2.imread(str(images / f"{number}.png")) for number in range(4)]
    path = files[0] / f"{name}.onnx"
    expected = load_exported(path, "cpu").predict(arrays, 0.05, 2)
    assert sum(map(len, expected)) > 20
    detector = load_exported(path, "cpu", engine=engine)
    for one, other in zip(expected, detector.predict(arrays, 0.05, 2), strict=True):
        # integers of a map round otherwise where engines sum in another order
        px, score = (1e-3, 1e-4) if name == "float" else (2.0, 0.05)
        box_px, apart, alone = match(one, other, 0.05)
        assert (box_px < px, apart < score) == (True, True)
        assert alone <= (0 if name == "float" else len(one) // 5)


@pytest.mark.slow
def test_an_exported_model_is_tested_as_its_checkpoint_is(files, work_dir, tmp_path):
    cfg, file = load_config(work_dir), files[0] / "float.onnx"
    ours = run_test(cfg, work_dir, work_dir=tmp_path / "a", device="cpu")
    exported = ExportedModel(load_exported(file, "cpu"))
    theirs = run_test(cfg, file, work_dir=tmp_path / "b", device="cpu", exported=exported)
    assert theirs.figures.num_detections == ours.figures.num_detections > 0
    for name, value in ours.figures.summary.items():
        assert theirs.figures.summary[name] == pytest.approx(value, abs=1e-4, nan_ok=True)
    assert (theirs.precision, theirs.checkpoint) == ("float32", file)
    with pytest.raises(UsageError, match="--compare is for checkpoints"):
        run_test(cfg, file, device="cpu", exported=exported, compare=True)
    with pytest.raises(UsageError, match="--precision is for checkpoints"):
        run_test(cfg, file, device="cpu", exported=exported, precision="fp32")


@pytest.mark.slow
def test_an_exported_model_is_tested_in_slices(files, work_dir, tmp_path):
    file = files[0] / "int8.onnx"
    result = run_test(
        *(load_config(work_dir), file),
        work_dir=tmp_path,
        views=parse_views(48, 0.2, whole=False),
        device="cpu",
        exported=ExportedModel(load_exported(file, "cpu")),
    )
    assert result.precision == "int8"
    assert result.figures.num_detections > 0


@pytest.mark.slow
def test_exit_code_3_where_more_ap_is_lost_than_allowed(
    work_dir, images, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("onnxscript")
    from fldet.inference import int8

    aps = iter((0.5, 0.49))

    def measured(*_, **__):
        return Node(seconds=1.0, figures=Node(main=next(aps), num_images=10))

    monkeypatch.setattr(int8, "test", measured)
    with pytest.raises(typer.Exit) as stop:
        export_command(work_dir, out=tmp_path / "x.onnx", int8=True, calibrate=str(images))
    assert stop.value.exit_code == 3
    assert "cost more AP than --max-ap-drop" in capsys.readouterr().err


def test_what_cannot_go_together(work_dir, images, tmp_path, capsys):
    options = Int8Options(str(images))
    for change in ({"format": "torchscript"}, {"check": str(images)}):
        with pytest.raises(UsageError, match="--int8 is for ONNX"):
            export(work_dir, int8=options, **change)
    with pytest.raises(typer.Exit):
        export_command(work_dir, out=tmp_path / "x.onnx", calibrate=str(images))
    assert "--calibrate is for --int8" in capsys.readouterr().err
    for load in (Detector.load, load_exported):
        with pytest.raises(UsageError, match="--engine openvino for"):
            load(tmp_path / "x.torchscript", engine="openvino")
    with pytest.raises(UsageError, match="--engine openvino for"):
        predict(work_dir, str(images), tmp_path / "out", engine="openvino")
    with pytest.raises(UsageError, match="unknown engine 'openvin'") as raised:
        open_engine(tmp_path / "x.onnx", "openvin")
    assert "openvino" in str(raised.value.expected)


@pytest.mark.slow
def test_a_checkpoint_without_images_to_test_on_leaves_no_file(work_dir, images, tmp_path):
    pytest.importorskip("onnxscript")
    alone, out = tmp_path / "alone" / "iter_1.pth", tmp_path / "x.onnx"
    alone.parent.mkdir()
    shutil.copy(resolve_checkpoint(work_dir), alone)
    options = Int8Options(str(images))
    with pytest.raises(UsageError, match="has no config") as raised:
        export(alone, out=out, int8=options)
    assert raised.value.hint == "--config CONFIG"
    moved = tmp_path / "moved.py"
    base = str(next(work_dir.glob("*.py")))
    loader = "dict(dataset=dict(ann_file='gone.json'))"
    moved.write_text(f"_base_ = {base!r}\nval_dataloader = test_dataloader = {loader}\n")
    with pytest.raises(FldetError, match="gone"):
        export(alone, out=out, int8=options, config=str(moved))
    assert not out.exists()


def test_openvino_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "import_module", lambda name: __import__("no_such_" + name))
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.setattr(engines, "_openvino_core", engines._openvino_core.__wrapped__)
    (tmp_path / "x.onnx").write_bytes(b"x")
    with pytest.raises(UnavailableError, match="openvino") as raised:
        open_engine(tmp_path / "x.onnx", "openvino")
    assert ".[openvino]" in raised.value.hint
    with pytest.raises(UsageError, match="on cuda:0"):
        open_engine(tmp_path / "x.onnx", "openvino", "cuda:0")


@needs_openvino
def test_openvino_reports_nothing_to_its_makers():
    """Imported as its documentation says, it connects to a service that counts; see conftest."""
    code = (
        "import sys; from fldet.inference.engines import _import_openvino as load; load(); load()\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])\n"
        "print('openvino' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nTrue False\n"


LIVES = {
    "dropped by its own thread": ("load()", "drop()"),
    "dropped by another thread": ("load()", "elsewhere(drop)"),
    "loaded by another thread": ("elsewhere(load)", "drop()"),
    "never used by the first thread": ("elsewhere(load)", "elsewhere(drop)"),
    "two, the first dropped by another thread": ("load(); load()", "elsewhere(kept.pop); drop()"),
    "collected by another thread": ("load(); kept.append(kept)", "forget(); elsewhere(gc.collect)"),
    "kept to the end": ("load()", ""),
}


@needs_openvino
@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="a child's end is no signal here")
@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_signals_find_their_stack_once_openvino_is_gone(tmp_path, life):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    one = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [one("x", onnx.TensorProto.FLOAT, [1, 4])],
        [one("y", onnx.TensorProto.FLOAT, [1, 4])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    model.metadata_props.add(key="fldet", value="{}")
    onnx.save(model, tmp_path / "relu.onnx")
    loaded, dropped = life
    code = f"""
import gc, signal, subprocess, sys, threading
from pathlib import Path
import numpy as np
from fldet.inference.engines import open_engine

kept, seen = [], []
def load():
    run, _ = open_engine(Path("relu.onnx"), "openvino", threads=1)
    run({{"x": np.ones((1, 4), np.float32)}})
    kept.append(run)
def drop():
    kept.clear()
    gc.collect()
def forget():
    global kept
    kept = None
def elsewhere(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
{loaded}
{dropped}
subprocess.run([sys.executable, "-S", "-c", ""])
print(seen)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert (done.returncode, done.stdout) == (0, "[1]\n"), done.stderr


@needs_openvino
def test_openvino_says_what_it_cannot_read(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(CheckpointError, match="cannot read the exported model"):
        open_engine(tmp_path / "text.onnx", "openvino")
