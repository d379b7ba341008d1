"""What a file says about its model is read and checked, never run."""

import contextlib
import shutil
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.registry import init_default_scope

from fldet.checkpoints.literals import read_literals
from fldet.checkpoints.stored_config import (
    DEEPEST,
    MOST_VALUES,
    building,
    find_pipeline,
    stored_config,
)
from fldet.config.load import format_config, load_config
from fldet.errors import CheckpointError, FldetError
from fldet.inference.detector import Detector
from fldet.inference.export import export
from fldet.registry import MODELS

FILE = Path("x.pth")


def stored(text):
    return stored_config({"meta": {"cfg": text}}, FILE)


def test_what_a_detector_needs_comes_back_as_it_was(tiny_config):
    cfg = load_config(tiny_config, ["train_cfg.max_iters=7"])
    again = stored(format_config(cfg))
    model = cfg.model.to_dict()
    del model["train_cfg"]
    model["backbone"].pop("init_cfg", None)
    assert again.model.to_dict() == model
    steps = find_pipeline(cfg.to_dict())
    for step in steps:
        step.pop("backend_args", None)
    assert find_pipeline(again) == steps
    assert set(again.keys()) == {"model", "default_scope", "test_dataloader"}


def test_keys_that_are_no_names_infinities_and_nested_dicts():
    text = (
        "a = dict({'x y': dict(b=(1, [2]))})\nc = {'d': inf}\ne: int\nf = g(1)\nh = -float('inf')"
    )
    values = read_literals(text + "\ni = float('inf')\nj = float(open('x'))", FILE)
    assert values == {
        "a": {"x y": {"b": (1, [2])}},
        "c": {"d": float("inf")},
        "i": float("inf"),
    }


def test_no_code_in_it_is_run(tmp_path):
    marker = tmp_path / "ran"
    text = f"import os\nos.mkdir({str(marker)!r})\nmodel = dict(type='RetinaNet')\n"
    cfg = stored(text + f"x = os.mkdir({str(marker)!r})")
    assert cfg.model.type == "RetinaNet"
    assert not marker.exists()


