import os

import pytest

from fldet.data import folders
from fldet.data.folders import (
    files_below,
    folder_named,
    folders_below,
    images_by_stem,
    split_folders,
    split_named,
    split_of,
    text_lines,
)
from fldet.errors import DataError


def made(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names_of(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_files_below_without_what_is_hidden(tmp_path):
    hidden = (".git/a.jpg", "._a.jpg", "__MACOSX/a.jpg", "@eaDir/a.jpg", ".a.jpg")
    made(tmp_path, "b.JPG", "a.jpg", "c/d/a.jpg", "a.txt", *hidden)
    assert names_of(files_below(tmp_path, [".jpg"]), tmp_path) == ["a.jpg", "b.JPG", "c/d/a.jpg"]
    assert names_of(files_below(tmp_path, [".jpg"], deepest=1), tmp_path) == ["a.jpg", "b.JPG"]
    assert names_of(files_below(tmp_path / ".git", [".jpg"]), tmp_path) == [".git/a.jpg"]
    assert names_of(folders_below(tmp_path, deepest=2), tmp_path) == ["c", "c/d"]


def test_only_regular_files_and_no_way_round(tmp_path):
    made(tmp_path / "real", "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "itself.jpg").symlink_to(tmp_path / "itself.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "other").symlink_to(tmp_path / "real")
    assert names_of(files_below(tmp_path, [".jpg"]), tmp_path) == ["other/a.jpg", "real/a.jpg"]


def test_links_that_multiply_are_stopped(tmp_path, monkeypatch):
    """Ten links to a folder of ten links: 10^12 paths, none of them leads back."""
    for level in range(12):
        (tmp_path / f"{level}").mkdir()
        for link in range(10):
            (tmp_path / f"{level}" / f"{link}").symlink_to(tmp_path / f"{level + 1}")
    monkeypatch.setattr(folders, "MOST_FOLDERS", 500)
    with pytest.raises(DataError, match="has too much in it for a data set"):
        files_below(tmp_path / "0", [".jpg"])


@pytest.mark.parametrize(
    ("name", "words", "whole"),
    [
        ("train", "train", "train"), ("Train", "train", "train"), ("train2017", "train", "train"),
        ("TRAINING", "train", "train"), ("trainval", "train", "train"),
        ("train_1", "train", "train"),
        ("valid", "val", "val"), ("validation", "val", "val"), ("VAL2012", "val", "val"),
        ("eval", "val", "val"), ("dev", "val", "val"), ("testing", "test", "test"),
        ("instances_val2017", "val", None), ("dev_train", "train", None),
        ("cat_test", "test", None),
        ("test_after_training", "test", None),
        ("latest", None, None), ("strain", None, None), ("values", None, None),
        ("devkit", None, None),
        ("", None, None), ("2017", None, None),
    ],
)  # fmt: skip
def test_splits_that_names_speak_of(name, words, whole):
    assert (split_of(name), split_named(name)) == (words, whole)


def test_two_folders_for_one_split(tmp_path):
    made(tmp_path, "Train/a", "dev/a", "test2017/b", "masks/a")
    found = split_folders(tmp_path, lambda folder: (folder / "a").exists())
    assert {split: folder.name for split, folder in found.items()} == {
        "train": "Train",
        "val": "dev",
    }
    made(tmp_path, "valid/a")
    with pytest.raises(DataError, match="has two folders for val: dev and valid"):
        split_folders(tmp_path, lambda _: True)


def test_folders_in_whatever_case(tmp_path):
    made(tmp_path, "imagesets/MAIN/a", "b")
    assert folder_named(tmp_path, ["a", "ImageSets/Main"]) == tmp_path / "imagesets" / "MAIN"
    assert folder_named(tmp_path, [""]) == tmp_path
    assert folder_named(tmp_path, ["b", "ImageSets/Layout", "x" * 5000]) is None


def test_of_images_of_one_name_the_usual_ending_wins(tmp_path):
    made(tmp_path, "a.png", "a.JPG", "a.txt", "b.Tif", ".b.jpg")
    assert images_by_stem(tmp_path) == {"a": "a.JPG", "b": "b.Tif"}
    assert images_by_stem(tmp_path / "none") == {}


def test_lines_end_as_on_any_system(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffa\r\n b\u2028c \r\rd\n".encode())
    assert text_lines(file, "list", expected="") == ["a", "b\u2028c", "", "d", ""]
