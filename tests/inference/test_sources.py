import io
import logging
import os
import subprocess

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fldet.errors import DataError, UsageError
from fldet.inference.sources import _item, check_source, find_items, fixed_part


@pytest.fixture
def tree(tmp_path):
    for name in ("b.JPG", "a.png", "note.txt", "sub/c.jpg", "sub/deep/d.tif", "Z/a.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.symlink(tmp_path, tmp_path / "sub" / "loop")
    return tmp_path


def files(source, **options):
    return [item.file for item in find_items(str(source), **options)]


def test_a_folder_is_walked_in_order_and_links_to_folders_are_not(tree):
    names = ["a.png", "b.JPG", "Z/a.jpg", "sub/c.jpg", "sub/deep/d.tif"]
    assert files(tree) == [str(tree / name) for name in names]


def test_pictures_lie_as_the_files_do_and_do_not_collide(tree):
    (tree / "b.png").touch()
    pictures = [item.picture for item in find_items(str(tree))]
    assert pictures == [
        "a.png.jpg",
        "b.JPG",
        "b.png.jpg",
        "Z/a.jpg",
        "sub/c.jpg",
        "sub/deep/d.tif.jpg",
    ]


def test_a_glob_an_image_and_stdin(tree, monkeypatch):
    (tree / "sub" / "loop").unlink()  # the ** of Python's glob follows links
    assert files(tree / "**" / "*.jpg") == [str(tree / "Z/a.jpg"), str(tree / "sub/c.jpg")]
    assert files(tree / "a.png") == [str(tree / "a.png")]
    give_stdin(monkeypatch, b"x/a.jpg\n\n/../b c.png\r\n\xff.jpg\n")
    items = list(find_items("-"))
    assert [item.file for item in items] == ["x/a.jpg", "/../b c.png", "\udcff.jpg"]
    assert [item.picture for item in items][:2] == ["x/a.jpg", "_root/_up/b c.png.jpg"]


def give_stdin(monkeypatch, data):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="nothing to predict on: no/such"):
        find_items("no/such")
    for name in ("broken.mp4", "notes.txt", "script.ts", "nothing.webm"):
        path = tmp_path / name
        path.write_text("" if name.startswith("nothing") else "no video, no picture\n" * 20)
        with pytest.raises(DataError, match=f"cannot open .*{name}, neither"):
            find_items(str(path))
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="nothing to predict on"):
        find_items(str(tmp_path / "pipe.jpg"))
    with pytest.raises(DataError, match="nothing to predict on"):
        find_items("a" * 5000)


def test_stdin_is_for_one_process(tmp_path):
    check_source("-", 1)
    check_source(str(tmp_path), 8)
    with pytest.raises(UsageError, match="2 processes cannot share"):
        check_source("-", 2)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no videos")
    for grey in range(0, 250, 25):
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    return path


def test_each_third_frame_of_a_video(video):
    seen = [
        (item.frame, item.picture, int(item.read().mean())) for item in find_items(str(video), 3)
    ]
    assert [one[:2] for one in seen] == [(n, f"film/{n:06d}.jpg") for n in (0, 3, 6, 9)]
    assert [one[2] for one in seen] == pytest.approx([0, 75, 150, 225], abs=3)


@pytest.mark.parametrize(
    ("ending", "codec"), [("ts", "mp4v"), ("m2ts", "mp4v"), ("webm", "VP80"), ("wmv", "WMV2")]
)
@pytest.mark.parametrize("name", ["film.{}", "FILM.{}.bin", "film"])
def test_a_video_is_what_opens_as_one_whatever_its_ending(tmp_path, ending, codec, name):
    path = tmp_path / f"film.{ending}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no such videos")
    for grey in range(0, 250, 50):
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    path = path.rename(tmp_path / name.format(ending))
    assert [item.frame for item in find_items(str(path))] == list(range(5))


