import dataclasses
import errno
import json
import math
import os
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Literal

import pytest

from fldet import files
from fldet.benchmark.results import SpeedComparison
from fldet.errors import DataError
from fldet.files import (
    atomic_file,
    atomic_path,
    is_temporary_name,
    temporary_name,
    write_atomically,
)
from fldet.results import Count, Share, read_stored, restored, to_jsonable


@pytest.fixture
def umask():
    """Sets the umask; the earlier one is put back."""
    earlier = os.umask(0)
    yield os.umask
    os.umask(earlier)


def test_dataclasses_paths_and_nan_become_json():
    speed = SpeedComparison("mmdet", 1.5, math.nan)
    plain = to_jsonable({"speed": (speed, None), "path": Path("a/b"), 1: (math.inf, True)})
    assert json.loads(json.dumps(plain)) == {
        "speed": [{"name": "mmdet", "median_ms": 1.5, "speedup": None}, None],
        "path": "a/b",
        "1": [None, True],
    }


@dataclasses.dataclass(frozen=True)
class Inner:
    share: Share
    names: tuple[str, ...] = ("a",)


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    pairs: dict[str, tuple[int, float]]
    path: Path | None
    state: Literal["on", "off"]
    either: int | str
    sure: bool
    name: Hashable
    others: dict[str, Inner] = dataclasses.field(default_factory=dict)


WHOLE = Outer(
    Inner(0.5), {"b": (3, math.nan)}, Path("a/b"), "on", "x", True, 2**60, {"c": Inner(1.0)}
)
PLAIN = json.loads(json.dumps(to_jsonable(WHOLE)))


def test_what_became_json_is_restored():
    assert repr(restored(Outer, PLAIN)) == repr(WHOLE)
    assert restored(Outer, {**PLAIN, "of another version": 1}).inner == Inner(0.5)
    assert restored(Inner, {"share": 1}) == Inner(1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner": None}, "inner is None\nExpected: an object"),
        ({"inner": {"names": []}}, "inner.share is missing"),
        ({"inner": {"share": 2}}, "inner.share is 2\nExpected: a number from 0 to 1"),
        ({"inner": {"share": None}}, "inner.share is None"),
        ({"inner": {"share": 0, "names": ["a", 5]}}, "inner.names[1] is 5\nExpected: a text"),
        ({"inner": {"share": 0, "names": "ab"}}, "inner.names is 'ab'\nExpected: a list"),
        ({"pairs": {"b": [3]}}, "pairs.b is [3]\nExpected: a list of 2"),
        ({"pairs": {"b": [3.5, 1]}}, "pairs.b[0] is 3.5\nExpected: a whole number"),
        ({"pairs": {"b": [True, 1]}}, "pairs.b[0] is True"),
        ({"pairs": {"b": [0, 10**400]}}, "pairs.b[1] is a number of 1329 bits"),
        ({"pairs": {"b": [0, math.inf]}}, "pairs.b[1] is inf\nExpected: a number"),
        ({"pairs": {"x" * 10_001: [0, 0]}}, "a name in pairs is 'xxx"),
        ({"path": 5}, "path is 5"),
        ({"path": "x" * 10_001}, "path is 'xxx"),
        ({"state": "of"}, "state is 'of'\nExpected: one of: on, off"),
        ({"state": []}, "state is []"),
        ({"either": None}, "either is None\nExpected: a text"),
        ({"sure": 1}, "sure is 1\nExpected: true or false"),
        ({"name": 2**64}, "name is 18446744073709551616"),
        ({"others": [1]}, "others is [1]\nExpected: an object"),
    ],
)
def test_values_of_another_kind_are_named(change, message):
    with pytest.raises(DataError) as caught:
        restored(Outer, {**PLAIN, **change})
    assert str(caught.value).startswith(message)


