"""What ``fldet predict`` says about what it found."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from fldet.cli.predict import objects_of, open_drawn, prediction_text
from fldet.inference.results import PredictResult


def line(file="a.jpg", **more):
    objects = {"names": ["cat", "dog", "dog"], "scores": [0.91, 0.8, 0.75]}
    return {"file": file, "labels": [0, 1, 1], "boxes": [[0, 0, 1, 1]] * 3, **objects, **more}


def result_of(*lines, images=1):
    files = (Path("out/predictions.jsonl"),)
    return PredictResult(
        *(Path("out"), images, 0, 3, 0, files, 2.0), pictures=Path("out/pictures"), detections=lines
    )


def test_the_objects_of_an_image_by_class():
    assert objects_of(line()) == "a.jpg: cat 0.91, 2 dog 0.80 0.75"
    assert objects_of(line(frame=25)).startswith("a.jpg frame 25: ")
    assert objects_of(line(names=[], scores=[])) == "a.jpg: nothing"
    many = line(names=["cell"] * 7, scores=[0.5] * 7)
    assert objects_of(many) == "a.jpg: 7 cell 0.50 0.50 0.50 0.50 0.50 ..."


def test_few_images_are_told_and_many_are_not():
    text = prediction_text(result_of(line(), line("b.jpg"), images=2))
    assert text.splitlines()[:2] == [objects_of(line()), objects_of(line("b.jpg"))]
    assert text.splitlines()[-2:] == ["out/predictions.jsonl", "out/pictures"]
    assert "a.jpg" not in prediction_text(result_of(line(), images=11))


def test_json_has_the_detections_and_the_folder_of_pictures(fldet, tiny_run, tiny_coco, tmp_path):
    source = tiny_coco / "val2017" / "0.png"
    command = ("predict", tiny_run[1], source, "--out", tmp_path / "out", "--device", "cpu")
    done = fldet(*command, "--score-thr", "0.05", "--json")
    result = json.loads(done.stdout)["result"]
    assert result["pictures"] == str(tmp_path / "out" / "pictures")
    (found,) = result["detections"]
    assert found["file"] == str(source)
    assert len(found["boxes"]) == result["boxes"] > 0


@pytest.mark.parametrize(
    ("files", "opened"),
    [
        (["a.jpg"], "a.jpg"),
        (["sub/a.jpg"], "sub/a.jpg"),
        (["a.jpg", "b.jpg"], ""),
        ([], ""),
    ],
)
@pytest.mark.parametrize("exit_code", [0, 1])
def test_the_only_picture_or_the_folder_is_opened(
    tmp_path, monkeypatch, capsys, files, opened, exit_code
):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    launched = []
    monkeypatch.setattr("typer.launch", lambda path: launched.append(path) or exit_code)
    open_drawn(tmp_path)
    assert launched == [str(tmp_path / opened)]
    assert ("nothing here opens" in capsys.readouterr().err) == bool(exit_code)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have another command")
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_show_needs_pictures_and_starts_what_the_system_has(
    fldet, tiny_run, tiny_coco, tmp_path, monkeypatch
):
    source = tiny_coco / "val2017" / "0.png"
    command = ("predict", tiny_run[1], source, "--device", "cpu", "--show")
    refused = fldet(*command, "--format", "jsonl", "--out", tmp_path / "none")
    assert refused.returncode == 2
    assert "--show without pictures" in refused.stderr
    assert not (tmp_path / "none").exists()
    viewer = tmp_path / "bin" / "xdg-open"
    viewer.parent.mkdir()
    viewer.write_text(f'#!/bin/sh\necho "$1" > {tmp_path / "opened"}\n')
    viewer.chmod(0o755)
    monkeypatch.setenv("PATH", str(viewer.parent), prepend=os.pathsep)
    done = fldet(*command, "--score-thr", "0.05", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    end = time.monotonic() + 20  # it is not waited for
    while not (tmp_path / "opened").is_file() and time.monotonic() < end:
        time.sleep(0.05)
    (picture,) = (tmp_path / "out" / "pictures").iterdir()
    assert (tmp_path / "opened").read_text().strip() == str(picture)