def model(**parts):
    return f"model = {dict(type='RetinaNet', **parts)!r}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model = dict(type='subprocess.Popen', args=['true'])", "names 'subprocess.Popen'"),
        (model(backbone=dict(norm_cfg=dict(type="os.system"))), "'os.system' as model.backbone"),
        (model(_scope_="evil"), "'evil' as model.scope"),
        ("default_scope = 'evil'\n" + model(), "'evil' as scope"),
        ("default_scope = ['mmdet']\n" + model(), "as scope"),
        (model() + "test_pipeline = [dict(type='a.b.C')]", "'a.b.C' as pipeline.0"),
        (model() + "test_pipeline = 'abc'", "'abc' as pipeline"),
        (model() + "test_pipeline = {'type': 'Resize'}", "as pipeline"),
        (model() + "test_pipeline = [[dict(type='Resize')]]", "as pipeline"),
        ("model = dict(type='fldet.engine.train.train')", "names 'fldet.engine.train.train'"),
        ("model = dict(type=None)", "names None"),
        ("model = dict(type=['RetinaNet'])", "names \\['RetinaNet'\\]"),
        ("model = dict(backbone=dict(type='ResNet'))", "as model"),
        ("model = [1]", "no model"),
        ("model = 'RetinaNet'", "no model"),
        ("x = 1", "no model"),
        (
            model(test_cfg=dict(nms=dict(type="__import__('os').system('true')"))),
            "as model.test_cfg",
        ),
        (model(teacher_config="/x.py"), "'/x.py' as model.teacher_config"),
        (model(teacher_ckpt="http://x/y"), "model.teacher_ckpt"),
        (model(backbone=dict(type="ResNet", checkpoint="a")), "model.backbone.checkpoint"),
        (model(lang_model_name="bert"), "model.lang_model_name"),
        (model(label_map_file="a"), "model.label_map_file"),
        (model(text="a/b"), "'a/b' as model.text"),
        (model(text="C:\\b"), "as model.text"),
        (model(text="x" * 201), "as model.text"),
        (model(text="\x1b[31m"), "as model.text"),
        (model(text=b"x"), "as model.text"),
        (model(number=1j), "as model.number"),
        (model(__class__="x"), "as model.__class__"),
        (model(bbox_head=dict(type="RetinaHead", num_classes=10**6)), "a number up to 100000"),
        (model(bbox_head=dict(type="RetinaHead", stacked_convs=513)), "a number up to 512"),
        (model(neck=dict(type="FPN", in_channels=[10**9])), "model.neck.in_channels.0"),
        (model(a=-(10**9)), "1000000000 as model.a"),
        (model(a=1e10), "a number up to 1e"),
        (model() + "model['x'] = 1\nmodel = dict(type='RetinaNet', a=nan)", "nan as model.a"),
        (model(a=10**4000), "a number of 13288 bits as model.a"),
        (model(a=[0] * 1025), "at most 1024 values"),
        (model(a=[[0] * 1000] * 30), f"at most {MOST_VALUES} values"),
        ("model = dict(type='RetinaNet', a=" + "[" * 60 + "]" * 60 + ")", f"{DEEPEST} deep"),
        ("model = dict(", "not Python: line 1"),
        ("model = " + "(" * 10**4 + ")" * 10**4, "not Python"),
        ("\0", "not Python"),
        ("#" * 2**20, "characters"),
        (model() + "test_pipeline = " + repr([dict(type="Resize")] * 21), "at most 20 transforms"),
        (model() + "test_pipeline = [dict(type='Resize', scale_factor=200.0)]", "a number up to 4"),
        (
            model(data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=2e4)),
            "to 4096",
        ),
        (model(a={1: 2}), "no model"),
        ("model = dict(type='RetinaNet', a={1, 2})", "no model"),
        ("model = dict(type='RetinaNet', a=f'{1}')", "no model"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_file_may_not_say(text, words):
    with pytest.raises(CheckpointError, match=words):
        stored(text)


@pytest.mark.parametrize("content", [{}, {"meta": None}, {"meta": {"cfg": {"a": 1}}}])
def test_a_checkpoint_without_a_config(content):
    assert stored_config(content, FILE) is None


def test_what_a_detector_does_not_need_is_left_out_and_not_looked_at():
    text = model(
        backbone=dict(type="ResNet", init_cfg=dict(type="os.system", checkpoint="http://x")),
        train_cfg=dict(assigner=dict(type="os.system")),
    )
    text += "custom_hooks = [dict(type='os.system')]\nfilename = 1\nvisualizer = dict(type='x')\n"
    assert stored(text).model.to_dict() == {"type": "RetinaNet", "backbone": {"type": "ResNet"}}


def test_the_pipeline_is_found_inside_wrappers_and_in_the_validation():
    inner = {"dataset": {"pipeline": [{"type": "A"}]}}
    wrapped = {"test_dataloader": {"dataset": {"datasets": [inner]}}}
    assert find_pipeline(wrapped) == [{"type": "A"}]
    assert find_pipeline({"val_dataloader": inner}) == [{"type": "A"}]
    assert find_pipeline({"test_pipeline": [{"type": "B"}]}) == [{"type": "B"}]
    assert find_pipeline({}) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nn.Linear(60_000, 60_000),
        lambda: torch.zeros((2**12, 2**13)),
        lambda: torch.ones(2**25),
        lambda: torch.full((2**25,), 0.0),
        lambda: torch.rand(size=(2**25,)),
        lambda: [torch.empty(2**20) for _ in range(40)],
        lambda: torch.nn.Sequential(*[torch.nn.Identity() for _ in range(20_001)]),
    ],
)
def test_a_model_is_not_built_larger_than_its_weights(make):
    words = r"larger than its weights|more than 20000 modules"
    with pytest.raises(CheckpointError, match=words), building(FILE, 1000):
        make()


