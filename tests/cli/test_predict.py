"""What ``fldet predict`` says about what it found."""

import json
from pathlib import Path

from fldet.cli.predict import objects_of, prediction_text
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
