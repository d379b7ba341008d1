import errno
import os
import socket
import tracemalloc
from pathlib import Path

import pytest

from fldet.errors import DataError, UsageError
from fldet.files import (
    GIB,
    MIB,
    make_folder,
    parse_json,
    read_bytes,
    read_json,
    read_lines,
    read_text,
    require_writable,
    write_atomically,
)

TEXT = "Größe 箱子\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_is_read_by_its_mark(tmp_path, encoding):
    file = tmp_path / "a.txt"
    file.write_bytes(TEXT.encode(encoding))
    assert read_text(file, most=100) == TEXT


@pytest.mark.parametrize("encoding", ["gb18030", "latin-1", "shift_jis", "utf-16-be"])
def test_other_encodings_are_named_with_the_line(tmp_path, encoding):
    file = tmp_path / "a.txt"
    file.write_bytes(b"one\n" + "子ß".encode(encoding, "ignore") + b"\xff")
    with pytest.raises(DataError, match=r"a\.txt:2: not UTF-8") as error:
        read_text(file, most=100)
    assert "iconv" in error.value.hint


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


def make_device(path):
    path.symlink_to("/dev/zero")


def make_endless_link(path):
    path.symlink_to(path)


def make_link_into_a_file(path):
    Path(path.parent, "file").touch()
    path.symlink_to(Path(path.parent, "file", "below"))


@pytest.mark.skipif(os.name != "posix", reason="kinds of files that POSIX has")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_fifo, "is a pipe"),
        (make_socket, "is a pipe, socket"),
        (make_device, "or device"),
        (Path.mkdir, "is a folder"),
        (make_endless_link, "cannot read"),
        (make_link_into_a_file, "label file not found"),
        (lambda path: None, "label file not found"),
    ],
)
def test_what_is_no_file_is_not_opened(tmp_path, monkeypatch, make, words):
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    make(Path("a.txt"))
    with pytest.raises(DataError, match=words):
        read_bytes(Path("a.txt"), "label file", most=100)


def test_a_name_that_no_file_can_have_is_an_error_of_ours():
    with pytest.raises(DataError, match="cannot read"):
        read_bytes(Path("a\0b"), most=100)


def test_a_file_may_have_so_many_bytes_and_no_more(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"x" * 100)
    assert len(read_bytes(file, most=100)) == 100
    with pytest.raises(DataError, match=r"label file: 100 bytes\nExpected: at most 99"):
        read_bytes(file, "label file", most=99)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 10**5 + "]" * 10**5, "nested too deep"),
        ('{"a":' * 10**5 + "1" + "}" * 10**5, "nested too deep"),
        ("[1, 2", "line 1, column 6"),
        ("", "line 1, column 1"),
    ],
)
def test_json_that_is_none(text, words):
    with pytest.raises(DataError, match=words):
        parse_json(text, "a.json", expected="a list")


def test_json_with_the_mark_of_windows(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json", "annotation file") == {"a": 1}


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n\nb\n", [b"a\n", b"\n", b"b\n"]),
        (b"1234567890\nb", [b"12345678", b"b"]),
        (b"12345678\nb\n", [b"12345678", b"b\n"]),
        (b"1234567\nb\n", [b"1234567\n", b"b\n"]),
        (b"1" * 50, [b"1" * 8]),
    ],
)
def test_lines_are_bounded(tmp_path, data, lines):
    (tmp_path / "a.txt").write_bytes(data)
    assert [*read_lines(tmp_path / "a.txt", "log", most=50, longest=8)] == lines


def test_too_many_bytes_of_lines_are_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\n" * 26)
    with pytest.raises(DataError, match=r"a\.txt is too large for log: 52 bytes"):
        list(read_lines(tmp_path / "a.txt", "log", most=51, longest=8))


def test_no_more_than_a_line_is_held(tmp_path):
    file = tmp_path / "a.txt"
    with file.open("wb") as opened:
        opened.truncate(64 * MIB)
    tracemalloc.start()
    assert sum(map(len, read_lines(file, "log", most=GIB, longest=MIB))) == MIB
    assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    tracemalloc.stop()


@pytest.mark.skipif(os.name != "posix", reason="kinds of files that POSIX has")
@pytest.mark.parametrize("make", [make_fifo, make_device, Path.mkdir, make_endless_link])
def test_lines_are_those_of_a_regular_file(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(DataError, match="x"):
        next(read_lines(tmp_path / "x", "log", most=50, longest=8))


NO_FOLDERS = {
    "file": "file",
    "below": "file/below",
    "loop": "loop/below",
    "dangling": "dangling",
    "long": "a" * 256,
    "where nobody makes folders": "/proc/x/y",
}


@pytest.mark.parametrize("place", NO_FOLDERS.values(), ids=NO_FOLDERS)
@pytest.mark.parametrize(
    "make", [make_folder, require_writable, lambda folder: write_atomically(folder / "x", "")]
)
def test_a_name_that_can_be_no_folder_is_wrong_usage(tmp_path, make, place):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="cannot be a folder: ") as refused:
        make(tmp_path / place)
    assert "--out-dir" in refused.value.hint


def test_folders_are_made_with_those_above_them_and_a_full_disk_is_no_usage(tmp_path, monkeypatch):
    assert make_folder(tmp_path / "a/b") == make_folder(tmp_path / "a/b") == tmp_path / "a/b"
    assert (tmp_path / "a/b").is_dir()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        make_folder(tmp_path / "c")