def test_a_file_and_the_place_in_it_are_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"result": {"images": 3, "seconds": [1]}}))
    assert read_stored(path, Count, "result", "images", what="note") == 3
    for keys, message in (
        (("result", "seconds"), r"a\.json is no note: result\.seconds is \[1\]"),
        (("result", "x", "y"), r"result\.x is missing"),
        (("result", "images", "y"), r"result\.images is 3"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read_stored(path, Count, *keys, what="note", hint="write it anew")
        assert caught.value.hint == "write it anew"


def test_files_are_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "a.json"
    write_atomically(target, '{"x": 1}')
    assert json.loads(target.read_text()) == {"x": 1}
    with pytest.raises(TypeError):
        write_atomically(target, 5)
    assert json.loads(target.read_text()) == {"x": 1}
    assert [path.name for path in target.parent.iterdir()] == ["a.json"]


def test_a_file_that_is_written_piece_by_piece_appears_at_the_end(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("before")
    with atomic_file(target) as file:
        file.write("ä")
        file.flush()
        assert target.read_text() == "before"
    assert target.read_bytes() == "ä".encode()


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path, mode):
    target = tmp_path / "a.txt"
    target.write_text("before")
    with pytest.raises(TypeError), atomic_file(target, mode) as file:
        file.writelines(["half", 1] if mode == "w" else [b"half", 1])
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "before"


WRITERS = {
    "text": lambda path: write_atomically(path, "x"),
    "bytes": lambda path: write_atomically(path, b"x"),
    "a stream": lambda path: _stream(path, "w", "x"),
    "a binary stream": lambda path: _stream(path, "wb", b"x"),
    "by name": lambda path: _by_name(path),
}


def _stream(path, mode, data):
    with atomic_file(path, mode) as file:
        file.write(data)


def _by_name(path):
    with atomic_path(path) as temporary:
        temporary.write_text("x")


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o027, 0o640), (0o002, 0o664)])
def test_the_umask_decides_who_may_read_a_file(tmp_path, umask, mask, mode, write):
    umask(mask)
    write(tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_link_that_waits_at_the_temporary_name_is_not_written_through(
    tmp_path, monkeypatch, write
):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".a.00000000").symlink_to(victim)
    foreseen = iter(["00000000", "11111111"])
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: next(foreseen))
    write(tmp_path / "a")
    assert victim.read_text() == "precious"
    assert (tmp_path / "a").read_text() == "x"


def test_temporary_names_cannot_be_foreseen(tmp_path):
    names = {temporary_name(tmp_path / "a").name for _ in range(100)}
    assert len(names) == 100
    assert all(is_temporary_name(name, "a") for name in names)


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "\udcff" * 255, "図" * 85])
def test_a_name_as_long_as_the_system_allows_can_be_written(tmp_path, name):
    write_atomically(tmp_path / name, "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_an_error_of_the_system_names_the_file_and_not_the_temporary_one(tmp_path, write):
    with pytest.raises(OSError) as caught:  # noqa: PT011
        write(tmp_path / ("a" * 255) / "b" / ("c" * 256))
    assert Path(caught.value.filename).name == "c" * 256
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write(tmp_path / "folder")
    assert caught.value.filename == str(tmp_path / "folder")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_file(tmp_path / "a"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_file_systems_that_cannot_sync_are_no_error(tmp_path, monkeypatch, number):
    def refuse(_handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    assert write_atomically(tmp_path / "a", "x").read_text() == "x"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs rights that can lack")
def test_a_folder_that_may_not_be_listed_can_be_written_into(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o300)
    write_atomically(folder / "a", "x")
    folder.chmod(0o700)
    assert [path.name for path in folder.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".iter_9.pth.0123abcd", True),
        (".iter_9.pth.a1b2c3_4", False),
        (".iter_9.pth", False),
        (".iter_9.pth.bak", False),
        ("iter_9.pth.a1b2c3d4", False),
        (".iter_9xpth.a1b2c3d4", False),
        (".iter_9.pth.a1b2c3d4.gz", False),
        (".iter_9.pth.A1B2C3D4", False),
    ],
)
def test_temporary_names_are_told_from_others(name, expected):
    assert is_temporary_name(name, r"iter_\d+\.pth") is expected
