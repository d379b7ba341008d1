"""Plug-ins as pip would install them: found without an import, named when they fail."""

import re
import sys

import pytest

from fldet.checkpoints.model import build_model
from fldet.config.check import validate
from fldet.config.load import load_config
from fldet.config.names import Name, registered
from fldet.config.prepare import our_datasets
from fldet.errors import ConfigError, UnavailableError
from fldet.plugins import COMMANDS, SCOPES, find, installed, load, problem_of

CONFIG = "shapes/retinanet_r18_shapes"
LOSS = "model.bbox_head.loss_cls.type"
REGISTRY = """
from mmdet import registry as above
from mmengine.registry import Registry
MODELS = Registry("model", parent=above.MODELS, scope="{scope}", locations=["{scope}.losses"])
DATASETS = Registry("dataset", parent=above.DATASETS, scope="{scope}", locations=["{scope}.data"])
"""
LOSSES = """
from torch import nn
from {scope}.registry import MODELS
@MODELS.register_module()
class FussyLoss(nn.Module):
    def __init__(self, use_sigmoid, fuss=1):
        super().__init__()
"""
DATA = """
from fldet.data.coco import CocoDataset
from {scope}.registry import DATASETS
@DATASETS.register_module()
class NewFormat(CocoDataset):
    pass
"""


@pytest.fixture
def fussy(install):
    """A plug-in with a loss and a data set in the scope ``fussy``."""
    modules = {"registry": REGISTRY, "losses": LOSSES, "data": DATA}
    texts = {f"fussy__{name}": text.format(scope="fussy") for name, text in modules.items()}
    install("fussy-plugin", "[fldet.plugins]\nfussy = fussy.registry\n", **texts)


@pytest.fixture
def broken(install):
    """A plug-in whose losses need a package that is not there."""
    install(
        "broken-plugin",
        "[fldet.plugins]\nbroken = broken.registry\n",
        broken__registry=REGISTRY.format(scope="broken"),
        broken__losses="import math\nimport no_such_package\n",
        broken__data=DATA.format(scope="broken"),
    )


# --- discovery ---


def test_finding_imports_nothing(example_plugin):
    found = {(one.group, one.name): one for one in installed()}
    scope = found[SCOPES, "fldet_example"]
    assert (scope.provider, scope.title) == ("fldet-example-plugin 1.0", "scope fldet_example")
    command = found[f"{COMMANDS}.analyze", "box-sizes"]
    assert (command.title, command.is_command) == ("command analyze box-sizes", True)
    assert "fldet_example" not in sys.modules


def test_loading_registers_what_the_locations_hold(fussy):
    module = load(find(SCOPES, "fussy"))
    assert set(module.MODELS.module_dict) == {"FussyLoss"}
    assert find(SCOPES, "fuss") is None


def test_other_entry_points_are_left_alone(install):
    install("other", "[fldet.pluginsx]\na = a.registry\n[fldet.commandsx]\nb = b:c\n")
    assert {one.package for one in installed()} & {"other"} == set()


@pytest.mark.parametrize(
    ("entry", "modules", "problem"),
    [
        (f"[{SCOPES}]\na = b.registry", {}, r"its module is 'b.registry', not 'a.registry'"),
        (f"[{SCOPES}]\nmmdet = mmdet.registry", {}, "the scope mmdet is taken"),
        (f"[{SCOPES}]\na = a.registry", {}, "work: ModuleNotFoundError: No module named 'a'$"),
        (f"[{SCOPES}]\na = a.registry", {"a__registry": ""}, "a.registry has no Registry with"),
        (f"[{SCOPES}]\na = a.registry", {"a__registry": "1 / 0"}, r"division.*registry.py:1\)"),
        (
            f"[{SCOPES}]\na = a.registry",
            {"a__registry": "1 +"},
            r"SyntaxError: invalid syntax \(registry.py, line 1\)$",
        ),
        (
            f"[{SCOPES}]\na = a.registry",
            {"a__registry": "raise SystemExit(3)"},
            r"SystemExit: 3 \(.*registry.py:1\)",
        ),
        (
            f"[{COMMANDS}.data]\na = a.b:c",
            {},
            "group is fldet.commands.data, not fldet.commands or",
        ),
        (f"[{COMMANDS}]\na = a.b", {}, "'a.b' is not MODULE:FUNCTION"),
        (f"[{COMMANDS}]\na = a.b:c", {"a__b": ""}, "AttributeError: .* has no attribute 'c'"),
        (f"[{COMMANDS}]\na = a.b:c", {"a__b": "c = 1"}, "a.b:c is no function"),
    ],
)
def test_a_plugin_that_cannot_work_says_why(install, entry, modules, problem):
    install("bad-one", entry, **modules)
    (plugin,) = [one for one in installed() if one.package == "bad-one"]
    for _ in range(2):  # the second time as the first
        with pytest.raises(UnavailableError) as caught:
            load(plugin)
    assert re.search(problem, caught.value.message)
    assert "the plug-in bad-one 1.0" in caught.value.message
    assert "pip install --upgrade bad-one" in caught.value.hint