def test_a_gif_is_a_video_and_an_image_may_have_any_ending(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    if cv2.haveImageWriter("a.gif"):
        (tmp_path / "a.gif").write_bytes(cv2.imencode(".gif", pixels)[1].tobytes())
        assert [item.frame for item in find_items(str(tmp_path / "a.gif"))] == [0]
    for name in ("photo", "photo.JPEG2000", "photo.mp4"):
        (tmp_path / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        assert [item.frame for item in find_items(str(tmp_path / name))] == [None]


def test_what_opencv_reads_in_a_folder_is_predicted_and_the_rest_named(tmp_path, caplog):
    pixels = np.zeros((8, 8, 3), np.uint8)
    written = {"a.jfif": ".jpg", "b.JPE": ".jpg", "c.Pgm": ".ppm", "d.sr": ".sr", "e": ".png"}
    for name, ending in {**written, b"f\xff.ras": ".ras"}.items():
        data = cv2.imencode(ending, pixels)[1].tobytes()
        (tmp_path / os.fsdecode(name)).write_bytes(data)
    for name in ("g.txt", "h.mp4", "._a.jpg", os.fsdecode(b"i\xff")):
        (tmp_path / name).write_text("no image")
    os.mkfifo(tmp_path / "j")
    for copies in (".ipynb_checkpoints", "__MACOSX", "predictions"):
        (tmp_path / copies).mkdir()
        (tmp_path / copies / "k.jpg").touch()
    (tmp_path / "predictions" / "predict.json").touch()
    with caplog.at_level(logging.INFO, "fldet"):
        names = [os.fsencode(os.path.basename(name)) for name in files(tmp_path)]
    assert names == [*map(str.encode, written), b"f\xff.ras"]
    assert "left out: 5 other files" in caplog.text
    assert "g.txt" in caplog.text
    assert "predictions holds predictions" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "fldet"):
        assert len(files(tmp_path / "*.[jt]*")) == 1
    assert "left out: 1 other files or links to folders, such as" in caplog.text


def test_a_folder_as_deep_as_paths_may_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    open("a.jpg", "w").close()
    monkeypatch.chdir(tmp_path)
    (item,) = find_items("d")
    subprocess.run(["rm", "-r", "d"], check=True)  # Python's own way fails
    assert item.file.count("/") == 1200
    assert "/" not in item.picture


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_an_image_that_cannot(tree):
    (tree / "sub").chmod(0)
    *_, last = find_items(str(tree))
    (tree / "sub").chmod(0o755)
    assert "cannot list the folder" in last.read().message


def test_what_is_no_file_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    lines = [str(tmp_path / "pipe.jpg"), "/dev/zero", str(tmp_path), "a\0b", "b" * 5000, "."]
    give_stdin(monkeypatch, "\n".join(lines).encode())
    faults = [item.read().message for item in find_items("-")]
    words = ["a pipe, socket or device", "a pipe, socket or device", "a folder", "null", "too long"]
    for fault, word in zip(faults, [*words, "a folder"], strict=True):
        assert word in fault


@pytest.mark.parametrize(
    "names",
    [
        ["col/x.png", "../col/x.png", "/col/x.png", "_up/col/x.png", "_root/col/x.png"],
        ["a.jpg", "a.png", "a", "a.JPG", "A.jpg", "a.png.jpg", "a.jpg.jpg", "a.png.png", "a.bin"],
        ["x\ny.jpg", "x_y.jpg", "x\\y.jpg", "x\udcffy.jpg", "x\udcfey.jpg", "x\x1by.jpg"],
        ["試" * 83 + "1.jpg", "試" * 83 + "2.jpg", "試" * 83 + "1.png", "z" * 255, "z" * 254],
        ["/".join("d" * 200 for _ in range(12)) + end for end in ("/a.jpg", "/b.jpg")],
        ["_up/../x.png", "../_up/x.png", "../../x.png", "_up/_up/x.png", "..", "_up"],
    ],
    ids=["folders", "endings", "letters", "long", "deep", "up"],
)
def test_two_sources_have_two_pictures(names):
    pictures = [_item(name, "").picture for name in names]
    assert len(set(pictures)) == len(names)
    for picture in pictures:
        assert not picture.startswith("/")
        assert len(picture.encode()) <= 1000
        assert all(part != ".." and len(part.encode()) <= 210 for part in picture.split("/"))
        assert picture.lower().endswith(".jpg")
        assert not set(picture) & set("\n\\\x1b")


some_parts = st.sampled_from(["..", "a", "a.jpg", "a.png", "_up", "_root", "x" * 300])
any_part = st.text(min_size=1, max_size=300).filter(lambda part: "/" not in part and part != ".")
some_paths = st.lists(some_parts | any_part, min_size=1, max_size=5).map("/".join)


@given(st.lists(st.tuples(st.sampled_from(["", "/"]), some_paths).map("".join), unique=True))
@settings(max_examples=200, deadline=None)
def test_whatever_the_sources_are_called(names):
    pictures = [_item(name, "").picture for name in names]
    assert len(set(pictures)) == len(names)
    assert all(len(part.encode()) <= 210 for name in pictures for part in name.split("/"))


def test_the_folder_that_holds_a_source(tmp_path):
    assert fixed_part("a/b*/c") == "a"
    assert fixed_part("a/b") == "a/b"
    (tmp_path / "a[1]").mkdir()
    assert fixed_part(str(tmp_path / "a[1]")) == str(tmp_path / "a[1]")


@pytest.mark.parametrize(
    "text",
    [
        b"#EXTM3U\n#EXTINF:1,\nother.mp4\n",
        b"\xef\xbb\xbf#EXTM3U\n#EXT-X-TARGETDURATION:3600\n#EXTINF:1,\nother.mp4\n",
        b"#EXTM3U\n\0\0\0other.mp4\n",
        b"ffconcat version 1.0\nfile other.mp4\n",
        b"<?xml version='1.0'?><MPD/>",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
        b"[playlist]\nFile1=other.mp4\n",
        b"rtsp://127.0.0.1/x",
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.avi"])
def test_a_video_names_no_other_file(tmp_path, monkeypatch, name, text):
    opened = []
    monkeypatch.setattr(cv2, "VideoCapture", opened.append)
    (tmp_path / name).write_bytes(text)
    with pytest.raises(DataError, match="cannot open"):
        list(find_items(str(tmp_path / name)))
    assert opened == []