def test_while_a_stored_model_is_built_nothing_is_imported_by_name(tmp_path, monkeypatch):
    from fldet.registry import MODELS

    (tmp_path / "evilmod.py").write_text("open('PWNED', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("evilmod", "mmengine.call_command", "os.system"):
        words = "does not fit the code: KeyError"
        with pytest.raises(CheckpointError, match=words), building(FILE):
            MODELS.build({"type": name})
    assert not (tmp_path / "PWNED").exists()
    assert MODELS.get("mmengine.call_command")  # afterwards it is as it was


# --- the attacks, in each kind of file ------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tiny_run, tmp_path_factory):
    """A checkpoint and both kinds of exported models of one small run."""
    folder = tmp_path_factory.mktemp("stored")
    shutil.copy(sorted(tiny_run[1].glob("iter_*.pth"))[-1], folder / "m.pth")
    export(folder / "m.pth", format="torchscript", out=folder / "m.torchscript")
    try:
        import onnx  # noqa: F401
    except ImportError:
        return folder
    export(folder / "m.pth", format="onnx", out=folder / "m.onnx", post_process="outside")
    return folder


ATTACKS = {
    "a command": {"type": "mmengine.call_command", "cmd": ["touch", "PWNED"]},
    "a folder removed": {"type": "mmengine.rmtree", "dir_path": "victim"},
    "a file written": {"type": "mmengine.put_text", "obj": "x", "filepath": "PWNED"},
    "a link": {"type": "mmengine.symlink", "src": "victim", "dst": "PWNED"},
    "unsafe YAML": {"type": "mmengine.load", "file": "evil.yaml"},
    "a pickle": {"type": "mmengine.load", "file": "evil.pkl"},
    "a module of this folder": {"type": "evilmod"},
    "a config": {"type": "mmengine.Config.fromfile", "filename": "evilmod.py"},
    "a program": {"type": "subprocess.check_call", "args": ["touch", "PWNED"]},
    "an expression": {"type": "nms", "x": 1, "nms": {"type": "open('PWNED','w')"}},
}


def attacked(text, where, attack):
    """Returns a config text with an attack in one of its places."""
    values = read_literals(text, FILE)
    if where == "pipeline":
        steps = values.get("pipeline") or find_pipeline(values)
        text += f"\npipeline = {[steps[0], attack, *steps[1:]]!r}\n"
        return text + f"test_dataloader = dict(dataset=dict(pipeline={[steps[0], attack]!r}))\n"
    if where == "preprocessor":
        values["model"] = {**values.get("model", {}), "data_preprocessor": attack}
        return text + f"\ndata_preprocessor = {attack!r}\nmodel = {values['model']!r}\n"
    head = {**(values.get("bbox_head") or values["model"]["bbox_head"]), "loss_cls": attack}
    return (
        text
        + f"\nbbox_head = {head!r}\nmodel = {dict(values.get('model', {}), bbox_head=head)!r}\n"
    )


def rewritten(folder, ending, change, out):
    """Writes a copy of a file whose config text is ``change(text)``; returns its path."""
    source, path = folder / f"m.{ending}", out / f"evil.{ending}"
    if ending == "pth":
        content = torch.load(source, weights_only=True)
        content["meta"]["cfg"] = change(content["meta"]["cfg"])
        torch.save(content, path)
    elif ending == "onnx":
        onnx = pytest.importorskip("onnx")
        content = onnx.load(source)
        for entry in content.metadata_props:
            if entry.key == "fldet":
                entry.value = change(entry.value)
        onnx.save(content, path)
    else:
        extra = {"fldet": ""}
        content = torch.jit.load(source, _extra_files=extra)
        content.save(str(path), _extra_files={"fldet": change(extra["fldet"].decode())})
    return path


@pytest.mark.parametrize("where", ["pipeline", "preprocessor", "head"])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.parametrize("ending", ["pth", "onnx", "torchscript"])
def test_no_file_runs_what_its_config_names(
    files, ending, attack, where, tmp_path, monkeypatch, capfd
):
    if ending == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    path = rewritten(files, ending, lambda text: attacked(text, where, attack), tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("victim").mkdir()
    Path("evilmod.py").write_text("open('PWNED', 'w')")
    Path("evil.yaml").write_text("!!python/object/apply:os.mkdir [PWNED]")
    Path("evil.pkl").write_bytes(b"cos\nmkdir\n(S'PWNED'\ntR.")
    with pytest.raises(CheckpointError, match=r"the config in .* (names|has) "):
        Detector.load(path, device="cpu", trust=ending == "torchscript")
    assert Path("victim").is_dir()
    assert not Path("PWNED").exists()


@pytest.mark.parametrize("command", ["predict", "export", "benchmark", "test", "train"])
def test_each_command_that_reads_a_checkpoint_runs_nothing_of_it(
    files, tiny_run, command, tmp_path, monkeypatch, fldet
):
    def change(text):
        return attacked(text, "pipeline", {"type": "mmengine.rmtree", "dir_path": "victim"})

    path = rewritten(files, "pth", change, tmp_path)
    content = torch.load(path, weights_only=True)
    content["meta"]["config"] = "open('PWNED', 'w')"  # MMEngine runs this at a resume
    content["message_hub"]["runtime_info"]["best_ckpt"] = str(tmp_path / "victim")
    work_dir = tmp_path / "w"
    work_dir.mkdir()
    torch.save(content, work_dir / f"iter_{content['meta']['iter']}.pth")
    (tmp_path / "victim").mkdir()
    config = work_dir / "c.py"
    config.write_text(format_config(tiny_run[0]))
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.zeros((64, 64, 3), np.uint8))
    words = {
        "predict": ("predict", work_dir, image, "--out", tmp_path / "o"),
        "export": ("export", work_dir, "--format", "torchscript"),
        "benchmark": ("benchmark", config, work_dir, "--images", "1"),
        "test": ("test", config, work_dir, "--work-dir", tmp_path / "t"),
        "train": ("train", config, "--work-dir", work_dir, "--resume"),
    }[command]
    done = fldet(*words, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if command in ("predict", "export") else 0), done.stderr
    assert (tmp_path / "victim").is_dir()
    assert not (tmp_path / "PWNED").exists()


def test_a_torchscript_model_runs_only_if_it_is_trusted(files, tmp_path):
    class Writes(torch.nn.Module):
        def __init__(self, file: str):
            super().__init__()
            self.file = file

        @torch.jit.export
        def __getstate__(self):
            return (self.file, self.training)

        @torch.jit.export
        def __setstate__(self, state: tuple[str, bool]):  # run as the file is loaded
            self.file, self.training = state
            torch.from_file(self.file, True, 16, dtype=torch.uint8).fill_(65)

        def forward(self, x: torch.Tensor):
            return x

    path = tmp_path / "evil.torchscript"
    torch.jit.script(Writes(str(tmp_path / "PWNED"))).save(str(path))
    (tmp_path / "PWNED").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="is a program") as error:
        Detector.load(path, device="cpu")
    assert "--trust-checkpoint" in error.value.hint
    assert not (tmp_path / "PWNED").exists()
    assert Detector.load(files / "m.torchscript", device="cpu", trust=True).classes


