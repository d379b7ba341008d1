"""Good files with faults put in at random: a result, or an error of ours."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fldet.analysis.dataset.inspect import inspect_data
from fldet.analysis.init import make_plan
from fldet.cli.data.inspect import inspection_text
from fldet.data.convert import convert
from fldet.data.formats.recognise import recognise
from fldet.errors import FldetError

XML = """<?xml version="1.0" encoding="{}"?>
<annotation><folder>JPEGImages</folder><filename>{}.png</filename>
<size><width>16</width><height>12</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult><bndbox><xmin>2</xmin><ymin>3</ymin>
<xmax>9</xmax><ymax>11</ymax></bndbox></object></annotation>"""
VOC = {
    "Annotations/a.xml": XML.format("utf-8", "a"),
    "Annotations/cam2/b 1.xml": XML.format("gbk", "b 1"),
    "ImageSets/Main/train.txt": "a\ncam2/b 1\n",
    "ImageSets/Main/val.txt": "JPEGImages/a.png\n",
}
YOLO = {
    "data.yaml": "path: .\ntrain: images\nval: [val.txt]\nnc: 2\nnames:\n  0: no\n  1: dog\n"
    "kpt_shape: [2, 2]\n",
    "val.txt": "./images/a.png\n",
    "labels/a.txt": "0 0.5 0.5 0.25 0.5\n1 .5 .5 .2 .2 .1 .1 .2 .2\n",
    "labels/b.txt": "",
}
NAMED = {
    "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n",
    "obj.names": "cat\ndog\n",
    "train.txt": "data/images/a.png\n",
    "classes.txt": "cat\ndog\n",
    "labels/a.txt": "0 0.5 0.5 0.25 0.5\n",
}
PIECES = [
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\n", b"\r", b" ", b"\t", b"", b"\xe7\xae\xb1"),
    *(b"<", b">", b"</object>", b"<object>", b"<name>", b"<!ENTITY a 'b'>", b"&a;", b"<!--"),
    *(b"utf-16", b"punycode", b"zlib", b"1e999", b"-1", b"nan", b"inf", b"9" * 5000, b"1_0"),
    *(b"[", b"]", b"{", b"}", b": ", b"- ", b"&x ", b"*x", b"!!int ", b"!!python/name:os.x "),
    *(b"names", b"..", b"/", b"../../", b"/dev/zero", b"a" * 5000, b"%", b"#", b"'", b'"', b"|"),
]
CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1),  # where, as a share of the file
        st.integers(0, 40),  # bytes that are taken away
        st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)),
    ),
    min_size=1,
    max_size=4,
)


def changed(data, changes):
    for share, count, piece in changes:
        place = int(share * len(data))
        data = data[:place] + piece + data[place + count :]
    return data


def make(root, files):
    for name, data in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    for image in ("images/a", "images/b", "JPEGImages/a", "JPEGImages/cam2/b 1"):
        file = root / f"{image}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12)).save(file)


def commands(root):
    """What inspect, convert and init do."""
    found = recognise(root)
    inspection_text(inspect_data(root))
    for split in found.splits:
        convert(root, root.with_name(f"{split}.json"), split)
    make_plan(found, "a", "small")


@pytest.mark.parametrize("files", [VOC, YOLO, NAMED], ids=["voc", "yolo", "named"])
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_changed_files_end_in_a_result_or_an_error_of_ours(files, data):
    name = data.draw(st.sampled_from(sorted(files)))
    changes = data.draw(CHANGES)
    encoded = {key: text.encode() for key, text in files.items()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "set")
        make(root, {**encoded, name: changed(encoded[name], changes)})
        with contextlib.suppress(FldetError):
            commands(root)


@pytest.mark.parametrize("files", [VOC, YOLO, NAMED], ids=["voc", "yolo", "named"])
def test_the_files_are_good_before(files, tmp_path):
    make(tmp_path / "set", {name: text.encode() for name, text in files.items()})
    commands(tmp_path / "set")
