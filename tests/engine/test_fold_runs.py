"""``fldet train --fold``: what is left out is validated on, and stays so."""

import json

import pytest

from fldet.config.load import load_config
from fldet.config.prepare import dataset_of
from fldet.data.folds.split import SplitOptions, split_data

pytestmark = pytest.mark.e2e


def test_trained_resumed_and_tested_without_the_fold(fldet, tiny_coco, tiny_config, tmp_path):
    file = tiny_coco / "annotations" / "instances_train2017.json"
    split_data(file, SplitOptions(folds=3), tmp_path / "FOLDS", tiny_coco / "train2017")
    work = tmp_path / "fold_2"
    train = ("train", tiny_config, "--work-dir", work, "--device", "cpu")
    done = fldet(*train, "--folds", "FOLDS", "--fold", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fold 2 of" in done.stderr
    assert "of 4 images" in done.stderr
    saved = work / "tiny.py"
    listed = json.loads((tmp_path / "FOLDS" / "fold_2.json").read_text())
    kind, dataset = dataset_of(load_config(saved), "val")
    assert [image["file_name"] for image in kind.read(dataset)["images"]] == listed
    (work / "iter_4.pth").unlink()
    resumed = ("train", saved, "--work-dir", work, "--device", "cpu", "--resume")
    assert fldet(*resumed, cwd=tmp_path).returncode == 0
    tested = fldet("test", saved, work, "--device", "cpu", "--json", cwd=tmp_path)
    assert json.loads(tested.stdout)["result"]["figures"]["num_images"] == 2
    wrong = fldet(*train, "--folds", "FOLDS", "--fold", 4, cwd=tmp_path)
    assert (wrong.returncode, "has no fold 4" in wrong.stderr) == (2, True)
    assert "a whole number from 1 to 3" in wrong.stderr
