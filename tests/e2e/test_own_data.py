"""From a folder of data to figures, in each format, as a user types it."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest

pytestmark = pytest.mark.e2e

A_FEW = [
    "train_cfg.max_iters=3",
    "train_cfg.val_interval=3",
    "train_dataloader.batch_size=2",
    "default_hooks.checkpoint.interval=3",
    *(f"{loader}_dataloader.num_workers=0" for loader in ("train", "val", "test")),
    "+val_dataloader.dataset.indices=4",
]


def run_the_wheel(*arguments, cwd, wheel):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(wheel)}
    return subprocess.run(
        [sys.executable, "-m", "fldet", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco", "voc_mini", "yolo"])
def test_from_a_folder_to_predictions(
    fldet, name, bccd, bccd_yolo, voc_mini, installed_wheel, tmp_path
):
    """The commands that write or build something, of one format, are those of a wheel."""
    run = installed = partial(fldet, cwd=tmp_path)
    if name == "coco":
        installed = partial(run_the_wheel, cwd=tmp_path, wheel=installed_wheel)
    data, boxes = {
        "coco": (bccd, 1137),
        "yolo": (bccd_yolo, 1137),
        "voc_mini": (voc_mini / "VOCdevkit" / "VOC2007", 65),  # without 46 difficult ones
    }[name]
    looked = run("data", "inspect", data, "--json")
    assert json.loads(looked.stdout)["result"]["splits"]["train"]["boxes"], looked.stderr
    made = installed("init", data, "--out", "my.py", "--model", "lite", "--size", "96x72", "-q")
    assert (made.returncode, made.stdout) == (0, "my.py\n"), made.stderr
    options = ("--device", "cpu", "--cfg-options", *A_FEW)
    problems = run("data", "check", "my.py", "--json")
    assert problems.returncode == 0, problems.stderr
    trained = installed("train", "my.py", *options)
    assert trained.returncode == 0, trained.stderr
    assert "val at iter 3  AP 0.0" in trained.stderr
    assert (tmp_path / "work_dirs" / "my" / "iter_3.pth").exists()
    tested = run(
        *("test", "work_dirs/my/my.py", "work_dirs/my", "--json", "--device", "cpu"),
        *("--max-images", "4", "--out", "found.json"),
    )
    assert tested.returncode == 0, tested.stderr
    result = json.loads(tested.stdout)["result"]
    assert len(result["figures"]["summary"]) == 12
    assert list(result["others"]) == (["voc"] if "voc" in name else [])
    assert result["figures"]["num_images"] == 4
    looked = run("analyze", "dataset", "my.py", "--split", "val", "--json")
    assert json.loads(looked.stdout)["result"]["summary"]["boxes"] == boxes, looked.stderr
    errors = run("analyze", "errors", "my.py", "found.json", "--split", "test")
    assert errors.returncode == 0, errors.stderr
    image = next(data.rglob("*.jpg"))
    found = installed(
        "predict", "work_dirs/my", image, "--score-thr", 0, "--device", "cpu", "--json"
    )
    assert json.loads(found.stdout)["result"]["images"] == 1, found.stderr


def test_inspect_and_convert(fldet, bccd, voc_mini, tmp_path):
    looked = fldet("data", "inspect", bccd / "BCCD", "--json", cwd=tmp_path)
    result = json.loads(looked.stdout)["result"]
    assert (result["format"], list(result["splits"])) == ("Pascal VOC", ["train", "val", "test"])
    assert result["classes"] == ["Platelets", "RBC", "WBC"]
    assert result["splits"]["train"]["boxes"] == 2804
    assert result["splits"]["train"]["suspicious"] == {"box of zero size": 1}
    voc = voc_mini / "VOCdevkit" / "VOC2007"
    text = fldet("data", "inspect", voc, cwd=tmp_path).stdout
    assert "boxes           74, and 32 crowd regions" in text
    assert "difficult objects are counted as crowd regions" in text
    done = fldet("data", "convert", voc, "val.json", "--split", "val", cwd=tmp_path)
    assert "val.json: 20 images, 111 boxes\nfile names are relative to" in done.stdout
    again = fldet("data", "inspect", "val.json", cwd=tmp_path)
    assert again.returncode == 1
    assert "no folder in" in again.stderr
    unknown = fldet("data", "inspect", tmp_path / "nothing", cwd=tmp_path)
    assert (unknown.returncode, unknown.stdout) == (1, "")


def test_images_in_two_splits_and_groups_are_noted(fldet, roboflow, tmp_path):
    text = fldet("data", "inspect", roboflow, cwd=tmp_path).stdout
    assert "format          Roboflow COCO" in text
    assert "'shapes' only groups other classes" in text


@pytest.mark.slow
def test_voc_figures_alone_and_of_two_processes(fldet, tiny_config, tmp_path):
    """Two processes give the same figures; --out needs the COCO metric."""
    options = ("--device", "cpu", "--cfg-options", "val_evaluator.type=fldet.VOCMetric")
    best = "default_hooks.checkpoint.save_best=voc/mAP"
    trained = fldet("train", tiny_config, *options, best, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "val at iter 4  mAP 0." in trained.stderr
    tested = fldet("test", tiny_config, "work_dirs/tiny", *options, cwd=tmp_path)
    assert "mAP_11" in tested.stdout
    assert "evaluated by fldet, VOC at IoU 0.5, width x2 - x1 + 1" in tested.stdout
    one, two = (
        json.loads(
            fldet(
                "test", tiny_config, "work_dirs/tiny", "--json", *more, *options, cwd=tmp_path
            ).stdout
        )["result"]["figures"]
        for more in ((), ("--gpus", "2"))
    )
    assert one == two
    refused = fldet("test", tiny_config, "work_dirs/tiny", "--out", "a", *options, cwd=tmp_path)
    assert refused.returncode == 2
    assert "--out needs a config with one fldet.CocoMetric" in refused.stderr
