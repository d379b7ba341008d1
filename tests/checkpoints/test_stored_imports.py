"""``custom_imports`` of a stored config can load an installed plug-in, and nothing else."""

import sys

import pytest
import torch
from mmengine.config import Config

from fldet.checkpoints.paths import resolve_checkpoint
from fldet.checkpoints.stored_config import stored_config
from fldet.config.load import format_config, load_config
from fldet.errors import CheckpointError
from fldet.inference.detector import Detector
from fldet.inference.export import export

# A head in MMDetection's own registry, so that only an import makes its name known.
REGISTRY = """
from mmdet.registry import MODELS as ABOVE
from mmengine.registry import Registry
MODELS = Registry("model", parent=ABOVE, scope="kindly", locations=["kindly.heads"])
"""
HEADS = """
from fldet.models.dense_heads.retina_head import RetinaHead
from mmdet.registry import MODELS
@MODELS.register_module(name="{name}", force=True)
class Head(RetinaHead):
    pass
"""


@pytest.fixture
def checkpoint(tiny_run, tmp_path):
    """Writes the checkpoint of the tiny run with another head and other imports in its config."""

    def write(head, *imports):
        path = tmp_path / "x.pth"
        content = torch.load(resolve_checkpoint(tiny_run[1]), weights_only=False)
        cfg = Config.fromstring(content["meta"]["cfg"], ".py")
        cfg.model.bbox_head.type = head
        cfg.custom_imports = {"imports": ["fldet", *imports]}
        content["meta"]["cfg"] = format_config(cfg)
        torch.save(content, path)
        return path

    return write


def test_an_installed_plugin_is_loaded(checkpoint, install):
    heads = HEADS.format(name="KindHead")
    install(
        "kindly", "[fldet.plugins]\nkindly = kindly.registry\n", kindly__registry=REGISTRY,
        kindly__heads=heads, kindly__spy="raise SystemExit('was run')\n",
    )  # fmt: skip
    detector = Detector.load(checkpoint("KindHead", "kindly.spy"), device="cpu")
    assert type(detector.model.bbox_head).__module__ == "kindly.heads"
    assert "kindly.spy" not in sys.modules  # the plug-in's own module, not the file's wish


def test_a_module_that_is_no_plugin_is_not(checkpoint, site, tmp_path):
    (site / "unkind.py").write_text("import pathlib\npathlib.Path('ran').touch()\n" + HEADS)
    path = checkpoint("UnkindHead", "unkind", "os")
    for use in (
        lambda: Detector.load(path, device="cpu"),
        lambda: export(path, out=tmp_path / "x.onnx"),
    ):
        with pytest.raises(CheckpointError, match="names 'UnkindHead' as model") as error:
            use()
        assert "custom_imports: 'unkind, os'" in error.value.hint
        assert "--config CONFIG; or install them as a plug-in" in error.value.hint
    assert "unkind" not in sys.modules


def test_it_is_used_with_a_config_that_is_named(checkpoint, site, tiny_run, tmp_path):
    (site / "known.py").write_text(HEADS.format(name="KnownHead"))
    path = checkpoint("KnownHead", "known")
    config = tmp_path / "named.py"
    cfg = tiny_run[0].copy()
    cfg.model.bbox_head.type = "KnownHead"
    cfg.custom_imports = {"imports": ["fldet", "known"]}
    config.write_text(format_config(cfg))
    detector = Detector.load(path, config, device="cpu")
    assert type(detector.model.bbox_head).__module__ == "known"


@pytest.mark.parametrize("imports", ["None", "3", "'os'", "[3, None]", "dict(a=1)", "{}"])
def test_odd_imports_of_a_file(imports, tiny_config, tmp_path):
    text = format_config(load_config(tiny_config))
    found = stored_config(
        {"meta": {"cfg": f"{text}\ncustom_imports = dict(imports={imports})"}}, tmp_path
    )
    assert found.model.type == "RetinaNet"
