"""The commands below ``fldet analyze`` as a user starts them."""

import json

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.e2e


def test_anchors_of_a_config_and_from_its_file(fldet, tiny_config, tmp_path):
    out = tmp_path / "out"
    done = fldet("analyze", "anchors", tiny_config, "--out-dir", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["command"] == "analyze anchors"
    report = result["result"]["report"]
    assert (report["images"], report["boxes"]) == (6, 9)
    names = [f"tiny_train_anchors.{ending}" for ending in ("npz", "png", "svg")]
    assert result["result"]["files"] == [str(out / name) for name in names]
    again = fldet(
        "analyze", "anchors", "--from", out / names[0], "--out-dir", tmp_path / "again", "--json"
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["result"]["report"] == report
    assert (tmp_path / "again" / names[2]).read_bytes() == (out / names[2]).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["anchors"], 2, ["no config is given", "--from FILE"]),
        (["anchors", "a.py", "--from", "b.npz"], 2, ["both a config (a.py) and --from b.npz"]),
        (["anchors", "--from", "b.npz"], 1, ["file not found: b.npz"]),
        (["anchors", "retinanet/r50_fpn_1x.py"], 1, ["annotation file not found", "data_root="]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_wrong_usage_is_three_lines(fldet, arguments, code, words, tmp_path):
    done = fldet("analyze", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def has_color(path, color_bgr):
    return (np.abs(cv2.imread(str(path)).astype(int) - color_bgr).max(axis=2) < 40).sum() > 50


def test_dataset_of_a_config_is_drawn_by_its_anchors(fldet, tiny_config, tmp_path):
    options = "model.bbox_head.anchor_generator.sizes=[512, 512, 512, 512, 512]"
    done = fldet("analyze", "dataset", tiny_config, "--out-dir", tmp_path, "--cfg-options", options)
    assert done.returncode == 0, done.stderr
    sheet = tmp_path / "instances_train2017_images.jpg"
    assert f"picture  {sheet}" in done.stdout
    assert has_color(sheet, (0, 94, 213))  # vermilion: no anchor fits
    assert not has_color(sheet, (178, 114, 0))


def test_dataset_of_another_kind_of_model_is_drawn_plainly(fldet, tiny_config, tmp_path):
    done = fldet(
        "analyze",
        *("dataset", tiny_config, "--out-dir", tmp_path),
        *("--cfg-options", "model.train_cfg.allowed_border=0"),
    )
    assert done.returncode == 0, done.stderr
    assert "images are drawn as they are in the file" in done.stderr
    assert cv2.imread(str(tmp_path / "instances_train2017_images.jpg")).shape[1] > 1000