def test_of_two_plugins_with_one_scope_the_first_counts(install, fussy):
    install("gussy", "[fldet.plugins]\nfussy = fussy.registry\n")
    first, second = (one for one in installed() if one.name == "fussy")
    assert find(SCOPES, "fussy") == first
    assert problem_of(first) == ""
    assert problem_of(second) == "fussy-plugin 1.0 adds the scope fussy too, and comes first"


# --- in a config ---


def test_a_config_uses_a_plugin_without_importing_it_first(fussy):
    override = {"_delete_": True, "type": "fussy.FussyLoss", "use_sigmoid": True}
    cfg = load_config(CONFIG, {"model.bbox_head.loss_cls": override})
    assert "fussy" not in sys.modules
    validate(cfg)
    assert type(build_model(cfg).bbox_head.loss_cls).__name__ == "FussyLoss"


def test_a_data_set_of_a_plugin_is_one_of_ours(fussy):
    cfg = load_config(
        CONFIG, {"train_dataloader.dataset": {"_delete_": True, "type": "fussy.NewFormat"}}
    )
    ((kind, _),) = our_datasets(cfg.train_dataloader)
    assert kind.__name__ == "NewFormat"


def test_keywords_of_a_plugin_are_checked(fussy):
    override = {"_delete_": True, "type": "fussy.FussyLoss", "use_sigmoid": True, "fus": 2}
    with pytest.raises(ConfigError, match=r"FussyLoss takes no 'fus'\ndid you mean fuss\?"):
        validate(load_config(CONFIG, {"model.bbox_head.loss_cls": override}))


def test_a_broken_plugin_is_named_where_it_is_needed_only(broken):
    validate(load_config(CONFIG))
    assert "broken" not in sys.modules
    with pytest.raises(ConfigError) as caught:
        validate(load_config(CONFIG, {LOSS: "broken.Loss"}))
    message = caught.value.message
    assert message.startswith(f"{LOSS}: 'broken.Loss': the plug-in broken-plugin 1.0 (scope ")
    assert "ModuleNotFoundError: No module named 'no_such_package'" in message
    assert message.endswith("losses.py:2)")


def test_a_package_that_is_no_plugin_and_fails(install):
    install("plain", "", plain__registry="import math\n1 / 0\n")
    with pytest.raises(
        ConfigError, match=r"'plain\.X' cannot be looked up: ZeroDivisionError: div"
    ):
        validate(load_config(CONFIG, {LOSS: "plain.X"}))


def test_a_nested_scope_imports_its_plugin_too(broken):
    with pytest.raises(ConfigError, match="broken-plugin"):
        validate(load_config(CONFIG, {LOSS: "Loss", "+model.bbox_head.loss_cls._scope_": "broken"}))


@pytest.mark.parametrize(
    ("name", "words", "why"),
    [
        ("FussyLoss", ["did you mean fussy.FussyLoss (fussy-plugin 1.0)?"], "the scope left out"),
        ("fusy.FussyLoss", ["nor a plug-in", "did you mean fussy.FussyLoss"], "scope misspelt"),
        (
            "fussy.FusyLoss",
            ["did you mean fussy.FussyLoss (fussy-plugin 1.0)", "--package fussy-plugin lists"],
            "name misspelt",
        ),
        ("mmdet.FussyLoss", ["did you mean fussy.FussyLoss"], "another scope"),
        (
            "fldet.FocalLos",
            ["did you mean fldet.FocalLoss, ", "--package fldet lists"],
            "its own scope goes first",
        ),
        (
            "Zzzzzz",
            ["of broken-plugin 1.0 nothing is known: see fldet plugins"],
            "a plug-in that fails may have it",
        ),
    ],
)
def test_an_unknown_name_and_what_would_provide_it(name, words, why, fussy, broken):
    with pytest.raises(ConfigError) as caught:
        validate(load_config(CONFIG, {LOSS: name}))
    assert caught.value.message.startswith(f"{LOSS}: {name!r} is not registered")
    for word in words:
        assert word in str(caught.value)


# --- the list ---


def test_registered_names_with_kind_and_package(example_plugin, broken):
    names = set(registered())
    plugin = ("fldet-example-plugin", "1.0")
    assert Name("loss", "fldet_example.PolyFocalLoss", *plugin) in names
    assert Name("miner", "fldet_example.HardestShare", *plugin) in names
    kinds = {(one.name, one.kind, one.package) for one in names}
    assert kinds >= {
        ("fldet.FocalLossStar", "loss", "fldet"),
        ("fldet.OHEM", "miner", "fldet"),
        ("fldet.RetinaHead", "head", "fldet"),
        ("fldet.VOCDataset", "dataset", "fldet"),
        ("MaxIoUAssigner", "assigner", "mmdet"),
        ("GHMC", "loss", "mmdet"),
        ("CheckpointHook", "hook", "mmengine"),
        ("SGD", "optimizer", "torch"),
    }
    assert not any(one.package == "broken-plugin" for one in names)
