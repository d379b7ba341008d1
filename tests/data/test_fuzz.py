"""Mutations of good COCO files: every reader gives a result, or an error of ours."""

import copy
import json
from contextlib import suppress
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from fldet.analysis.dataset.inspect import inspect_data
from fldet.analysis.dataset.summary import summarize_content
from fldet.data.annotations import read_annotations, read_class_names
from fldet.data.check import check_data
from fldet.data.coco import CocoDataset
from fldet.errors import FldetError
from fldet.evaluation.coco import evaluate_coco

GOOD = {
    "info": {"year": 2020},
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 40, "height": 20},
        {"id": 2, "file_name": "day/b.jpg", "width": 40, "height": 20, "license": 1},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 10], "area": 100},
        {"id": 2, "image_id": 2, "category_id": 3, "bbox": [1.5, 2, 9, 9], "iscrowd": 1},
        {"id": 3, "image_id": 2, "category_id": 3, "bbox": [5, 2, 9, 9], "ignore": 0},
    ],
    "categories": [
        {"id": 1, "name": "x", "supercategory": "none"},
        {"id": 3, "name": "y", "supercategory": "x"},
    ],
}
ODD = st.sampled_from(
    [
        *(None, True, False, "", "0", "1", "x", "a.jpg", "\0", "\ud800", "\x1b[31m", "x" * 5000),
        *("../a.jpg", "/etc/passwd", "day\\b.jpg", "C:\\b.jpg", ".", "a.jpg/b.jpg"),
        *(0, 1, 2, 3, -1, 0.5, 1.0, 1e-320, 1e308, -1e308, 2**31, 2**63, 2**64, 10**400),
        *(float("nan"), float("inf"), [], {}, [[]], [1], [1, 2, 3, 4], {"id": 1}, [None] * 4),
    ]
)


def places(value, path=()):
    """Yields the path of each value in a structure."""
    yield path
    inner = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in inner:
        yield from places(value[key], (*path, key))


@st.composite
def mutated(draw):
    """Good content of which up to three values are replaced, removed or doubled."""
    content = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from([path for path in places(content) if path]))
        parent = content
        for key in way:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double"]))
        if action == "replace":
            parent[last] = copy.deepcopy(draw(ODD))
        elif action == "remove":
            del parent[last]
        elif isinstance(parent, list):
            parent.append(parent[last])
    return json.dumps(content).encode()


@st.composite
def damaged(draw):
    """The bytes of a good file, some of them cut out, repeated or overwritten."""
    data = json.dumps(GOOD).encode()
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 60)))
    return data[:start] + draw(st.binary(max_size=4)) + data[end:] + draw(st.binary(max_size=4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    (root / "day").mkdir()
    for name in ("a.jpg", "day/b.jpg"):
        Image.new("RGB", (40, 20)).save(root / name)
    return root


def readings(path: Path):
    """Yields everything that reads a COCO file."""
    options = {"ann_file": str(path), "data_prefix": {"img": str(path.parent)}, "pipeline": []}
    yield lambda: read_class_names(path)
    yield lambda: summarize_content(read_annotations(path), "a", path.parent)
    yield lambda: evaluate_coco(path, [])
    yield lambda: check_data(path, path.parent)
    yield lambda: inspect_data(path)
    for test_mode in (False, True):
        yield lambda test_mode=test_mode: CocoDataset(**options, test_mode=test_mode)
    yield lambda: CocoDataset(**options, metainfo={"classes": ("y",)}).check_files()


@pytest.mark.parametrize("mutation", [mutated(), damaged()], ids=["values", "bytes"])
def test_only_results_or_errors_of_ours(folder, mutation):
    path = folder / "a.json"

    @settings(
        max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
    )
    @given(mutation)
    def read_all(data):
        path.write_bytes(data)
        for read in readings(path):
            with suppress(FldetError):
                read()

    read_all()
