"""Addresses of the release before."""

from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("module", "name", "now"),
    [
        ("fldet.functional", "focal_loss", "fldet.losses.formulas"),
        ("fldet.functional", "Alpha", "fldet.losses.elements"),
        ("fldet.functional", "sigmoid_focal_loss", "fldet.losses"),
        ("fldet.annotations", "read_annotations", "fldet.data.annotations"),
        ("fldet.results", "write_atomically", "fldet.files"),
        ("fldet.results", "Detections", "fldet.inference.detections"),
        ("fldet.inference.results", "Detections", "fldet.inference.detections"),
        ("fldet.results", "TestResult", "fldet.engine.results"),
        ("fldet.results", "CocoFigures", "fldet.evaluation.figures"),
        ("fldet.results", "SpeedResult", "fldet.benchmark.results"),
        ("fldet.engine.prepare", "prepare_config", "fldet.config.prepare"),
        ("fldet.cli.output", "table", "fldet.text"),
        ("fldet.config", "CONFIGS", "fldet.config.load"),
        ("fldet.config", "load_config", "fldet.config.load"),
        ("fldet.config", "parse_override", "fldet.config.overrides"),
        ("fldet.image_files", "inspect_image", "fldet.data.image_files"),
        ("fldet.models", "FocalLoss", "fldet.models.losses.sigmoid_loss"),
        ("fldet.models", "CountOverRanks", "fldet.losses.normalizers"),
        ("fldet.models", "RetinaHead", "fldet.models.dense_heads.retina_head"),
        ("fldet.models", "OHEM", "fldet.models.task_modules"),
    ],
)
def test_an_earlier_address_warns_and_leads_to_the_same(module, name, now):
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is {now}.{name} now"):
        found = getattr(import_module(module), name)
    assert found is getattr(import_module(now), name)


@pytest.mark.parametrize("module", ["fldet.functional", "fldet.results", "fldet.cli.output"])
def test_what_never_was_there_is_not(module):
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(import_module(module), "nothing")  # noqa: B009
