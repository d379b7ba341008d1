import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fldet.cli.main import app

TRUTH = {
    "images": [{"id": 5, "file_name": "a.png", "width": 80, "height": 60}],
    "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 3, "bbox": [0, 0, 20, 20]},
        {"id": 2, "image_id": 5, "category_id": 7, "bbox": [40, 20, 20, 20]},
    ],
}
RIGHT = {"image_id": 5, "category_id": 3, "bbox": [0, 0, 20, 20], "score": 0.9}
WRONG = {"image_id": 5, "category_id": 3, "bbox": [40, 20, 20, 20], "score": 0.8}


@pytest.fixture
def files(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((60, 80, 3), 128, np.uint8))
    return write(tmp_path, [RIGHT, WRONG])


def write(folder, results):
    for name, content in (("truth.json", TRUTH), ("results.json", results)):
        (folder / name).write_text(json.dumps(content))
    return folder / "truth.json", folder / "results.json"


def run(*arguments):
    return CliRunner().invoke(app, ["analyze", "errors", *map(str, arguments)])


def test_table_pictures_and_drawing_again(files, tmp_path, capfd):
    out = tmp_path / "out"
    done = run(*files, "--images", tmp_path, "--out-dir", out)
    assert done.exit_code == 0, done.output
    text = capfd.readouterr().out
    assert "AP50 0.500: 1 images, 2 objects, 2 detections" in text
    assert [line.split() for line in text.splitlines() if line.startswith("classification")] == [
        ["classification", "1", "1", "0.500"]
    ]
    names = {path.name for path in out.iterdir()}
    assert {"errors.json", "errors_kinds.png", "errors_kinds.svg", "worst_01.jpg"} <= names
    for path in files:
        path.unlink()
    assert run("--from", out / "errors.json", "--out-dir", tmp_path / "again").exit_code == 0
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes()
    assert {path.name for path in (tmp_path / "again").iterdir()} == names - {"errors.json"}


def test_json(files, tmp_path, capfd):
    assert run(*files, "--out-dir", tmp_path / "out", "--worst", "0", "--json").exit_code == 0
    content = json.loads(capfd.readouterr().out)
    assert content["command"] == "analyze errors"
    assert content["result"]["ap50"] == 0.5
    kind = {"count": 1, "confident": 1, "ap50_gain": 0.5}
    assert content["result"]["kinds"]["classification"] == kind
    assert content["result"]["ap50_per_area"]["large"] is None
    assert content["result"]["worst_images"] == []


@pytest.mark.parametrize(
    ("results", "lines"),
    [
        ({"a": 1}, ["holds no list of detections", "Expected: the COCO results format"]),
        ([{**RIGHT, "image_id": 9}], ["detection 0 has the image_id 9", "Expected: ids of the"]),
        ([RIGHT, {**RIGHT, "category_id": 4}], ["detection 1 has the category_id 4", "Expected"]),
        ([{**RIGHT, "bbox": [1, 2]}], ["detection 0 is malformed", "Expected"]),
        ([{**RIGHT, "score": 2}], ["has the score 2", "Expected: probabilities in [0, 1]"]),
    ],
)
def test_results_that_do_not_fit(tmp_path, results, lines):
    done = run(*write(tmp_path, results), "--out-dir", tmp_path / "out")
    assert done.exit_code == 1
    assert all(line in done.output for line in lines), done.output
    assert not (tmp_path / "out").exists()


def test_results_file_that_is_not_there(files, tmp_path):
    done = run(files[0], tmp_path / "none.json")
    assert done.exit_code == 1
    assert "results file not found" in done.output


def test_objects_of_a_config_are_those_of_its_classes(tiny_config, tiny_coco, tmp_path, capfd):
    content = json.loads((tiny_coco / "annotations" / "instances_val2017.json").read_text())
    category, other = content["categories"][:2]
    objects = [one["category_id"] for one in content["annotations"] if not one["iscrowd"]]
    expected = objects.count(category["id"])
    assert 0 < expected < len(objects)
    image = content["images"][0]["id"]
    one = {**RIGHT, "image_id": image, "category_id": category["id"]}
    (tmp_path / "found.json").write_text(json.dumps([one]))
    of_one = ("--worst", "0", "--cfg-options", f"classes=('{category['name']}',)")
    done = run(tiny_config, tmp_path / "found.json", "--out-dir", tmp_path / "a", "--json", *of_one)
    assert done.exit_code == 0, done.output
    assert json.loads(capfd.readouterr().out)["result"]["objects"] == expected
    (tmp_path / "found.json").write_text(json.dumps([{**one, "category_id": other["id"]}]))
    refused = run(tiny_config, tmp_path / "found.json", "--out-dir", tmp_path / "b", *of_one)
    assert f"has the category_id {other['id']}" in refused.output


@pytest.mark.parametrize("words", [[], ["truth.json"], ["t.json", "r.json", "--from", "e.json"]])
def test_wrong_usage(words):
    done = run(*words)
    assert done.exit_code == 2
    assert "Hint: fldet test CONFIG CHECKPOINT --out results.json" in done.output


def test_help_imports_nothing_heavy():
    code = (
        "import sys, atexit\n"
        "sys.argv = ['fldet', 'analyze', 'errors', '--help']\n"
        "heavy = ('torch', 'numpy', 'matplotlib', 'cv2', 'mmengine')\n"
        "atexit.register(lambda: print('HEAVY', [m for m in heavy if m in sys.modules]))\n"
        "from fldet.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert "Examples:\n    fldet " in done.stdout