@pytest.mark.parametrize("location", ["secret.bin", "../secret.bin", "{folder}/secret.bin"])
def test_an_onnx_model_reads_no_other_file(files, location, tmp_path, capfd):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    content = onnx.load(files / "m.onnx")
    weight = max(content.graph.initializer, key=lambda one: len(one.raw_data))
    folder = tmp_path / "x"
    folder.mkdir()
    for place in (folder, tmp_path):
        (place / "secret.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", location.format(folder=tmp_path)
    (folder / "m.onnx").write_bytes(content.SerializeToString())
    with pytest.raises(CheckpointError, match="cannot read the exported model"):
        Detector.load(folder / "m.onnx", device="cpu")


# --- mutations of a good file ---------------------------------------------------------------------

ODD = st.sampled_from(
    [
        *(None, True, 0, -1, 1, 3, 2**16, 2**31, 10**30, 0.0, -0.5, 1e308),
        *(float("inf"), float("nan"), "", "x", "ReLU", "mmengine.load", "../x", "a" * 300),
        *([], [1], [[]], (), (1, 2), {}, {"a": 1}, {"type": "ResNet"}, {"type": "GN"}, [0] * 40),
        *("fldet.RetinaHead", "mmdet"),
    ]
)


def places(value, at=()):
    """Yields the places of all values below one."""
    yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*at, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from places(item, (*at, index))


def changed(value, at, new):
    if not at:
        return new
    key, *rest = at
    if isinstance(value, dict):
        return {**value, key: changed(value[key], rest, new)}
    return type(value)(changed(v, rest, new) if i == key else v for i, v in enumerate(value))


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_mutated_config_gives_boxes_or_an_error_of_ours(files, tmp_path, data):
    content = torch.load(files / "m.pth", weights_only=True)
    values = read_literals(content["meta"]["cfg"], FILE)
    values = {"model": values["model"], "test_pipeline": find_pipeline(values)}
    values["model"].pop("train_cfg", None)
    at = data.draw(st.sampled_from([one for one in places(values) if one]))
    values = changed(values, at, data.draw(ODD))
    content["meta"]["cfg"] = "\n".join(f"{key} = {value!r}" for key, value in values.items())
    path = tmp_path / "m.pth"
    torch.save(content, path)
    started = time.monotonic()
    with contextlib.suppress(FldetError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers without channels
        Detector.load(path, device="cpu").predict(np.zeros((40, 48, 3), np.uint8), 0.0)
    assert time.monotonic() - started < 10


@given(st.binary(max_size=8), st.integers(0, 10**6), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_mutated_text_is_read_or_refused(piece, place, cut):
    text = "model = dict(type='RetinaNet', a=[1, (2, 'x'), {'b': -1.5}])\ntest_pipeline = []\n"
    place %= len(text)
    mutated = text[:place] + piece.decode("latin-1") + ("" if cut else text[place:])
    try:
        values = read_literals(mutated, FILE)
    except CheckpointError:
        return
    assert all(key.isidentifier() for key in values)


def test_a_detector_of_two_stages_is_built_from_its_file():
    """Its constructor has no default for train_cfg, of which nothing is kept."""
    cfg = load_config("systems/shapes/faster_rcnn_r18_fpn.py")
    again = stored(format_config(cfg))
    assert again.model.train_cfg is None
    init_default_scope("mmdet")
    with building(FILE, numbers=4_000_000):
        model = MODELS.build(again.model)
    assert model.roi_head.bbox_head.num_classes == 6
