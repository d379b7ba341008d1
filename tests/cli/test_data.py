"""``fldet data check``, and trainings on data with broken images, as a user starts them."""

import json
import shutil

import pytest
from PIL import Image

from fldet.data.image_files import read_lines

pytestmark = pytest.mark.e2e


@pytest.fixture
def broken_config(tiny_coco, tiny_config, tmp_path):
    """Six training images: one truncated, one empty, one of another size; validation is fine."""
    root = tmp_path / "data"
    shutil.copytree(tiny_coco, root)
    images = root / "train2017"
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:-30])
    (images / "1.png").write_bytes(b"")
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"][2]["width"] = 63
    path.write_text(json.dumps(content))
    tiny_config.write_text(tiny_config.read_text().replace(str(tiny_coco), str(root)))
    return tiny_config


def test_problems_are_listed_by_kind_and_fail(fldet, bad_inputs):
    source = bad_inputs / "annotations" / "all_images.json"
    arguments = ("data", "check", source, "--images", bad_inputs / "images", "--examples", 1)
    done = fldet(*arguments, "--workers", 2)
    assert done.returncode == 1, done.stderr
    assert "14 image files looked at (header and end), 1 turned upright" in done.stdout
    assert "image cannot be read: 2" in done.stdout
    assert "zero_bytes.jpg  images[3] (id 4)  file_name  the file is empty" in done.stdout
    assert "... and 1 more" in done.stdout
    as_json = fldet(*arguments, "--deep", "--json")
    result = json.loads(as_json.stdout)["result"]
    assert (as_json.returncode, result["problems"]) == (1, 5)
    [first] = result["files"]
    broken = [one["id"] for one in first["problems"] if one["kind"] != "image listed twice"]
    assert broken == [3, 4, 5]  # and two of the others are copies


def test_a_clean_config_and_one_split_of_a_broken_one(fldet, broken_config):
    done = fldet("data", "check", broken_config, "--split", "val", "--quiet")
    assert (done.returncode, done.stdout) == (0, "0\n")
    done = fldet("data", "check", broken_config)
    assert done.returncode == 1
    assert "instances_train2017.json" in done.stdout
    assert "instances_val2017.json" in done.stdout
    for words in ("image truncated: 1", "image cannot be read: 1", "annotation 63 x 64, file 64"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["gone.json"], 1, "annotation file unreadable: 1"),
        (["gone.json"], 1, "Error: annotation file not found: gone.json"),
        (["gone", "--split", "val"], 2, "config 'gone' does not exist"),
        (["a.json", "--cfg-options", "a=1"], 2, "--cfg-options go with a config"),
        ([".", "--images", "."], 1, "is no data set that fldet knows"),
        (["a.json", "--columns", "x"], 1, "there is no"),
        (["."], 1, "is no data set that fldet knows"),
        (["a.json", "--images", "gone"], 1, "folder of images not found: gone"),
        (["retinanet/r50_fpn_1x.py", "--images", "gone"], 2, "--images goes with an annotation"),
        (["retinanet/r50_fpn_1x.py", "--split", "tain"], 2, "unknown split 'tain'"),
    ],
)
def test_wrong_usage(fldet, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    done = fldet("data", "check", *arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert words in done.stderr + done.stdout


def test_a_folder_is_checked_as_inspect_finds_it(fldet, roboflow):
    path = roboflow / "valid" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    content["images"].append({**content["images"][0], "id": 99})
    path.write_text(json.dumps(content))
    done = fldet("data", "check", roboflow)
    assert done.returncode == 1
    assert f"{roboflow}/train/_annotations.coco.json" in done.stdout
    assert "image listed twice: 1" in done.stdout
    assert fldet("data", "check", roboflow, "--split", "train").returncode == 0
    alone = fldet("data", "check", path)  # its images are found beside it
    assert (alone.returncode, "6 image files looked at" in alone.stdout) == (1, True)


def test_all_malformed_files_of_voc_and_yolo_are_listed(fldet, tmp_path):
    for name in "abc":
        Image.new("RGB", (40, 20)).save(tmp_path / f"{name}.jpg")
        (tmp_path / f"{name}.xml").write_text("<annotation><object></annotation>")
    (tmp_path / "c.xml").write_text("<annotation></annotation>")
    done = fldet("data", "check", tmp_path)
    assert done.returncode == 1
    assert "malformed file: 2" in done.stdout
    assert "a.xml:1: not XML" in done.stdout
    assert "b.xml:1: not XML" in done.stdout
    (tmp_path / "data.yaml").write_text("names: [x]\ntrain: .\n")
    for name in "abc":
        (tmp_path / f"{name}.xml").unlink()
        (tmp_path / f"{name}.txt").write_text("0 0.5 0.5 0.1 0.1\n" if name == "a" else "7 8 9")
    done = fldet("data", "check", tmp_path / "data.yaml")
    assert (done.returncode, "malformed file: 2" in done.stdout) == (1, True)
    assert "1 images, 1 annotations" in done.stdout


def test_an_image_of_two_splits_is_named(fldet, tiny_coco, tiny_config, tmp_path):
    """By its path; where files are read, by its content too."""
    root = tmp_path / "data"
    shutil.copytree(tiny_coco, root)
    shutil.copy(root / "train2017" / "0.png", root / "val2017" / "0.png")
    config = ["--cfg-options", f"data_root={root}"]
    assert "two splits" not in fldet("data", "check", tiny_config, *config).stdout
    done = fldet("data", "check", tiny_config, "--deep", *config)
    assert done.returncode == 1
    assert "image of two splits: " in done.stdout
    assert "'0.png', as images[0] of " in done.stdout
    prefix = "val_dataloader.dataset.data_prefix.img=train2017"
    assert "image of two splits: 6" in fldet("data", "check", tiny_config, *config, prefix).stdout


def test_training_goes_on_without_broken_images_and_names_each_once(fldet, broken_config, tmp_path):
    done = fldet(
        *("train", broken_config, "--work-dir", tmp_path / "run", "--device", "cpu"),
        *("--cfg-options", "train_dataloader.num_workers=2", "train_cfg.max_iters=6"),
        *("train_cfg.val_interval=100",),
    )
    assert done.returncode == 0, done.stderr
    for name in ("0.png: truncated", "1.png: the file is empty", "2.png: it has 64 x 64"):
        assert done.stderr.count(f"/{name}") == 1
    assert "3 broken images were left out of the training" in done.stderr
    [listed] = (tmp_path / "run").glob("*/broken_images.txt")
    # an image that two loaders meet at once may be in the file twice; it counts once
    assert len(read_lines(listed)) == 3


def test_training_stops_above_the_number_and_says_so_in_three_lines(fldet, broken_config, tmp_path):
    done = fldet(
        *("train", broken_config, "--work-dir", tmp_path / "run", "--device", "cpu"),
        *("--cfg-options", "train_dataloader.num_workers=2"),
        "train_dataloader.dataset.max_broken_images=1",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Error: broken training images: 2; the last: " in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("Hint: fldet data check")
