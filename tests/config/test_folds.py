"""The lines ``folds`` and ``fold``: who is trained on, who is validated and tested on."""

import json

import pytest
from mmengine.config import Config

from fldet.config.folds import choose_fold
from fldet.config.load import load_config
from fldet.config.prepare import dataset_of, prepare_config
from fldet.data.folds.split import SplitOptions, split_data
from fldet.errors import ConfigError, DataError, UsageError


@pytest.fixture
def folds(tiny_coco, tmp_path):
    """Three folds of the six training images."""
    file = tiny_coco / "annotations" / "instances_train2017.json"
    images = tiny_coco / "train2017"
    return split_data(file, SplitOptions(folds=3), tmp_path / "folds", images)


def names(cfg, split):
    kind, dataset = dataset_of(cfg, split)
    return {image["file_name"] for image in kind.read(dataset)["images"]}


def test_training_and_validation_share_the_training_file(tiny_config, folds):
    cfg = load_config(tiny_config)
    choose_fold(cfg, folds.folder, 2)
    listed = {name for name, fold in folds.division.fold_of.items() if fold == 2}
    every = set(folds.division.fold_of)
    assert (names(cfg, "train"), names(cfg, "val")) == (every - listed, listed)
    assert names(cfg, "test") == listed
    saved = prepare_config(cfg, phases=("train", "val"))
    assert (saved.fold, saved.folds) == (2, str(folds.folder))
    assert saved.val_evaluator.dataset == saved.test_evaluator.dataset
    again = prepare_config(saved, phases=("train", "val"))
    assert again.to_dict() == saved.to_dict()
    # another fold of a config that was saved, as fldet test reads it
    saved.fold = 3
    others = {name for name, fold in folds.division.fold_of.items() if fold == 3}
    assert (names(saved, "train"), names(saved, "test")) == (every - others, others)


def test_what_init_has_set_aside_takes_part(tiny_config, folds, tmp_path):
    file = tmp_path / "aside.json"
    file.write_text(json.dumps(["0.png", "1.png"]))
    train = load_config(tiny_config).train_dataloader.dataset
    cfg = load_config(tiny_config, {"val_dataloader.dataset.ann_file": train.ann_file})
    cfg.train_dataloader.dataset.without_images = str(file)
    cfg.val_dataloader.dataset.only_images = str(file)
    assert names(cfg, "val") == {"0.png", "1.png"}
    choose_fold(cfg, folds.folder, 1)
    assert names(cfg, "train") | names(cfg, "val") == set(folds.division.fold_of)


def test_oversampled_and_listed_twice(tiny_config, folds):
    cfg = load_config(tiny_config, {"+oversample": 0.9})
    choose_fold(cfg, folds.folder, 1)
    prepared = prepare_config(cfg, phases=("train", "val"))
    dataset = prepared.train_dataloader.dataset
    assert dataset.type == "fldet.ClassBalancedDataset"
    assert dataset.dataset.without_images.endswith("fold_1.json")


def test_a_config_saved_for_a_test_keeps_its_fold(tiny_config, folds):
    cfg = load_config(tiny_config)
    choose_fold(cfg, folds.folder, 2)
    saved = prepare_config(cfg, phases=("test",))
    tested = Config({key: value for key, value in saved.items() if not key.startswith("train_")})
    assert names(tested, "test") == names(cfg, "test")
    tested.fold = 1
    with pytest.raises(ConfigError, match="saved for a test of"):
        prepare_config(tested, phases=("test",))


def test_what_cannot_be(tiny_config, folds, tmp_path):
    with pytest.raises(ConfigError, match="does not say of which folds"):
        prepare_config(load_config(tiny_config, {"+fold": 1}), phases=())
    with pytest.raises(ConfigError, match="none is chosen"):
        choose_fold(load_config(tiny_config), folds.folder, None)
    for fold, kind, words in (
        (4, UsageError, "has no fold 4"),
        (0, ConfigError, "fold is 0"),
        ("one", ConfigError, "fold is 'one'"),
    ):
        cfg = load_config(tiny_config, {"+folds": str(folds.folder), "+fold": fold})
        with pytest.raises(kind, match=words):
            prepare_config(cfg, phases=())
    cfg = load_config(tiny_config, {"+folds": str(tmp_path), "+fold": 1})
    with pytest.raises(DataError, match=r"has no folds\.json"):
        prepare_config(cfg, phases=())
    cfg = load_config(tiny_config, {"+folds": str(folds.folder), "+fold": 1})
    cfg.update(val_dataloader=None, val_evaluator=None, val_cfg=None)
    with pytest.raises(ConfigError, match="no val_dataloader"):
        prepare_config(cfg, phases=())
